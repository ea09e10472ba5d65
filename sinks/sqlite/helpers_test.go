package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forebay/internal/record"
	"forebay/sinks"
	"forebay/sinks/mapping"
)

// recorder is a settle that keeps what it is told.
type recorder struct {
	calls   int
	refused []record.Refusal
	err     error
}

func (r *recorder) settle(_ context.Context, refused []record.Refusal) error {
	r.calls++
	r.refused = append([]record.Refusal(nil), refused...)
	return r.err
}

func identity(term, next uint64) sinks.Identity {
	return sinks.Identity{Gateway: "gw", LogID: "log-a", Sink: "pages", Node: "n1", Term: term, Next: record.BatchID{Seq: next}, Newest: record.BatchID{Seq: 1 << 40}}
}

func batch(term, seq uint64, recs ...record.Record) record.Batch {
	return record.Batch{
		ID: record.BatchID{Seq: seq}, Gateway: "gw", LogID: "log-a", Term: term, CutAt: 1_700_000_000_000,
		Read: func(ctx context.Context, fn func(*record.Record) error) error {
			for i := range recs {
				lent := recs[i]
				lent.Key, lent.Value = lend(lent.Key), lend(lent.Value)
				if err := fn(&lent); err != nil {
					return err
				}
				clear(lent.Key)
				clear(lent.Value)
			}
			return ctx.Err()
		},
	}
}

// lend copies b, so that it can be taken back.
func lend(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}

// lines makes records of values page|clicks, with offsets from first on.
func lines(first int64, values ...string) []record.Record {
	recs := make([]record.Record, len(values))
	for i, v := range values {
		recs[i] = record.Record{Topic: "t", Partition: 1, Offset: first + int64(i), Timestamp: 1_700_000_000_000 + int64(i), Value: []byte(v)}
	}
	return recs
}

func newSink(t testing.TB, cfg Config) *Sink {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func open(t testing.TB, s *Sink, id sinks.Identity) {
	t.Helper()
	if err := s.Open(t.Context(), id); err != nil {
		t.Fatalf("Open: %v", err)
	}
}

func deliver(t testing.TB, s *Sink, b record.Batch) []record.Refusal {
	t.Helper()
	var r recorder
	if err := s.Deliver(t.Context(), b, r.settle); err != nil {
		t.Fatalf("delivering %v: %v", b.ID, err)
	}
	return r.refused
}

func program(t testing.TB, columns ...string) *mapping.Program {
	t.Helper()
	var c mapping.Config
	for _, col := range columns {
		name, value, _ := strings.Cut(col, "=")
		c.Columns = append(c.Columns, mapping.Column{Name: name, Value: value})
	}
	p, err := mapping.Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// totals is the sink of the demo: running totals by page.
func totals(t testing.TB, path string) Config {
	t.Helper()
	return Config{
		Path: path, Table: "pages", Mode: Accumulate, Key: []string{"page"}, Create: true,
		Update: map[string]string{"score": "score + excluded.score", "n": "n + excluded.n"},
		Mapper: program(t, `page=split(value, "|")[0]`, `score=int(split(value, "|")[1])`, `n=1`),
	}
}

// dbPath names a database in memory-backed storage where there is any: the syncs
// of hundreds of small transactions are not what these tests are about.
func dbPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "forebay-sqlite-") //nolint:usetesting // t.TempDir does not lie in memory
	if err != nil {
		return filepath.Join(t.TempDir(), "x.db")
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "x.db")
}

// query reads the database as a consumer would: a row a line, columns by |, NULL as <nil>.
func query(t testing.TB, path, q string) string {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(t.Context(), q)
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	defer func() { _ = rows.Close() }()
	cols, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for rows.Next() {
		vals, ptrs := make([]any, len(cols)), make([]any, len(cols))
		for i := range vals {
			ptrs[i] = &vals[i]
		}
		if err := rows.Scan(ptrs...); err != nil {
			t.Fatal(err)
		}
		words := make([]string, len(vals))
		for i, v := range vals {
			if b, ok := v.([]byte); ok {
				v = "x'" + fmt.Sprintf("%x", b) + "'"
			}
			words[i] = fmt.Sprint(v)
		}
		out = append(out, strings.Join(words, "|"))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

// run executes statements on a database of the test's own.
func run(t testing.TB, path string, stmts ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, s := range stmts {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func expect(t testing.TB, path, q, want string) {
	t.Helper()
	if got := query(t, path, q); got != want {
		t.Errorf("%s\ngot:\n%s\nwant:\n%s", q, got, want)
	}
}
