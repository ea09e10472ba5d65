package stdout

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"go.uber.org/goleak"

	"forebay/internal/record"
	"forebay/sinks"
	"forebay/sinks/lines"
	"forebay/sinks/sinktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stream is a pipe that a consumer reads, with faults.
type stream struct {
	mu    sync.Mutex
	file  *os.File
	armed *sinktest.Fault
}

// end is a stream as one process has it.
type end struct {
	*stream
	dead bool
}

func (e *end) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dead {
		return 0, sinktest.ErrCrashed
	}
	f := e.armed
	if f == nil {
		return e.file.Write(p)
	}
	e.armed = nil
	close(f.Reached)
	n, _ := e.file.Write(p[:len(p)/2])
	switch f.Kind {
	case sinktest.Crash:
		e.dead = true
		return n, sinktest.ErrCrashed
	case sinktest.Hang:
		<-f.Release
	}
	return n, sinktest.ErrInjected
}

func harness(t testing.TB) *sinktest.Harness {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	st := &stream{file: file}
	return &sinktest.Harness{
		Make: func(t testing.TB, _ int) sinks.Sink {
			t.Helper()
			s, err := New(Config{Writer: &end{stream: st}})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Variants: 1,
		Read:     func(t testing.TB) []sinktest.Seen { return []sinktest.Seen{{Records: readLines(t, file.Name())}} },
		Points:   []sinktest.Point{{Name: "write"}},
		Inject: func(f *sinktest.Fault) {
			st.mu.Lock()
			defer st.mu.Unlock()
			st.armed = f
		},
		Refused: func(r *record.Record) { r.Value = []byte{0xff} },
		Takes: func(r *record.Record) bool {
			for _, h := range r.Headers {
				if !utf8.Valid(h.Key) || !utf8.Valid(h.Value) {
					return false
				}
			}
			return utf8.Valid(r.Key) && utf8.Valid(r.Value)
		},
		Unclaimed:   true,
		MemoryBytes: 8 << 20,
	}
}

// readLines reads what came out; the line that a torn write left is nobody's.
func readLines(t testing.TB, path string) (recs []record.Record) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(content) {
		var l struct {
			Topic             string
			Partition         int32
			Offset, Timestamp int64
			Key, Value        *string
			Headers           [][2]*string
		}
		if json.Unmarshal(line, &l) != nil {
			continue
		}
		text := func(s *string) []byte {
			if s == nil {
				return nil
			}
			return append([]byte{}, *s...)
		}
		r := record.Record{Topic: l.Topic, Partition: l.Partition, Offset: l.Offset, Timestamp: l.Timestamp, Key: text(l.Key), Value: text(l.Value)}
		for _, h := range l.Headers {
			r.Headers = append(r.Headers, record.Header{Key: text(h[0]), Value: text(h[1])})
		}
		recs = append(recs, r)
	}
	return recs
}

func TestConformance(t *testing.T) {
	sinktest.Run(t, func(t testing.TB) *sinktest.Harness { return harness(t) })
}

// short writes at most n bytes, then fails, once.
type short struct {
	bytes.Buffer
	n int
}

func (s *short) Write(p []byte) (int, error) {
	if s.n < 0 || s.n >= len(p) {
		return s.Buffer.Write(p)
	}
	n, _ := s.Buffer.Write(p[:s.n])
	s.n = -1
	return n, errors.New("broken pipe")
}

// TestTornLine: whatever a write left of a line, the next attempt's lines are whole.
func TestTornLine(t *testing.T) {
	recs := sinktest.Records(0, 2)
	want := "{\"page\":\"p0\",\"clicks\":0}\n{\"page\":\"p1\",\"clicks\":1}\n"
	for n := range len(want) {
		w := &short{n: n}
		s, err := New(Config{Writer: w, Format: lines.Raw})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Open(t.Context(), sinktest.Identity(1, 1)); err != nil {
			t.Fatal(err)
		}
		attempt := func() error { return deliver(t, s, recs) }
		if err := attempt(); err == nil {
			t.Fatalf("%d bytes: Deliver returned nil", n)
		}
		if err := attempt(); err != nil {
			t.Fatal(err)
		}
		first, rest := want[:n], w.String()[n:]
		if first != "" && !strings.HasSuffix(first, "\n") {
			first += "\n"
			if !strings.HasPrefix(rest, "\n") {
				t.Fatalf("%d bytes: the second attempt goes on in the torn line: %q", n, w.String())
			}
			rest = rest[1:]
		}
		if rest != want {
			t.Fatalf("%d bytes: after %q came %q, want %q", n, first, rest, want)
		}
	}
}

func deliver(t *testing.T, s *Sink, recs []record.Record) error {
	t.Helper()
	return s.Deliver(t.Context(), sinktest.NewBatch(1, 1, recs), sinktest.Accept)
}

// TestLanesShareTheStream: every write of two lanes is of whole lines.
func TestLanesShareTheStream(t *testing.T) {
	var w wholeLines
	for lane := range uint32(2) {
		s, err := New(Config{Writer: &w})
		if err != nil {
			t.Fatal(err)
		}
		id := sinktest.Identity(1, 1)
		id.Lane = lane
		if err := s.Open(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		b := sinktest.NewBatch(1, 1, sinktest.Records(0, 2000))
		b.ID.Lane = lane
		if err := s.Deliver(t.Context(), b, sinktest.Accept); err != nil {
			t.Fatal(err)
		}
	}
	if w.writes < 4 || w.torn > 0 {
		t.Errorf("%d of %d writes did not end with a line", w.torn, w.writes)
	}
}

type wholeLines struct{ writes, torn int }

func (w *wholeLines) Write(p []byte) (int, error) {
	w.writes++
	if !bytes.HasSuffix(p, []byte("\n")) {
		w.torn++
	}
	return len(p), nil
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{}, "writer is missing"},
		{Config{Writer: &short{}, Format: lines.CSV}, `format "csv": want "jsonl" or "raw"`},
		{Config{Writer: &short{}, Encoding: "hex"}, `encoding "hex": want "base64", "utf8" or "json"`},
	} {
		if _, err := New(c.cfg); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}
