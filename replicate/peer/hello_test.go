package peer

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func hellos() map[string]hello {
	id := Identity{"n1", incarnationOf("n1", 7)}
	return map[string]hello{
		"dialler-raft": {oldest: 1, newest: 2, gateway: "shop", id: id, lanes: 3, clock: 1_700_000_000_123, release: "0.2.0", wants: "n2", purpose: forRaft, lane: 2},
		"acceptor":     {oldest: 1, newest: 1, gateway: "shop", id: id, clock: -5, release: "0.2.0"},
		"refusing":     {oldest: 1, newest: 1, gateway: "shop", id: id, lanes: 3, refusal: &Refusal{Code: CodeLanes, Words: "n1 has 3 lanes"}},
		"distrusting":  {oldest: 1, newest: 1, refusal: &Refusal{Code: CodeTLS, Words: "its certificate is not trusted"}},
		"confirmation": {oldest: 1, newest: 1},
	}
}

// The bytes are for ever: other releases read them.
func TestHelloIsAsDrawn(t *testing.T) {
	for name, h := range hellos() {
		t.Run(name, func(t *testing.T) {
			golden := filepath.Join("testdata", "hello-"+name+".golden")
			got := hex.Dump(h.encode())
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-golden +got:\n%s", diff)
			}
			tail := []byte("next")
			in := bytes.NewReader(append(h.encode(), tail...))
			back, err := readHello(in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(h, back, cmp.AllowUnexported(hello{})); diff != "" {
				t.Errorf("-written +read:\n%s", diff)
			}
			if in.Len() != len(tail) {
				t.Errorf("reading it left %d bytes of what follows, not %d", in.Len(), len(tail))
			}
		})
	}
}

func TestHelloOfALaterVersionIsRead(t *testing.T) {
	h := hellos()["acceptor"]
	later := h
	later.newest = 9
	raw := later.encode()
	body := append([]byte{}, raw[:len(raw)-crcBytes]...)
	body = append(body, 99, 3, 0, 'n', 'e', 'w') // a tag that this version does not know
	body[preambleBytes-2] += 6
	back, err := readHello(bytes.NewReader(withSum(body)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(later, back, cmp.AllowUnexported(hello{})); diff != "" {
		t.Errorf("-written +read:\n%s", diff)
	}
}

func withSum(body []byte) []byte {
	sum := frameSumOf(body)
	return append(append([]byte{}, body...), byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24))
}

func TestNonsenseIsNoHello(t *testing.T) {
	good := (&hello{oldest: 1, newest: 1, gateway: "g", id: Identity{"n", [16]byte{1}}}).encode()
	fields := func(f ...byte) []byte {
		body := append([]byte(magic), 1, 0, 1, 0, byte(len(f)), 0)
		return withSum(append(body, f...))
	}
	for name, raw := range map[string][]byte{
		"HTTP":             []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"TLS":              {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 1},
		"half a word":      []byte("SSH-"),
		"a flipped bit":    append(append([]byte{}, good[:20]...), append([]byte{good[20] ^ 1}, good[21:]...)...),
		"too many fields":  append([]byte(magic), 1, 0, 1, 0, 0xff, 0xff),
		"a cut field":      fields(tagNode, 9, 0, 'n'),
		"half a field":     fields(tagNode, 9),
		"a field twice":    fields(tagNode, 1, 0, 'n', tagNode, 1, 0, 'm'),
		"a wrong size":     fields(tagLanes, 3, 0, 1, 2, 3),
		"a long purpose":   fields(tagPurpose, 2, 0, 1, 2),
		"an empty purpose": fields(tagPurpose, 0, 0),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := readHello(bytes.NewReader(raw)); !errors.Is(err, errNonsense) {
				t.Errorf("error %v, want errNonsense", err)
			}
		})
	}
}

func TestWordsOfOthersAreTamed(t *testing.T) {
	h := hello{oldest: 1, newest: 1, id: Identity{"n\n1\x1b[31m", [16]byte{1}}, refusal: &Refusal{Code: 200, Words: strings.Repeat("ü", 400)}}
	back, err := readHello(bytes.NewReader(h.encode()))
	if err != nil {
		t.Fatal(err)
	}
	if back.id.Node != "n?1?[31m" {
		t.Errorf("node %q", back.id.Node)
	}
	if len(back.refusal.Words) > maxWords || !strings.HasPrefix(back.refusal.Words, "üü") || strings.Contains(back.refusal.Words, "?") {
		t.Errorf("words of %d bytes: %q", len(back.refusal.Words), back.refusal.Words)
	}
	if back.refusal.Code.String() != "other" {
		t.Errorf("code %s", back.refusal.Code)
	}
}

func FuzzHello(f *testing.F) {
	for _, h := range hellos() {
		f.Add(h.encode())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		// Past the checksum, or next to nothing would get through.
		if len(raw) > preambleBytes {
			size := len(raw) - preambleBytes
			raw = append([]byte{}, raw...)
			copy(raw, magic)
			raw[preambleBytes-2], raw[preambleBytes-1] = byte(size), byte(size>>8)
			raw = withSum(raw)
		}
		h, err := readHello(bytes.NewReader(raw))
		if err != nil {
			return
		}
		again, err := readHello(bytes.NewReader(h.encode()))
		if err != nil {
			t.Fatalf("what was read cannot be written and read: %v", err)
		}
		if h.id.Node != "" && h.purpose != 0 && again.id.Node != h.id.Node {
			t.Fatalf("node %q, then %q", h.id.Node, again.id.Node)
		}
	})
}
