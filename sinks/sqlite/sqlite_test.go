package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/record"
	"forebay/sinks"
)

func TestInsertsTheRecordItself(t *testing.T) {
	path := dbPath(t)
	s := newSink(t, Config{Path: path, Table: "raw", Create: true})
	open(t, s, identity(1, 1))
	recs := []record.Record{
		{Topic: "a", Partition: 2, Offset: 7, Timestamp: -5, Key: []byte{0xff, 0}, Value: []byte{}, Headers: []record.Header{{Key: []byte("k\""), Value: []byte("v\n")}, {Key: []byte("n")}}},
		{Topic: "b", Partition: 0, Offset: 8, Timestamp: 1 << 60},
	}
	if refused := deliver(t, s, batch(1, 1, recs...)); refused != nil {
		t.Fatalf("refused %v", refused)
	}
	expect(t, path, `SELECT topic, partition, offset, timestamp, typeof(key), hex(key), typeof(value), length(value), headers FROM raw ORDER BY offset`,
		"a|2|7|-5|blob|FF00|blob|0|[[\"k\\\"\",\"v\\u000a\"],[\"n\",null]]\nb|0|8|1152921504606846976|null||null|<nil>|[]")
	expect(t, path, `SELECT json_extract(headers, '$[0][1]') = char(10) FROM raw WHERE 0`, "")
}

func TestModes(t *testing.T) {
	for _, tc := range []struct {
		mode   Mode
		key    []string
		update map[string]string
		want   string
	}{
		{Insert, nil, nil, "a|1|x\na|2|y\nb|5|z"},
		{Upsert, []string{"page"}, nil, "a|2|y\nb|5|z"},
		{Upsert, []string{"page", "score", "tag"}, nil, "a|1|x\na|2|y\nb|5|z"},
		{Accumulate, []string{"page"}, map[string]string{"score": "score + excluded.score"}, "a|3|x\nb|5|z"},
	} {
		t.Run(fmt.Sprint(tc.mode, len(tc.key)), func(t *testing.T) {
			path := dbPath(t)
			s := newSink(t, Config{
				Path: path, Table: "odd \"name; --", Mode: tc.mode, Key: tc.key, Update: tc.update, Create: true,
				Types:  map[string]string{"tag": "text"},
				Mapper: program(t, `page=split(value, "|")[0]`, `score=int(split(value, "|")[1])`, `tag=value[4:]`),
			})
			if err := Check(t.Context(), s.cfg); err != nil {
				t.Fatal(err)
			}
			open(t, s, identity(1, 1))
			deliver(t, s, batch(1, 1, lines(0, "a|1|x", "b|5|z", "a|2|y")...))
			expect(t, path, `SELECT * FROM "odd ""name; --" ORDER BY 1, 2`, tc.want)
		})
	}
}

func TestBatchIsAppliedOnce(t *testing.T) {
	path := dbPath(t)
	s := newSink(t, totals(t, path))
	open(t, s, identity(1, 1))
	b := batch(1, 1, lines(0, "a|1", "b|2", "a|3")...)
	deliver(t, s, b)
	deliver(t, s, b)
	var again recorder
	// The same batch, its mapping changed meanwhile, from a later term and a new process.
	other := newSink(t, totals(t, path))
	open(t, other, identity(2, 1))
	if err := other.Deliver(t.Context(), batch(2, 1, lines(0, "c|9")...), again.settle); err != nil || again.calls != 0 {
		t.Fatalf("again: %v, settled %d times; want nothing", err, again.calls)
	}
	expect(t, path, `SELECT * FROM pages ORDER BY 1`, "a|4|2\nb|2|1")
	expect(t, path, `SELECT gateway, log_id, sink, target, lane, seq, term, rows FROM forebay_ledger`, "gw|log-a|pages|pages|0|1|1|3")
}

func TestEmptyBatchLeavesNoTrace(t *testing.T) {
	path := dbPath(t)
	s := newSink(t, totals(t, path))
	open(t, s, identity(1, 1))
	var r recorder
	if err := s.Deliver(t.Context(), batch(1, 1), r.settle); err != nil || r.calls != 1 || r.refused != nil {
		t.Fatalf("%v, settled %d times with %v; want once with nothing", err, r.calls, r.refused)
	}
	expect(t, path, `SELECT (SELECT count(*) FROM pages) + (SELECT count(*) FROM forebay_ledger)`, "0")
	deliver(t, s, batch(1, 2, lines(0, "a|1")...))
	expect(t, path, `SELECT score FROM pages`, "1")
}

func TestDeposedLeaderCannotDeliver(t *testing.T) {
	path := dbPath(t)
	cfg := totals(t, path)
	old := newSink(t, cfg)
	open(t, old, identity(3, 1))
	young := newSink(t, totals(t, path))
	open(t, young, identity(4, 1))
	var r recorder
	err := old.Deliver(t.Context(), batch(3, 1, lines(0, "a|1")...), r.settle)
	if !errors.Is(err, sinks.ErrFenced) || !sinks.IsPermanent(err) || r.calls != 0 {
		t.Fatalf("old leader: %v, settled %d times; want fenced", err, r.calls)
	}
	if err := newSink(t, totals(t, path)).Open(t.Context(), identity(3, 1)); !errors.Is(err, sinks.ErrFenced) {
		t.Fatalf("opening with a lower term: %v, want fenced", err)
	}
	deliver(t, young, batch(4, 1, lines(0, "a|1")...))
	expect(t, path, `SELECT score FROM pages`, "1")
}

// HARD-CASES 27: below what was pruned nothing is ever applied.
func TestPrunedBatchThatComesAgainIsAnError(t *testing.T) {
	path := dbPath(t)
	s := newSink(t, totals(t, path))
	open(t, s, identity(1, 1))
	for seq := uint64(1); seq <= 5; seq++ {
		deliver(t, s, batch(1, seq, lines(int64(seq), "a|1")...))
		if err := s.Advanced(t.Context(), record.BatchID{Seq: seq + 1}, record.BatchID{Seq: max(1, seq-1)}); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, path, `SELECT group_concat(seq) FROM forebay_ledger`, "3,4,5")
	expect(t, path, `SELECT next, pruned_below FROM forebay_lanes`, "5|3")
	check := func(s *Sink, term uint64) {
		t.Helper()
		var r recorder
		err := s.Deliver(t.Context(), batch(term, 2, lines(2, "a|1")...), r.settle)
		if err == nil || !sinks.IsPermanent(err) || !strings.Contains(err.Error(), "pruned below 0-0000000000000000000") || r.calls != 0 {
			t.Fatalf("batch 2: %v; want a permanent error", err)
		}
	}
	check(s, 1)
	next := newSink(t, totals(t, path))
	open(t, next, identity(2, 6))
	check(next, 2)
	if refused := deliver(t, next, batch(2, 4, lines(4, "a|1")...)); refused != nil {
		t.Fatal(refused)
	}
	expect(t, path, `SELECT score FROM pages`, "5")
}

// HARD-CASES 23: a destination of another gateway, log, sink or node is refused, with the way out.
func TestForeignDestinationIsRefused(t *testing.T) {
	path := dbPath(t)
	first := newSink(t, totals(t, path))
	open(t, first, identity(1, 1))
	deliver(t, first, batch(1, 1, lines(0, "a|1")...))
	for _, tc := range []struct {
		name   string
		change func(*sinks.Identity)
		want   string
	}{
		{"gateway", func(id *sinks.Identity) { id.Gateway = "gw2" }, `gateway "gw", and this is gateway "gw2"`},
		{"log", func(id *sinks.Identity) { id.LogID = "log-b" }, `log log-a, and this is log log-b (either another gateway named`},
		{"sink", func(id *sinks.Identity) { id.Sink = "other" }, `sink "pages", and this is sink "other"`},
		{"node", func(id *sinks.Identity) { id.Node = "n2" }, `node "n1", and this is node "n2" (set shared = true`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id := identity(9, 2)
			tc.change(&id)
			cfg := totals(t, path)
			cfg.Table = "PAGES" // one table to SQLite
			err := newSink(t, cfg).Open(t.Context(), id)
			if !errors.Is(err, sinks.ErrForeign) || !sinks.IsPermanent(err) || !strings.Contains(err.Error(), tc.want) ||
				!strings.Contains(err.Error(), "DELETE FROM forebay_sinks WHERE target = 'PAGES'") {
				t.Errorf("error %v, want %q and the way out", err, tc.want)
			}
		})
	}
	t.Run("the way out", func(t *testing.T) {
		run(t, path, `DELETE FROM forebay_sinks WHERE target = 'PAGES'`)
		id := identity(1, 1)
		id.LogID = "log-b"
		s := newSink(t, totals(t, path))
		open(t, s, id)
		b := batch(1, 1, lines(0, "a|1")...)
		b.LogID = "log-b"
		deliver(t, s, b)
		expect(t, path, `SELECT score FROM pages`, "2")
	})
	t.Run("shared", func(t *testing.T) {
		cfg := totals(t, dbPath(t))
		cfg.Shared = true
		open(t, newSink(t, cfg), identity(1, 1))
		id := identity(2, 1)
		id.Node = "n2"
		open(t, newSink(t, cfg), id)
	})
}

func TestDestinationAheadOfTheLogIsRefused(t *testing.T) {
	path := dbPath(t)
	s := newSink(t, totals(t, path))
	open(t, s, identity(1, 1))
	for seq := uint64(1); seq <= 3; seq++ {
		if err := s.Advanced(t.Context(), record.BatchID{Seq: seq}, record.BatchID{Seq: 1}); err != nil {
			t.Fatal(err)
		}
		deliver(t, s, batch(1, seq, lines(int64(seq), "a|1")...))
	}
	if err := newSink(t, totals(t, path)).Open(t.Context(), identity(2, 2)); !errors.Is(err, sinks.ErrAhead) || !sinks.IsPermanent(err) {
		t.Errorf("cursor 2, ledger 3: %v, want ErrAhead", err)
	}
	open(t, newSink(t, totals(t, path)), identity(2, 3)) // its done was lost
}

func TestRefusedRecordsAreSettledBeforeTheCommit(t *testing.T) {
	path := dbPath(t)
	run(t, path, `CREATE TABLE pages (page TEXT PRIMARY KEY ON CONFLICT ROLLBACK, score INTEGER CHECK (score < 100) ) STRICT`)
	s := newSink(t, Config{
		Path: path, Table: "pages",
		Types:  map[string]string{"page": "TEXT"},
		Mapper: program(t, `page=split(value, "|")[0]`, `score=json(split(value, "|")[1])`),
	})
	open(t, s, identity(1, 1))
	b := batch(1, 1, lines(0, "a|1", "b|x", "a|2", "c|300", `d|"text"`, "e|5", "\xff|1", "f|")...)
	var r recorder
	boom := errors.New("policy block")
	r.err = boom
	if err := s.Deliver(t.Context(), b, r.settle); !errors.Is(err, boom) {
		t.Fatalf("settle failed: %v, want its error", err)
	}
	expect(t, path, `SELECT count(*) FROM pages`, "0")
	var got []string
	for _, f := range r.refused {
		got = append(got, fmt.Sprintf("%s/%d/%d %s", f.Topic, f.Partition, f.Offset, f.Reason))
	}
	want := []string{
		`t/1/1 mapping column "score": json(…): no value at byte 0 (at character 1)`,
		`t/1/2 UNIQUE constraint failed: pages.page`,
		`t/1/3 CHECK constraint failed: score < 100`,
		`t/1/4 cannot store TEXT value in INTEGER column pages.score`,
		`t/1/6 column "page" takes text and this is not valid UTF-8: declare it BLOB in types`,
		`t/1/7 mapping column "score": json(…): an end too early at byte 0 (at character 1)`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	r.err = nil
	if err := s.Deliver(t.Context(), b, r.settle); err != nil {
		t.Fatal(err)
	}
	expect(t, path, `SELECT * FROM pages ORDER BY 1`, "a|1\ne|5")
}

func TestTriggerThatRollsBackIsFound(t *testing.T) {
	path := dbPath(t)
	run(t, path, `CREATE TABLE pages (page, score)`,
		`CREATE TRIGGER no BEFORE INSERT ON pages WHEN NEW.score = 2 BEGIN SELECT RAISE(ROLLBACK, 'no twos'); END`)
	s := newSink(t, Config{Path: path, Table: "pages", Mapper: program(t, `page=split(value, "|")[0]`, `score=int(split(value, "|")[1])`)})
	open(t, s, identity(1, 1))
	var r recorder
	err := s.Deliver(t.Context(), batch(1, 1, lines(0, "a|1", "b|2", "c|3")...), r.settle)
	if err == nil || !sinks.IsPermanent(err) || !strings.Contains(err.Error(), "RAISE(ABORT)") {
		t.Fatalf("error %v", err)
	}
	expect(t, path, `SELECT count(*) FROM pages`, "0")
}

// Totals of whole numbers come out the same however the records are cut into batches.
func TestTotalsDoNotDependOnTheCuts(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	recs := make([]record.Record, 2000)
	want := map[string]int{}
	for i := range recs {
		page, score := fmt.Sprintf("p%d", rng.IntN(9)), rng.IntN(2001)-1000
		want[page] += score
		recs[i] = lines(int64(i), fmt.Sprintf("%s|%d", page, score))[0]
	}
	var first string
	for round := range 4 {
		path := dbPath(t)
		s := newSink(t, totals(t, path))
		open(t, s, identity(1, 1))
		rest := recs
		if round > 1 {
			rest = append([]record.Record(nil), recs...)
			rng.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
		}
		for seq := uint64(1); len(rest) > 0; seq++ {
			n := min(len(rest), 1+rng.IntN(1+700*round))
			b := batch(1, seq, rest[:n]...)
			deliver(t, s, b)
			if rng.IntN(3) == 0 {
				deliver(t, s, b)
			}
			rest = rest[n:]
		}
		got := query(t, path, `SELECT * FROM pages ORDER BY 1`)
		if first == "" {
			first = got
			for _, line := range strings.Split(got, "\n") {
				f := strings.Split(line, "|")
				if fmt.Sprint(want[f[0]]) != f[1] {
					t.Errorf("total of %s: %s, want %d", f[0], f[1], want[f[0]])
				}
			}
		}
		if got != first {
			t.Errorf("round %d:\n%s\nfirst:\n%s", round, got, first)
		}
	}
}

func TestTotalsThatOverflowAreRefused(t *testing.T) {
	path := dbPath(t)
	s := newSink(t, totals(t, path))
	open(t, s, identity(1, 1))
	refused := deliver(t, s, batch(1, 1, lines(0, "a|9223372036854775807", "a|1", "a|-1")...))
	if len(refused) != 1 || refused[0].Offset != 1 {
		t.Fatalf("refused %v, want offset 1", refused)
	}
	expect(t, path, `SELECT score, typeof(score) FROM pages`, "9223372036854775806|integer")
}

func TestLanesShareATable(t *testing.T) {
	path := dbPath(t)
	for lane := range uint32(3) {
		s := newSink(t, totals(t, path))
		id := identity(1, 1)
		id.Lane, id.Next.Lane = lane, lane
		open(t, s, id)
		b := batch(1, 1, lines(0, "a|1")...)
		b.ID.Lane = lane
		deliver(t, s, b)
	}
	expect(t, path, `SELECT score FROM pages`, "3")
}

func TestChunksKeepOrderAndBytes(t *testing.T) {
	path := dbPath(t)
	s := newSink(t, Config{Path: path, Table: "raw", Create: true})
	open(t, s, identity(1, 1))
	recs := make([]record.Record, 3*chunkRows+1)
	for i := range recs {
		recs[i] = lines(int64(i), strings.Repeat("x", i%700))[0]
		if i%100 == 99 {
			recs[i].Headers = []record.Header{{Key: []byte{0xff}}}
		}
	}
	recs[700].Value = make([]byte, 3*chunkBytes)
	refused := deliver(t, s, batch(1, 1, recs...))
	if len(refused) != len(recs)/100 {
		t.Errorf("%d refused, want %d", len(refused), len(recs)/100)
	}
	for i, f := range refused {
		if f.Offset != int64(i*100+99) {
			t.Errorf("refusal %d is offset %d", i, f.Offset)
		}
	}
	expect(t, path, fmt.Sprintf(`SELECT count(*), min(offset = rowid - 1 + (rowid - 1) / 99), sum(length(value) = CASE offset WHEN 700 THEN %d ELSE offset %% 700 END) FROM raw`, 3*chunkBytes),
		fmt.Sprintf("%d|1|%d", len(recs)-len(refused), len(recs)-len(refused)))
	expect(t, path, `SELECT count(*) FROM raw WHERE offset <> 700 AND value <> CAST(replace(hex(zeroblob(length(value))), '00', 'x') AS BLOB)`, "0")
}

func TestBadConfiguration(t *testing.T) {
	cols := program(t, `page=value`, `score=offset`)
	base := func(change func(*Config)) Config {
		c := Config{Path: "/tmp/x.db", Table: "t", Create: true, Mapper: cols}
		change(&c)
		return c
	}
	for _, tc := range []struct {
		name string
		c    Config
		want string
	}{
		{"nothing", Config{}, "path: is required\ntable: is required"},
		{"memory", base(func(c *Config) { c.Path = ":memory:" }), `path: ":memory:": want the path of a file`},
		{"own table", base(func(c *Config) { c.Table = "Forebay_ledger" }), `names that begin with forebay_`},
		{"mode", base(func(c *Config) { c.Mode = "append" }), `mode: "append": want "insert", "upsert" or "accumulate"`},
		{"key missing", base(func(c *Config) { c.Mode = Upsert }), `key: is required with mode = "upsert"`},
		{"key unknown", base(func(c *Config) { c.Mode, c.Key = Upsert, []string{"pgae"} }), `key[0]: "pgae" is no column of the mapping: there are page, score`},
		{"key with insert", base(func(c *Config) { c.Key = []string{"page"} }), `key: has no meaning`},
		{"update missing", base(func(c *Config) { c.Mode, c.Key = Accumulate, []string{"page"} }), `update: and mode = "accumulate" go together`},
		{"type", base(func(c *Config) { c.Types = map[string]string{"page": "VARCHAR"} }), `types.page: "VARCHAR": want INTEGER, REAL, TEXT, BLOB or ANY`},
		{"update of key", base(func(c *Config) {
			c.Mode, c.Key, c.Update = Accumulate, []string{"page"}, map[string]string{"page": "1"}
		}), `update.page: changes "page", which is part of the key`},
		{"second statement", base(func(c *Config) {
			c.Mode, c.Key, c.Update = Accumulate, []string{"page"}, map[string]string{"score": "1); DROP TABLE t; --"}
		}), `a ) too many`},
		{"parameter", base(func(c *Config) {
			c.Mode, c.Key, c.Update = Accumulate, []string{"page"}, map[string]string{"score": "score + ?1"}
		}), `parameters have no value here`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := New(tc.c)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func TestCheckFindsABadExpressionWithoutTheDatabase(t *testing.T) {
	for _, tc := range []struct {
		expr   string
		create bool
		want   string
	}{
		{"score + excluded.score", true, ""},
		{"max(score, excluded.score, '); DROP')", true, ""},
		{"score + excluded.scroe", true, `update.score: "score + excluded.scroe": no such column: excluded.scroe`},
		{"score +", true, `syntax error`},
		{"nofn(score)", true, `no such function: nofn`},
		{"score + weight", false, ""},
		{"score + + ,", false, `syntax error`},
	} {
		t.Run(tc.expr, func(t *testing.T) {
			cfg := totals(t, filepath.Join(t.TempDir(), "no", "such.db"))
			cfg.Update = map[string]string{"score": tc.expr}
			cfg.Create = tc.create
			err := Check(t.Context(), cfg)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
			if _, err := os.Stat(cfg.Path); err == nil {
				t.Error("the destination was touched")
			}
		})
	}
}

// Everything that is wrong comes at once: settings, expressions that SQLite does not
// compile, and the key that they would have gone with.
func TestCheckFindsEverything(t *testing.T) {
	err := Check(t.Context(), Config{
		Table: "sqlite_t", Mode: Accumulate, Key: []string{"pgae"}, Create: true,
		Update: map[string]string{"score": "score + excluded.scroe", "tag": "nofn(tag)", "sum": "1;"},
		Types:  map[string]string{"page": "VARCHAR"},
		Mapper: program(t, `page=split(value, "|")[0]`, `score=1`, `tag=2`),
	})
	want := `path: is required
table: "sqlite_t": names that begin with forebay_ and sqlite_ are taken
key[0]: "pgae" is no column of the mapping: there are page, score, tag
types.page: "VARCHAR": want INTEGER, REAL, TEXT, BLOB or ANY
update.sum: "sum" is no column of the mapping: there are page, score, tag
update.sum: "1;": want one expression
update.score: "score + excluded.scroe": no such column: excluded.scroe
update.tag: "nofn(tag)": no such function: nofn`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	err = Check(t.Context(), Config{
		Path: "x", Table: "t", Mode: Accumulate, Key: []string{"pgae"}, Create: true,
		Update: map[string]string{"score": "score + excluded.scroe", "tag": "nofn(tag)"},
		Mapper: program(t, `page=split(value, "|")[0]`, `score=1`, `tag=2`),
	})
	want = `key[0]: "pgae" is no column of the mapping: there are page, score, tag
update.score: "score + excluded.scroe": no such column: excluded.scroe
update.tag: "nofn(tag)": no such function: nofn`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

func TestDestinationIsTheRealPath(t *testing.T) {
	dir := t.TempDir()
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	want := "sqlite:" + filepath.Join(real, "x.db") + "#pages"
	for _, path := range []string{filepath.Join(dir, "x.db"), filepath.Join(dir, "link", "x.db")} {
		for _, table := range []string{"pages", "Pages"} {
			s := newSink(t, Config{Path: path, Table: table})
			if got := s.Destination(); got != want {
				t.Errorf("%s: %s, want %s", path, got, want)
			}
		}
	}
	s := newSink(t, Config{Path: filepath.Join(dir, "x.db"), Table: "pages", Create: true})
	open(t, s, identity(1, 1))
	if got := s.Destination(); got != want {
		t.Errorf("once it is there: %s, want %s", got, want)
	}
}

func TestNotOpen(t *testing.T) {
	s := newSink(t, totals(t, dbPath(t)))
	if err := s.Deliver(context.Background(), batch(1, 1), nil); !errors.Is(err, sinks.ErrNotOpen) {
		t.Error(err)
	}
	if err := s.Advanced(context.Background(), record.BatchID{Seq: 1}, record.BatchID{Seq: 1}); !errors.Is(err, sinks.ErrNotOpen) {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	open(t, s, identity(1, 1))
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	open(t, s, identity(2, 1))
}

// Several lanes open and deliver at once into a file that is not there yet; each waits for the others.
func TestLanesAtOnce(t *testing.T) {
	path := filepath.Join(filepath.Dir(dbPath(t)), "a b?c%20d#e'f.db")
	const lanes, batches = 6, 10
	errs := make(chan error, lanes)
	for lane := range uint32(lanes) {
		s := newSink(t, totals(t, path))
		go func() {
			id := identity(1, 1)
			id.Lane, id.Next.Lane = lane, lane
			err := s.Open(context.Background(), id)
			for seq := uint64(1); err == nil && seq <= batches; seq++ {
				b := batch(1, seq, lines(0, "a|1", "b|2")...)
				b.ID.Lane = lane
				err = s.Deliver(context.Background(), b, new(recorder).settle)
			}
			errs <- errors.Join(err, s.Close())
		}()
	}
	for range lanes {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(filepath.Dir(path), "plain.db")
	if err := os.Rename(path, link); err != nil {
		t.Fatal(err)
	}
	expect(t, link, `SELECT page, score FROM pages ORDER BY 1`, fmt.Sprintf("a|%d\nb|%d", lanes*batches, 2*lanes*batches))
}
