package sqlite

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"forebay/internal/record"
	"forebay/sinks"
)

// DeposedLeader, as far as one write lock allows: the new leader waits while the old one is in the middle of
// a delivery, with a temporary error, and then either finds the batch in the ledger or applies it; never both.
func TestDeposedLeaderInTheMiddleOfADelivery(t *testing.T) {
	for _, lets := range []bool{true, false} {
		path := dbPath(t)
		older := newSink(t, totals(t, path))
		open(t, older, identity(4, 1))
		one := lines(0, "a|1", "b|2")
		blocked := errors.New("stopped")
		err := older.Deliver(t.Context(), batch(4, 1, one...), func(context.Context, []record.Refusal) error {
			ctx, cancel := context.WithTimeout(t.Context(), 3*lockSlice)
			defer cancel()
			if err := newSink(t, totals(t, path)).Open(ctx, identity(5, 1)); err == nil || sinks.IsPermanent(err) {
				t.Errorf("opening while another delivers: %v, want a temporary error", err)
			}
			if lets {
				return nil
			}
			return blocked
		})
		if lets && err != nil || !lets && !errors.Is(err, blocked) {
			t.Fatalf("the old leader: %v", err)
		}
		newer := newSink(t, totals(t, path))
		open(t, newer, identity(5, 1))
		deliver(t, newer, batch(5, 1, one...))
		for _, seq := range []uint64{1, 2} {
			if err := older.Deliver(t.Context(), batch(4, seq, one...), new(recorder).settle); !errors.Is(err, sinks.ErrFenced) || !sinks.IsPermanent(err) {
				t.Errorf("the old leader afterwards: %v, want fenced", err)
			}
		}
		expect(t, path, `SELECT page, score FROM pages ORDER BY 1`, "a|1\nb|2")
	}
}

func TestErrorsAreToldApart(t *testing.T) {
	one := lines(0, "a|1")
	for _, tc := range []struct {
		name      string
		prepare   func(t *testing.T, path string)
		change    func(*Config)
		permanent bool
		want      string
	}{
		{"no directory", func(*testing.T, string) {}, func(c *Config) { c.Path += "/no/such.db" }, false, "the database cannot be opened: the directory must be there"},
		{"no database and create = false", func(*testing.T, string) {}, func(c *Config) { c.Create = false }, false, "there is no database at "},
		{
			"no table and create = false", func(t *testing.T, p string) { run(t, p, `CREATE TABLE x (y)`) }, func(c *Config) { c.Create = false }, true,
			`there is no such table, and create = false: make it, as in: CREATE TABLE "pages" ("page" TEXT NOT NULL, "score" INTEGER NOT NULL, "n" INTEGER NOT NULL, PRIMARY KEY ("page")) STRICT`,
		},
		{
			"other columns", func(t *testing.T, p string) { run(t, p, `CREATE TABLE pages (page PRIMARY KEY)`) }, nil, true,
			"the table does not fit the sink, whose columns are page, score, n: table pages has no column named score",
		},
		{
			"no unique key", func(t *testing.T, p string) { run(t, p, `CREATE TABLE pages (page, score, n)`) }, nil, true,
			"the table does not fit the sink, whose columns are page, score, n: ON CONFLICT clause does not match any PRIMARY KEY or UNIQUE constraint",
		},
		{"not a database", func(t *testing.T, p string) {
			if err := os.WriteFile(p, []byte(strings.Repeat("not a database. ", 500)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, nil, true, "the file is not a SQLite database"},
		{"newer ledger", func(t *testing.T, p string) {
			open(t, newSink(t, totals(t, p)), identity(1, 1))
			run(t, p, `UPDATE forebay_sinks SET format = 9`)
		}, nil, true, "the ledger has format 9, which this version does not know"},
		{"table gone", func(t *testing.T, p string) {
			open(t, newSink(t, totals(t, p)), identity(1, 1))
			run(t, p, `DROP TABLE pages`)
		}, nil, true, "the table is gone"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := totals(t, dbPath(t))
			tc.prepare(t, cfg.Path)
			if tc.change != nil {
				tc.change(&cfg)
			}
			s := newSink(t, cfg)
			err := s.Open(t.Context(), identity(1, 1))
			if err == nil || sinks.IsPermanent(err) != tc.permanent || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v (permanent %v), want %q (%v)", err, sinks.IsPermanent(err), tc.want, tc.permanent)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("locked", func(t *testing.T) {
		path := dbPath(t)
		s, other := newSink(t, totals(t, path)), newSink(t, totals(t, path))
		open(t, s, identity(1, 1))
		open(t, other, identity(1, 1))
		if err := other.begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*lockSlice)
		defer cancel()
		if err := s.Deliver(ctx, batch(1, 1, one...), new(recorder).settle); err == nil || sinks.IsPermanent(err) {
			t.Errorf("locked: %v, want a temporary error", err)
		}
		if err := other.session.exec("ROLLBACK"); err != nil {
			t.Fatal(err)
		}
		deliver(t, s, batch(1, 1, one...))
		expect(t, path, `SELECT score FROM pages`, "1")
	})
}

func TestFileReplacedUnderTheSinkIsFound(t *testing.T) {
	for name, replace := range map[string]func(t *testing.T, path string){
		"removed": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
		"replaced": func(t *testing.T, path string) {
			for _, suffix := range []string{"", "-wal", "-shm"} {
				if err := os.Rename(path+suffix, path+".old"+suffix); err != nil {
					t.Fatal(err)
				}
			}
			run(t, path, `CREATE TABLE pages (page PRIMARY KEY, score, n)`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := dbPath(t)
			s := newSink(t, totals(t, path))
			open(t, s, identity(1, 1))
			deliver(t, s, batch(1, 1, lines(0, "a|1")...))
			replace(t, path)
			for range 2 { // also with the connection made anew
				var r recorder
				if err := s.Deliver(t.Context(), batch(1, 2, lines(1, "a|1")...), r.settle); err == nil || !sinks.IsPermanent(err) || r.calls != 0 {
					t.Errorf("delivering: %v, want a permanent error", err)
				}
			}
		})
	}
}

func TestTableChangedUnderTheSinkRefusesNoRecord(t *testing.T) {
	path := dbPath(t)
	s := newSink(t, totals(t, path))
	open(t, s, identity(1, 1))
	deliver(t, s, batch(1, 1, lines(0, "a|1")...))
	run(t, path, `ALTER TABLE pages RENAME COLUMN score TO points`)
	var r recorder
	err := s.Deliver(t.Context(), batch(1, 2, lines(1, "a|1")...), r.settle)
	if err == nil || !sinks.IsPermanent(err) || r.calls != 0 || !strings.Contains(err.Error(), "score") {
		t.Fatalf("error %v after %d calls of settle, want a permanent error before any", err, r.calls)
	}
	run(t, path, `ALTER TABLE pages RENAME COLUMN points TO score`)
	deliver(t, s, batch(1, 2, lines(1, "a|1")...))
	expect(t, path, `SELECT score FROM pages`, "2")
}

func TestCorruptDatabaseIsPermanent(t *testing.T) {
	path := dbPath(t)
	s := newSink(t, totals(t, path))
	open(t, s, identity(1, 1))
	var recs []record.Record
	for i := range 2000 {
		recs = append(recs, lines(int64(i), strings.Repeat("x", 40)+string(rune('a'+i%26))+strings.Repeat("y", i%50)+"|1")...)
	}
	deliver(t, s, batch(1, 1, recs...))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 4096 * 2; i < len(b); i++ { // all pages after the schema and the first table
		b[i] ^= 0x5a
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	err = s.Open(t.Context(), identity(2, 1))
	if err == nil {
		err = s.Deliver(t.Context(), batch(2, 2, recs...), new(recorder).settle)
	}
	if err == nil || !sinks.IsPermanent(err) || !strings.Contains(err.Error(), "the database is corrupt") {
		t.Fatalf("error %v, want a permanent one that says corrupt", err)
	}
}

// A disk that is full or a file that may not be written is cured by others, and the
// same batch is applied once they have.
func TestFullAndReadOnlyAreTemporary(t *testing.T) {
	for _, tc := range []struct{ pragma, want string }{
		{"max_page_count = 1", "the disk is full, and the batch is tried again until there is room"},
		{"query_only = 1", "the database is read-only: the gateway's user must be able to write the file and its directory"},
	} {
		path := dbPath(t)
		s := newSink(t, totals(t, path))
		open(t, s, identity(1, 1))
		if err := s.session.exec("PRAGMA " + tc.pragma); err != nil {
			t.Fatal(err)
		}
		var recs []record.Record
		for i := range 3000 {
			recs = append(recs, lines(int64(i), strings.Repeat("p", i%90)+"|1")...)
		}
		var r recorder
		err := s.Deliver(t.Context(), batch(1, 1, recs...), r.settle)
		if err == nil || sinks.IsPermanent(err) || !strings.Contains(err.Error(), tc.want) || len(r.refused) != 0 {
			t.Errorf("%s: error %v, refused %v; want %q", tc.pragma, err, r.refused, tc.want)
		}
		expect(t, path, `SELECT count(*) FROM pages`, "0")
		deliver(t, s, batch(1, 1, recs...))
		expect(t, path, `SELECT sum(n), count(*) FROM pages`, "3000|90")
	}
}

// A BEGIN that outlived its context gets the write lock when nobody waits for it any more.
func TestCallLeftBehindLetsGoOfTheLock(t *testing.T) {
	path := dbPath(t)
	s, other := newSink(t, totals(t, path)), newSink(t, totals(t, path))
	open(t, s, identity(1, 1))
	open(t, other, identity(1, 1))
	release := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	s.point = func(context.Context, string) error {
		cancel()
		<-release
		return nil
	}
	if err := s.begin(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("begin: %v, want that of its context", err)
	}
	close(release)
	if err := s.stubborn.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := other.session.exec("BEGIN IMMEDIATE"); err != nil {
		t.Errorf("the lock is still held: %v", err)
	}
}

// What the table says was pruned counts, whatever this process was told.
func TestPrunedByAnotherIsAnError(t *testing.T) {
	path := dbPath(t)
	s := newSink(t, totals(t, path))
	open(t, s, identity(1, 1))
	run(t, path, `UPDATE forebay_lanes SET pruned_below = 9`)
	var r recorder
	if err := s.Deliver(t.Context(), batch(1, 2, lines(0, "a|1")...), r.settle); err == nil || !sinks.IsPermanent(err) || r.calls != 0 {
		t.Errorf("batch 2: %v, want a permanent error", err)
	}
	expect(t, path, `SELECT count(*) FROM pages`, "0")
}
