package e2e_test

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	_ "modernc.org/sqlite" // reads what the program wrote
)

// Killed at random moments, at start and under load, the gateway loses nothing
// and repeats nothing, and leaves the files that were there as they were.
func TestKillNine(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 3)
	g := newGateway(t, b.settings(topic))
	o := newOracle(g, b, topic)
	p := b.producer(topic, 2)
	o.surviveKills(size(8, 50), func(ctx context.Context) func() { return p.stream(ctx, 2000, mixed) })
	o.acknowledged(p)
}

// The same with snapshots all the time and a log that is deleted as soon as it
// may be, so that starts come from snapshots and segments end and go.
func TestKillNineAmidSnapshotsAndTrims(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 3)
	s := b.settings(topic)
	s.wal = `retention = "1s"
snapshotBytes = "1MiB"
compression = "none"`
	g := newGateway(t, s)
	o := newOracle(g, b, topic)
	o.pruned = true
	p := b.producer(topic, 33)
	o.surviveKills(size(8, 50), func(ctx context.Context) func() { return p.stream(ctx, 600, heavy) })
	o.acknowledged(p)
	g.up()
	await(t, "the log to be trimmed", time.Minute, func() bool { return g.lane().Log.First > 1 }, g.show)
	if out, errs, code := g.command("wal", "verify", "--data-dir", g.dataDir()); code != 0 {
		t.Errorf("wal verify exits %d:\n%s%s", code, out, errs)
	}
	g.stop()
	o.judge()
}

// surviveKills kills the gateway so many times under load, then judges all.
func (o *oracle) surviveKills(rounds int, load func(context.Context) (wait func())) {
	t, g := o.t, o.g
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := load(ctx)
	random := newRandom(t)
	for range rounds {
		underKills(t, g, random)
		o.shelf.look(t) // all that is there now was there before the crash
		o.shelf.unchanged(t)
	}
	cancel()
	wait()
	g.up()
	o.delivered(2 * time.Minute)
	t.Logf("%d records in %d batches, %d starts", o.shelf.got.count(), len(o.shelf.books), g.runs)
	g.stop()
	o.judge()
}

// newRandom gives a source whose seed a failed test shows.
func newRandom(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("random seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, seed))
}

// underKills starts the gateway and kills it: every third time some moment after
// the start, else some moment after it was ready.
func underKills(t *testing.T, g *gateway, random *rand.Rand) {
	t.Helper()
	if random.IntN(3) == 0 {
		g.start()
	} else {
		g.up()
	}
	g.killSoon(random)
}

// killSoon kills the gateway at any moment of the next second and a half, now
// and then while it is stopping.
func (g *gateway) killSoon(random *rand.Rand) {
	g.t.Helper()
	defer g.kill9()
	select { // not to wait for anything: the moment is to be any
	case <-time.After(time.Duration(random.IntN(1500)) * time.Millisecond):
	case <-g.run.done:
		g.t.Fatalf("the gateway ended by itself with exit code %d", g.run.code)
	}
	if random.IntN(4) == 0 {
		_ = g.run.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-time.After(time.Duration(random.IntN(20)) * time.Millisecond):
		case <-g.run.done:
		}
	}
}

func sum(offsets map[place]int64) int64 {
	n := int64(0)
	for _, at := range offsets {
		n += max(0, at)
	}
	return n
}

// The popularity of pages, kept as running totals in SQLite, equals the
// producer's own arithmetic after any number of kills.
func TestKillNineTotals(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("user-behavior", 3)
	s := b.settings(topic)
	db := filepath.Join(t.TempDir(), "pages.db")
	s.sinks = fmt.Sprintf(`
[sinks.pages.mapping]
columns = [
  { name = "page", value = "split(value, '|')[0]" },
  { name = "tenths", value = "8*int(split(value, '|')[1]) + 8*int(split(value, '|')[2]) + 10*int(split(value, '|')[3])" },
  { name = "records", value = "1" },
]
[sinks.pages.sqlite]
path = %q
table = "pages"
mode = "accumulate"
key = ["page"]
update = { tenths = "tenths + excluded.tenths", records = "records + excluded.records" }
`, db)
	g := newGateway(t, s)
	p := b.producer(topic, 3)
	want := map[string]total{}
	behaviour := func(random *rand.Rand) *kgo.Record {
		page := fmt.Sprintf("page-%02d", random.IntN(40))
		clicks, minutes, like := random.IntN(20), random.IntN(60), random.IntN(3)-1
		sum := want[page]
		want[page] = total{sum.Tenths + int64(8*clicks+8*minutes+10*like), sum.Records + 1}
		return &kgo.Record{Value: fmt.Appendf(nil, "%s|%d|%d|%d", page, clicks, minutes, like)}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			p.send(t.Context(), 100, behaviour)
		}
	}()
	random := newRandom(t)
	for range size(4, 20) {
		underKills(t, g, random)
	}
	cancel()
	<-done
	g.up()
	var got map[string]total
	await(t, "the totals", time.Minute, func() bool {
		g.alive()
		got = totals(t, db)
		return count(got) >= count(want)
	}, func() string { return cmp.Diff(want, got) }, g.show)
	g.stop()
	if diff := cmp.Diff(want, totals(t, db)); diff != "" {
		t.Errorf("totals (-producer +SQLite):\n%s", diff)
	}
}

type total struct{ Tenths, Records int64 }

func count(totals map[string]total) int64 {
	n := int64(0)
	for _, t := range totals {
		n += t.Records
	}
	return n
}

// totals reads the table, empty when it is not there yet.
func totals(t *testing.T, path string) map[string]total {
	t.Helper()
	out := map[string]total{}
	if _, err := os.Stat(path); err != nil {
		return out
	}
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(t.Context(), "SELECT page, tenths, records FROM pages")
	if err != nil {
		if strings.Contains(err.Error(), "no such table") {
			return out
		}
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var page string
		var sum total
		if err := rows.Scan(&page, &sum.Tenths, &sum.Records); err != nil {
			t.Fatal(err)
		}
		out[page] = sum
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// FAULTS row 3: after a kill the log is replayed whole, with the same cuts: what
// the API said of each batch it says again, and a sink that is new gets the
// same files, byte for byte.
func TestFullReplayHasTheSameCuts(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 3)
	g := newGateway(t, b.settings(topic))
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, 4)
	for range 20 {
		p.send(t.Context(), size(200, 5000), mixed)
	}
	o.delivered(time.Minute)
	before := o.batches()
	g.kill9()
	g.settings.sinks += fileSink("again", g.path("again"), "")
	g.configure()
	g.up()
	again := newShelf(g.path("again"))
	await(t, "the new sink to have all", time.Minute, func() bool {
		again.look(t)
		return again.got.count() >= o.truth.got.count()
	}, g.show)
	after := o.batches()
	for i := range after {
		after[i].Sinks = nil
	}
	for i := range before {
		before[i].Sinks = nil
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("batches (-before the kill +after):\n%s", diff)
	}
	for seq, book := range o.shelf.books {
		if copied := again.books[seq]; copied == nil || copied.sum != book.sum {
			t.Errorf("%s is another file in the new sink", book.name)
		}
	}
	if len(again.books) != len(o.shelf.books) {
		t.Errorf("the new sink has %d files, want %d", len(again.books), len(o.shelf.books))
	}
	g.stop()
	o.judge()
}

// What was acknowledged to Kafka is durable: with all of it deleted from Kafka
// after a kill, before anything is read again, nothing is missing.
func TestNothingIsMissingWhenKafkaForgetsWhatWasAcknowledged(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 3)
	g := newGateway(t, b.settings(topic))
	o := newOracle(g, b, topic)
	p := b.producer(topic, 5)
	random := newRandom(t)
	for range size(3, 15) {
		ctx, cancel := context.WithCancel(t.Context())
		wait := p.stream(ctx, 3000, mixed)
		g.up()
		before := sum(b.committed(g.settings.group))
		await(t, "more to be committed", 30*time.Second, func() bool { return sum(b.committed(g.settings.group)) > before+100 }, g.show)
		g.killSoon(random)
		cancel()
		wait()
		o.truth.update() // before it goes
		committed := b.committed(g.settings.group)
		b.deleteBelow(committed)
		t.Logf("deleted all below %v", slices.Collect(maps.Values(committed)))
	}
	g.up()
	o.delivered(time.Minute)
	o.acknowledged(p)
	var gaps []any
	g.ask(&gaps, "gaps", "list")
	if len(gaps) > 0 {
		t.Errorf("gaps: %v", gaps)
	}
	g.stop()
	o.judge()
}

// The group's offsets are for people: whatever stands there, the log's count.
func TestTheGroupsOffsetsAreNotBelieved(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 2)
	s := b.settings(topic)
	s.kafka = `sessionTimeout = "6s"`
	g := newGateway(t, s)
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, 6)
	p.send(t.Context(), 1000, mixed)
	o.delivered(time.Minute)
	for name, move := range map[string]int64{"back": -100, "ahead": 100} {
		g.kill9()
		p.send(t.Context(), 500, mixed)
		b.emptyGroup(g.settings.group)
		b.moveCommitted(g.settings.group, move)
		g.up()
		o.delivered(time.Minute)
		t.Logf("moved %s", name)
	}
	g.stop()
	o.judge()
}
