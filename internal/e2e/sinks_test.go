package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// HARD-CASES "ways out": a sink that was taken out of the configuration holds
// the log and is said to; it is forgotten only when what it gives up is named.
func TestASinkIsRemoved(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 1)
	g := newGateway(t, b.settings(topic))
	one := g.settings.sinks
	g.settings.sinks += fileSink("old", g.path("old"), "")
	g.configure()
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, 40)
	p.send(t.Context(), 200, mixed)
	o.delivered(30 * time.Second)
	if _, errs, code := g.command("sinks", "remove", "old", "--gives-up-from", g.sink("old").Cursor); code == 0 || !strings.Contains(errs, "configured") {
		t.Errorf("a configured sink is removed: exit code %d, %s", code, errs)
	}
	g.stop()
	g.settings.sinks = one
	g.configure()
	g.up()
	stood := g.sink("old").Cursor
	p.send(t.Context(), 200, mixed)
	o.delivered(30 * time.Second)
	if sink := g.sink("old"); sink.Configured || sink.Cursor != stood || sink.Name == "" {
		t.Errorf("the sink that was taken out is shown as %+v", sink)
	}
	if _, errs, code := g.command("sinks", "remove", "old", "--gives-up-from", "0-00000000000000000001"); code != 1 || !strings.Contains(errs, stood) {
		t.Errorf("removed from a batch that nobody looked at: exit code %d, %s", code, errs)
	}
	if out, errs, code := g.command("sinks", "remove", "old", "--gives-up-from", stood); code != 0 {
		t.Errorf("sinks remove exits %d: %s%s", code, out, errs)
	}
	if sink := g.sink("old"); sink.Name != "" {
		t.Errorf("the removed sink is still there: %+v", sink)
	}
	g.stop()
	o.judge()
}

// HARD-CASES "identity": a wiped data directory, or another gateway, does not
// take old files for its own batches; nor may a sink point elsewhere.
func TestADestinationOfAnotherLog(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 1)
	g := newGateway(t, b.settings(topic))
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, 41)
	p.send(t.Context(), 200, mixed)
	o.delivered(30 * time.Second)
	g.stop()

	whole := g.settings.sinks
	g.settings.sinks = fileSink("files", g.path("elsewhere"), "")
	g.configure()
	g.fails(1, "files", g.path("elsewhere"), g.files())

	g.settings.sinks = whole
	g.configure()
	if err := os.Rename(g.dataDir(), g.dataDir()+".away"); err != nil {
		t.Fatal(err)
	}
	g.fails(1, "files", g.files())
	if err := os.RemoveAll(g.dataDir()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(g.dataDir()+".away", g.dataDir()); err != nil {
		t.Fatal(err)
	}
	g.up()
	p.send(t.Context(), 200, mixed)
	o.delivered(30 * time.Second)
	g.stop()
	o.judge()
}

// HARD-CASES "temporary names": who takes files away below the sink's cursor
// gets none of them again, whatever is killed.
func TestFilesThatWereTakenAwayDoNotComeAgain(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 2)
	g := newGateway(t, b.settings(topic))
	o := newOracle(g, b, topic)
	p := b.producer(topic, 42)
	random := newRandom(t)
	taken := map[string]bool{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := p.stream(ctx, 2000, mixed)
	for range size(5, 20) {
		g.up()
		before := o.shelf.last
		await(t, "more files", 30*time.Second, func() bool { o.shelf.look(t); return o.shelf.last >= before+2 }, g.show)
		g.killSoon(random)
		o.shelf.look(t)
		for name := range taken {
			if _, err := os.Stat(filepath.Join(g.files(), name)); err == nil {
				t.Errorf("%s came again", name)
			}
		}
		cursor, err := os.ReadFile(filepath.Join(g.files(), "cursor-0"))
		if err != nil {
			continue // nothing was done yet
		}
		var next uint64
		if _, err := fmt.Sscanf(strings.TrimSpace(string(cursor)), "0-%d", &next); err != nil {
			t.Fatalf("cursor-0 says %q: %v", cursor, err)
		}
		for seq, book := range o.shelf.books {
			if seq < next && !taken[book.name] {
				taken[book.name] = true
				if err := os.Remove(filepath.Join(g.files(), book.name)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	cancel()
	wait()
	if len(taken) == 0 {
		t.Error("no file was ever below the cursor")
	}
	g.up()
	o.truth.update()
	o.complete(time.Minute)
	o.caughtUp(time.Minute)
	g.stop()
	o.shelf.look(t)
	for name := range taken {
		if _, err := os.Stat(filepath.Join(g.files(), name)); err == nil {
			t.Errorf("%s came again", name)
		}
	}
	same(t, "the files against Kafka", o.sorted(), o.shelf.got)
	t.Logf("%d of %d files were taken away", len(taken), len(o.shelf.books))
}

// Many partitions, most of them idle: the memory stays within its budget, and
// the start is soon.
func TestManyPartitions(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", int32(size(150, 500)))
	s := b.settings(topic)
	s.node = `memory = "128MiB"`
	g := newGateway(t, s)
	p := b.producer(topic, 43)
	p.send(t.Context(), 20_000, mixed)
	p.send(t.Context(), 20, big)
	g.up()
	o := newOracle(g, b, topic)
	o.delivered(time.Minute)
	g.kill9()
	p.send(t.Context(), 5000, mixed)
	g.up()
	o.delivered(time.Minute)
	t.Logf("peak memory %d MiB", g.peakMemory()>>20)
	g.stop()
	o.judge()
}
