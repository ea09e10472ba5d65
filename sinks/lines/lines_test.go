package lines

import (
	"bytes"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/record"
	"forebay/sinks"
)

var update = flag.Bool("update", false, "write the golden files anew")

func encoder(t testing.TB, f Format, e Encoding, columns ...string) *Encoder {
	t.Helper()
	enc, err := New(f, e, columns)
	if err != nil {
		t.Fatal(err)
	}
	return enc
}

func rowOf(rec *record.Record) *sinks.Row { return &sinks.Row{Record: rec, Value: rec.Value} }

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// samples are written by every encoding; what one refuses shows as a line of its own.
func samples() []record.Record {
	h := func(kv ...string) (hs []record.Header) {
		for i := 0; i < len(kv); i += 2 {
			hs = append(hs, record.Header{Key: []byte(kv[i]), Value: []byte(kv[i+1])})
		}
		return hs
	}
	b := func(s string) []byte { return []byte(s) }
	return []record.Record{
		{Topic: "pages", Partition: 2, Offset: 42, Timestamp: 1700000000123, Key: b(`"k"`), Value: b(`{ "page" : "a<b>&c", "n" : [ 1 , 2.5e-3 , null ] }`), Headers: h("trace", `"1"`, "trace", `2`)},
		{Topic: "pages"},
		{Topic: "pages", Offset: 1, Key: b(""), Value: b(""), Headers: h("", "")},
		{Topic: "pages", Offset: 2, Timestamp: -1, Value: b("line\nbreak\ttab \"quoted\" back\\slash \x00\x1f\x7f é 日本 😀 \u2028\u2029 </script>")},
		{Topic: "pages", Offset: math.MaxInt64, Timestamp: math.MaxInt64, Partition: math.MaxInt32, Key: b("\xff"), Value: b("1")},
		{Topic: "pages", Offset: 3, Timestamp: math.MinInt64, Value: b("truncated \xe6\x97")},
		{Topic: "pages", Offset: 4, Value: b("null"), Headers: []record.Header{{Key: b("nil"), Value: nil}}},
		{Topic: "pages", Offset: 5, Value: b("7"), Headers: []record.Header{{Key: b("\xfe"), Value: b("7")}}},
		{Topic: "pages", Offset: 6, Value: b("7"), Headers: []record.Header{{Key: b("bad"), Value: b("\xfe")}}},
		{Topic: "pages", Offset: 7, Value: b("{\"a\": \"\xfe\"}")},
		{Topic: "pages", Offset: 8, Value: b("\u2028"), Key: b("\"\u2028\"")},
	}
}

func TestFileSinkExactly(t *testing.T) {
	for _, e := range []Encoding{Base64, UTF8, JSON} {
		enc := encoder(t, JSONL, e)
		var out []byte
		for _, r := range samples() {
			before := len(out)
			line, err := enc.Append(out, rowOf(&r))
			if err != nil {
				if len(line) != before {
					t.Errorf("%s: a refused record left %q behind", e, line[before:])
				}
				out = fmt.Appendf(out, "# refused offset %d: %v\n", r.Offset, err)
				continue
			}
			out = line
			if !json.Valid(out[before:]) || !utf8.Valid(out[before:]) || bytes.Count(out[before:], []byte("\n")) != 1 {
				t.Errorf("%s: not one line of JSON: %q", e, out[before:])
			}
		}
		golden(t, "jsonl-"+string(e)+".golden", out)
	}
}

func TestRaw(t *testing.T) {
	enc := encoder(t, Raw, Base64)
	var out []byte
	for _, r := range samples() {
		line, err := enc.Append(out, rowOf(&r))
		if r.Value == nil {
			if !errors.Is(err, ErrNil) || len(line) != len(out) {
				t.Errorf("offset %d: got %v, want %v and nothing written", r.Offset, err, ErrNil)
			}
			continue
		}
		if err != nil || !bytes.Equal(line[len(out):], append(bytes.Clone(r.Value), '\n')) {
			t.Errorf("offset %d: %q, %v", r.Offset, line[len(out):], err)
		}
		out = line
	}
}

func TestCSV(t *testing.T) {
	rows := [][]any{
		{"plain", int64(-7), 0.1, true, []byte("bytes")},
		{nil, nil, nil, nil, nil},
		{"", int64(0), 0.0, false, []byte{}},
		{"a,b", int64(math.MinInt64), math.Inf(-1), true, []byte(nil)},
		{`say "hi"`, int64(1), 1e100, true, []byte(`with "quotes"`)},
		{"line\nbreak\r", int64(1), math.NaN(), true, []byte("x\ny")},
		{" edge", int64(1), 1.0, true, []byte("edge ")},
		{"bad \xff", int64(1), 1.0, true, []byte("x")},
		{"bytes", int64(1), 1.0, true, []byte("\xff")},
		{"too few"},
		{struct{}{}, int64(1), 1.0, true, []byte("x")},
	}
	for _, e := range []Encoding{Base64, UTF8} {
		enc := encoder(t, CSV, e, "text", "a number", "with,comma", "yes", "bytes")
		out := enc.Header(nil)
		lines := 1
		for i, columns := range rows {
			line, err := enc.Append(out, &sinks.Row{Record: &record.Record{}, Columns: columns})
			if err != nil {
				if len(line) != len(out) {
					t.Errorf("row %d: a refused row left %q behind", i, line[len(out):])
				}
				continue
			}
			out = line
			lines++
		}
		golden(t, "csv-"+string(e)+".golden", out)
		read, err := csv.NewReader(bytes.NewReader(out)).ReadAll()
		if err != nil || len(read) != lines {
			t.Errorf("%s: a CSV reader found %d rows (%v), want %d", e, len(read), err, lines)
		}
	}
}

// TestCSVOfOneColumn: a blank line would be no row to most readers.
func TestCSVOfOneColumn(t *testing.T) {
	enc := encoder(t, CSV, UTF8, "only")
	out := enc.Header(nil)
	for _, v := range []any{nil, "", `\.`, "x"} {
		var err error
		if out, err = enc.Append(out, &sinks.Row{Record: &record.Record{}, Columns: []any{v}}); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := string(out), "only\n\"\"\n\"\"\n\"\\.\"\nx\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		format   Format
		encoding Encoding
		columns  []string
		want     string
	}{
		{"xml", Base64, nil, `format "xml": want "jsonl", "csv" or "raw"`},
		{JSONL, "hex", nil, `encoding "hex": want "base64", "utf8" or "json"`},
		{CSV, Base64, nil, `format "csv" needs a mapping that gives columns`},
		{JSONL, Base64, []string{"a"}, `format "jsonl" writes no columns: let the mapping give a value, or use format "csv"`},
		{CSV, Base64, []string{"\xff"}, `column "\xff": not valid UTF-8`},
	} {
		if _, err := New(c.format, c.encoding, c.columns); err == nil || err.Error() != c.want {
			t.Errorf("%v: got %v, want %s", c, err, c.want)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	rec := benchRecord()
	row := rowOf(&rec)
	buf := make([]byte, 0, 64<<10)
	for _, c := range []struct {
		f Format
		e Encoding
	}{{JSONL, Base64}, {JSONL, UTF8}, {JSONL, JSON}, {Raw, Base64}} {
		enc := encoder(t, c.f, c.e)
		if n := testing.AllocsPerRun(100, func() {
			if _, err := enc.Append(buf[:0], row); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s %s: %v allocations a record, want none", c.f, c.e, n)
		}
	}
}

// FuzzJSONLines holds every line against the decoder of encoding/json.
func FuzzJSONLines(f *testing.F) {
	for _, r := range samples() {
		hk, hv := []byte(nil), []byte(nil)
		if len(r.Headers) > 0 {
			hk, hv = r.Headers[0].Key, r.Headers[0].Value
		}
		f.Add(r.Topic, r.Partition, r.Offset, r.Timestamp, r.Key, r.Value, hk, hv)
	}
	f.Fuzz(func(t *testing.T, topic string, partition int32, offset, timestamp int64, key, value, hk, hv []byte) {
		rec := record.Record{
			Topic: topic, Partition: partition, Offset: offset, Timestamp: timestamp, Key: key, Value: value,
			Headers: []record.Header{{Key: hk, Value: hv}},
		}
		for _, e := range []Encoding{Base64, UTF8, JSON} {
			line, err := encoder(t, JSONL, e).Append(nil, rowOf(&rec))
			if wantErr := !carries(e, &rec); (err != nil) != wantErr {
				t.Fatalf("%s: got %v, want an error: %v", e, err, wantErr)
			}
			if err != nil {
				continue
			}
			if bytes.IndexByte(line, '\n') != len(line)-1 || !utf8.Valid(line) {
				t.Fatalf("%s: not one line: %q", e, line)
			}
			compare(t, e, line, &rec)
		}
	})
}

// carries says by the standard library what an encoding can carry.
func carries(e Encoding, r *record.Record) bool {
	ok := func(b []byte) bool {
		switch {
		case b == nil || e == Base64:
			return true
		case e == UTF8:
			return utf8.Valid(b)
		}
		return utf8.Valid(b) && json.Valid(b)
	}
	return utf8.ValidString(r.Topic) && ok(r.Key) && ok(r.Value) && utf8.Valid(r.Headers[0].Key) && ok(r.Headers[0].Value)
}

func compare(t *testing.T, e Encoding, line []byte, r *record.Record) {
	t.Helper()
	var got struct {
		Topic             string
		Partition         int32
		Offset, Timestamp int64
		Key, Value        json.RawMessage
		Headers           [][2]json.RawMessage
	}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&got); err != nil {
		t.Fatalf("%s: %v: %q", e, err, line)
	}
	if got.Topic != r.Topic || got.Partition != r.Partition || got.Offset != r.Offset || got.Timestamp != r.Timestamp || len(got.Headers) != 1 {
		t.Fatalf("%s: %q reads as %+v", e, line, got)
	}
	for _, p := range [][2][]byte{{got.Key, r.Key}, {got.Value, r.Value}, {got.Headers[0][1], r.Headers[0].Value}} {
		if got, want := decoded(t, e, p[0]), p[1]; !bytes.Equal(got, normal(t, e, want)) || (got == nil) != (want == nil) && e != JSON {
			t.Fatalf("%s: %q reads as %q, want %q", e, line, got, want)
		}
	}
	var hk string
	if err := json.Unmarshal(got.Headers[0][0], &hk); err != nil || hk != string(r.Headers[0].Key) {
		t.Fatalf("%s: header key %q (%v), want %q", e, hk, err, r.Headers[0].Key)
	}
}

func decoded(t *testing.T, e Encoding, raw json.RawMessage) []byte {
	t.Helper()
	if e == JSON {
		return raw
	}
	var s *string
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	if s == nil {
		return nil
	}
	if e == UTF8 {
		return []byte(*s)
	}
	b, err := base64.StdEncoding.DecodeString(*s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func normal(t *testing.T, e Encoding, b []byte) []byte {
	t.Helper()
	if e != JSON {
		return b
	}
	if b == nil {
		return []byte("null")
	}
	var buf bytes.Buffer
	if err := json.Compact(&buf, b); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// FuzzCompact holds the compactor against that of encoding/json.
func FuzzCompact(f *testing.F) {
	for _, s := range []string{
		``, ` `, `{}`, ` { "a" : [ 1 , -0.5E+3 , true , false , null , "x\u00e9\n" ] } `, `[[]]`, `01`, `-`, `1.`, `.5`, `1e`, `"\x"`, `"\u12g4"`, `"`, "\"\n\"",
		`{"a":1,}`, `[1,]`, `[1 2]`, `{"a"}`, `{1:2}`, `tru`, `nul`, `1 2`, "\xef\xbb\xbf1", `"\ud800"`, strings.Repeat("[", 100) + strings.Repeat("]", 100), "\x00",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		got, err := appendCompact(nil, src)
		var want bytes.Buffer
		wantErr := json.Compact(&want, src)
		if !utf8.Valid(src) {
			if !errors.Is(err, ErrNotUTF8) {
				t.Fatalf("%q: got %v, want %v", src, err, ErrNotUTF8)
			}
			return
		}
		if (err != nil) != (wantErr != nil) || err == nil && !bytes.Equal(got, want.Bytes()) {
			t.Fatalf("%q: got %q, %v; encoding/json gives %q, %v", src, got, err, want.Bytes(), wantErr)
		}
	})
}

func TestDepthIsBounded(t *testing.T) {
	for _, c := range []struct {
		depth int
		ok    bool
	}{{maxDepth, true}, {maxDepth + 1, false}, {1 << 20, false}} {
		doc := strings.Repeat("[", c.depth) + strings.Repeat("]", c.depth)
		if _, err := appendCompact(nil, []byte(doc)); (err == nil) != c.ok {
			t.Errorf("depth %d: %v", c.depth, err)
		}
		if json.Valid([]byte(doc)) != c.ok {
			t.Errorf("depth %d: encoding/json says otherwise", c.depth)
		}
	}
}

func benchRecord() record.Record {
	return record.Record{
		Topic: "user-behavior-topic", Partition: 3, Offset: 123456, Timestamp: 1700000000000, Key: []byte(`"page-123"`),
		Value:   []byte(`{"page": "` + strings.Repeat("p", 900) + `", "clicks": 3, "minutes": 1.5, "like": -1}`),
		Headers: []record.Header{{Key: []byte("trace"), Value: []byte(`"0123456789abcdef"`)}},
	}
}

func BenchmarkAppend(b *testing.B) {
	rec := benchRecord()
	row := rowOf(&rec)
	for _, c := range []struct {
		f Format
		e Encoding
	}{{JSONL, Base64}, {JSONL, UTF8}, {JSONL, JSON}, {Raw, Base64}} {
		b.Run(string(c.f)+"-"+string(c.e), func(b *testing.B) {
			enc := encoder(b, c.f, c.e)
			buf := make([]byte, 0, 64<<10)
			b.SetBytes(int64(len(rec.Value)))
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if buf, err = enc.Append(buf[:0], row); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
