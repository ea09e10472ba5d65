package file

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
	"go.uber.org/goleak"

	"forebay/internal/record"
	"forebay/sinks"
	"forebay/sinks/lines"
	"forebay/sinks/sinktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// points are the steps of a delivery; from publish on, the name is there.
func points() []sinktest.Point {
	return []sinktest.Point{
		{Name: stepCreate},
		{Name: stepWrite},
		{Name: stepSync},
		{Name: stepLock},
		{Name: stepPublish},
		{Name: stepUnlock, Durable: true},
		{Name: stepSyncDir, Durable: true},
	}
}

// upper is a mapping that changes values, for the variants.
type upper struct{}

func (upper) Columns() []string { return nil }

func (upper) Map(rec *record.Record, row *sinks.Row) (bool, error) {
	row.Record, row.Value = rec, bytes.ToUpper(rec.Value)
	return true, nil
}

func harness(t testing.TB, base Config, variants []Config) *sinktest.Harness {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "out")
	f := &faults{}
	configs := append([]Config{base}, variants...)
	return &sinktest.Harness{
		Make: func(t testing.TB, v int) sinks.Sink {
			t.Helper()
			cfg := configs[v]
			cfg.Dir = dir
			s, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			s.fs = &faultFS{fsys: osFS{}, faults: f, process: f.start()}
			return s
		},
		Variants:  len(configs),
		Read:      func(t testing.TB) []sinktest.Seen { return readDir(t, dir, base.Encoding) },
		Leftovers: func(t testing.TB) []string { return leftovers(t, dir) },
		Points:    points(),
		Inject:    f.arm,
		Refused: func(r *record.Record) {
			r.Headers = []record.Header{{Key: []byte{0xff}}}
		},
		Takes: func(r *record.Record) bool {
			for _, h := range r.Headers {
				if !utf8.Valid(h.Key) || base.Encoding == lines.UTF8 && !utf8.Valid(h.Value) {
					return false
				}
			}
			return base.Encoding != lines.UTF8 || utf8.Valid(r.Key) && utf8.Valid(r.Value)
		},
		Fences:      true,
		MemoryBytes: 24 << 20,
	}
}

func leftovers(t testing.TB, dir string) (left []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := e.Name()
		_, final := parseFinal(name)
		if !final && name != identityName && !strings.HasPrefix(name, cursorPrefix) && !strings.HasPrefix(name, lanePrefix) {
			left = append(left, name)
		}
	}
	return left
}

func TestConformance(t *testing.T) {
	changed := []Config{
		{Encoding: lines.UTF8, Compression: Gzip, Mapper: upper{}},
		{Format: lines.Raw, Compression: Zstd},
	}
	for _, c := range []struct {
		name string
		base Config
	}{
		{"base64", Config{Encoding: lines.Base64}},
		{"utf8-gzip", Config{Encoding: lines.UTF8, Compression: Gzip}},
		{"base64-zstd-shared", Config{Encoding: lines.Base64, Compression: Zstd, Shared: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			sinktest.Run(t, func(t testing.TB) *sinktest.Harness { return harness(t, c.base, changed) })
		})
	}
}

// readDir reads a directory as a consumer does.
func readDir(t testing.TB, dir string, encoding lines.Encoding) []sinktest.Seen {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var seen []sinktest.Seen
	for _, e := range entries {
		id, ok := parseFinal(e.Name())
		if !ok {
			continue
		}
		content := readFinal(t, filepath.Join(dir, e.Name()))
		seen = append(seen, sinktest.Seen{ID: id, Records: parseFile(t, e.Name(), content, encoding)})
	}
	sort.Slice(seen, func(i, j int) bool {
		a, b := seen[i].ID, seen[j].ID
		return a.Lane < b.Lane || a.Lane == b.Lane && a.Seq < b.Seq
	})
	return seen
}

func readFinal(t testing.TB, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var r io.Reader = bytes.NewReader(content)
	switch filepath.Ext(path) {
	case ".gz":
		if r, err = gzip.NewReader(r); err != nil {
			t.Fatal(err)
		}
	case ".zst":
		d, err := zstd.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		r = d
	}
	if content, err = io.ReadAll(r); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return content
}

// parseFile reads the lines of a file. Of raw lines only the value can be known.
func parseFile(t testing.TB, name string, content []byte, encoding lines.Encoding) (recs []record.Record) {
	t.Helper()
	if strings.Contains(name, ".raw") {
		for line := range bytes.Lines(content) {
			recs = append(recs, record.Record{Value: bytes.TrimSuffix(line, []byte("\n"))})
		}
		return recs
	}
	if strings.Contains(name, ".gz") {
		encoding = lines.UTF8
	}
	sc := bufio.NewReader(bytes.NewReader(content))
	for {
		line, err := sc.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 {
			return recs
		}
		if err != nil {
			t.Fatalf("%s: a line without an end: %v", name, err)
		}
		recs = append(recs, parseLine(t, line, encoding))
	}
}

func parseLine(t testing.TB, line []byte, encoding lines.Encoding) record.Record {
	t.Helper()
	var l struct {
		Topic             string
		Partition         int32
		Offset, Timestamp int64
		Key, Value        *string
		Headers           [][2]*string
	}
	if err := json.Unmarshal(line, &l); err != nil {
		t.Fatalf("line %.200q: %v", line, err)
	}
	dec := func(s *string) []byte {
		if s == nil {
			return nil
		}
		b := []byte{}
		if encoding == lines.UTF8 {
			return append(b, *s...)
		}
		if err := json.Unmarshal([]byte(`"`+*s+`"`), &b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	r := record.Record{Topic: l.Topic, Partition: l.Partition, Offset: l.Offset, Timestamp: l.Timestamp, Key: dec(l.Key), Value: dec(l.Value)}
	for _, h := range l.Headers {
		r.Headers = append(r.Headers, record.Header{Key: append([]byte{}, *h[0]...), Value: dec(h[1])})
	}
	return r
}
