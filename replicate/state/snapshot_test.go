package state

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"forebay/internal/record"
)

// fullLog is a lane whose state has something of everything.
func fullLog(t testing.TB) *log {
	t.Helper()
	l := newLog(t)
	l.ok(SinkAdd{Name: "files", Destination: "file:/out", At: at0})
	l.ok(SinkAdd{Name: "table", Destination: "sqlite:/db", At: at0 + 1})
	l.ok(SinkAdd{Name: "gone", Destination: "stdout", Newest: true, At: at0 + 1})
	first := l.ok(small(t, from("t", 0, 100, 3), from("u", 0, 0, 2)))
	part := large(t, from("t", 1, 0, 2))
	l.ok(part[0])
	l.no(small(t, from("t", 0, 100, 3)), "goes on at 103")
	l.ok(Advance{At: at0 + 2, Advance: record.Advance{Topic: "t", TopicID: idA, Base: 103, Next: 110, Reason: record.AdvanceExpired}})
	l.ok(small(t, from("t", 0, 110, 3)))
	l.ok(Cut{Term: 1, Seq: 1, At: at0 + 5000})
	l.ok(part[1])
	l.ok(part[2])
	l.ok(Cut{Term: 1, Seq: 2, At: at0 + 4000})
	l.ok(Done{Term: 1, Done: record.Done{Sink: "files", Seq: 1, Attempts: 2, StartedAt: at0 + 5001, DoneAt: at0 + 5100}})
	refused := func(offset int64) RefusedRecord {
		r := refusal(offset)
		r.Indexes = []uint64{first}
		return r
	}
	l.ok(Refuse{Sink: "table", Term: 1, Seq: 1, At: at0 + 5200, Refusals: []RefusedRecord{refused(100), refused(102)}})
	l.ok(Refuse{Sink: "table", Term: 1, Seq: 1, Drop: true, At: at0 + 5201, Refusals: []RefusedRecord{refused(101)}})
	l.ok(Copies(1, []byte("a block"))[0])
	l.ok(Copy{ID: 2, Parts: 2, Checksum: 7, Data: []byte("half")})
	l.ok(SinkPause{Name: "table", Paused: true, At: at0 + 5202})
	l.ok(TopicChange{TopicChange: record.TopicChange{Topic: "u", Old: idA, New: idB}, Suspect: 7, At: at0 + 5300})
	l.ok(SinkRemove{Name: "gone", GivesUpFrom: 1, At: at0 + 5400})
	l.ok(Set{Key: "voters", Value: "n1,n2,n3"})
	l.ok(small(t, from("u", 0, 0, 1).of(idB)))
	l.no(small(t, from("u", 0, 0, 1)), `topic "u" is 0b`)
	l.ok(large(t, from("t", 0, 113, 1))[0])
	return l
}

func TestGoldenEntries(t *testing.T) {
	l := fullLog(t)
	l.ok(Discard{IDs: []uint64{1, 2}, At: at0 + 6000})
	l.done("table")
	l.ok(Release{Term: 1, Seq: 1, At: at0 + 7000})
	l.ok(Begin{Term: 2, Node: "n2", At: at0 + 8000})
	l.ok(Void{Term: 2, Seq: 5, At: at0 + 9000})
	var out bytes.Buffer
	for i := uint64(1); i <= l.index; i++ {
		e := l.entries[i]
		kind, detail := Describe(e)
		text := hex.EncodeToString(e)
		if isBlock(e) {
			text = "(a block of package record)"
		} else if kind == "copy" {
			text = hex.EncodeToString(e[:min(len(e), 12)]) + "…"
		}
		fmt.Fprintf(&out, "%d %s: %s\n\t%s\n", i, kind, detail, text)
	}
	want := golden(t, "entries.golden", out.Bytes())
	diff(t, string(want), out.String())
}

// TestGoldenSnapshot pins the format: bytes of the first version must be read
// for ever.
func TestGoldenSnapshot(t *testing.T) {
	got := fullLog(t).s.Marshal(nil)
	want := golden(t, "snapshot.golden", got)
	diff(t, hex.Dump(want), hex.Dump(got))
	s, err := Unmarshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if f, ok := s.Identity(); !ok || f != theForm() || s.LastSeq() != 2 || len(s.Parked()) != 2 {
		t.Errorf("identity %v, last %d, parked %v", f, s.LastSeq(), s.Parked())
	}
}

func TestMarshalAppends(t *testing.T) {
	s := fullLog(t).s
	b := s.Marshal([]byte("before"))
	if !bytes.Equal(b, append([]byte("before"), s.Marshal(nil)...)) {
		t.Error("what stood before the snapshot changed it")
	}
}

func TestSnapshotThatIsNone(t *testing.T) {
	good := fullLog(t).s.Marshal(nil)
	sealed := func(body []byte) []byte {
		return binary.LittleEndian.AppendUint32(bytes.Clone(body), castagnoli(body))
	}
	newer := bytes.Clone(good[:len(good)-4])
	newer[4] = 2
	for name, tc := range map[string]struct {
		data  []byte
		words string
	}{
		"empty":      {nil, "this is no snapshot of a lane at byte 0"},
		"another":    {[]byte("something else altogether"), "this is no snapshot of a lane at byte 0"},
		"newer":      {sealed(newer), "unknown format version: snapshot in version 2"},
		"short":      {good[:len(good)-5], "checksum of the snapshot is wrong"},
		"after":      {sealed(append(bytes.Clone(good[:len(good)-4]), 0)), "bytes after the snapshot"},
		"not formed": {sealed([]byte("FBst\x01\x00\x80\x00")), "bad number"},
	} {
		t.Run(name, func(t *testing.T) {
			var format *FormatError
			_, err := Unmarshal(tc.data)
			typed := errors.As(err, &format) || errors.Is(err, ErrVersion)
			if !typed || !strings.Contains(err.Error(), tc.words) {
				t.Errorf("error %v, want %q", err, tc.words)
			}
		})
	}
	for i := range len(good) - 4 {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		if _, err := Unmarshal(bad); err == nil {
			t.Fatalf("a flipped bit in byte %d was not found", i)
		}
	}
	for i := range len(good) - 4 {
		if _, err := Unmarshal(sealed(good[:i])); err == nil {
			t.Fatalf("a snapshot that ends at byte %d was read", i)
		}
	}
}

// TestSnapshotInAnotherForm: what says the same in other bytes is no snapshot.
func TestSnapshotInAnotherForm(t *testing.T) {
	l := newLog(t)
	l.ok(Set{"a", "x"})
	l.ok(Set{"b", "y"})
	good := l.s.Marshal(nil)
	body := bytes.Clone(good[:len(good)-4])
	swapped := bytes.Replace(body, []byte("\x01a\x01x\x01b\x01y"), []byte("\x01b\x01y\x01a\x01x"), 1)
	if bytes.Equal(swapped, body) {
		t.Fatal("the values are not where they were")
	}
	_, err := Unmarshal(binary.LittleEndian.AppendUint32(swapped, castagnoli(swapped)))
	var format *FormatError
	if !errors.As(err, &format) || format.What != "snapshot is not in its one form" || format.Offset == 0 {
		t.Errorf("error %v", err)
	}
}

// TestLengthsAllocateLittle: a length field makes nothing allocate more than
// the bytes that are there warrant.
func TestLengthsAllocateLittle(t *testing.T) {
	huge := binary.AppendUvarint(nil, 1<<40)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for tag := tagForm; tag <= tagVoid; tag++ {
		for skip := range 40 {
			e := append([]byte{tag, entryVersion}, make([]byte, skip)...)
			if _, err := Decode(append(e, huge...)); err == nil && tag != tagForm && tag != tagBegin {
				continue // a number may be as large
			}
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}

func TestEncodeOfAForeignType(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	Encode(&Cut{})
}

func TestDescribe(t *testing.T) {
	for name, tc := range map[string]struct {
		entry        []byte
		kind, detail string
	}{
		"nothing": {nil, "unknown", "state: entry without a kind and a version at byte 0"},
		"foreign": {[]byte{0xee, 1}, "unknown", "unknown format version: entry kind 0xee"},
		"block":   {small(t, from("t", 0, 100, 3), claim{"u", idA, 2, 5, []int64{7}}), "block", "4 records, 40 bytes: t/0 100-102 u/2 7-7 (after 5)"},
		"part":    {large(t, from("t", 0, 100, 2))[1], "part", "2 of 3: 2 records, 2621440 bytes: t/0 100-101"},
	} {
		t.Run(name, func(t *testing.T) {
			kind, detail := Describe(tc.entry)
			diff(t, tc.kind+" "+tc.detail, kind+" "+detail)
		})
	}
}
