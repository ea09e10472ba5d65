package e2e_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// lastSegment is the file that the log was last written to.
func (g *gateway) lastSegment() string {
	g.t.Helper()
	segments, err := filepath.Glob(filepath.Join(g.dataDir(), "lanes/0/log/*"))
	if err != nil || len(segments) == 0 {
		g.t.Fatalf("no segments: %v", err)
	}
	return segments[len(segments)-1] // their names sort
}

// killedUnderLoad gives a gateway that was killed while it worked, and all that
// is to be there once it runs again.
func killedUnderLoad(t *testing.T, b *broker, seed uint64) *oracle {
	t.Helper()
	topic := b.topic("t", 3)
	g := newGateway(t, b.settings(topic))
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, seed)
	ctx, cancel := context.WithCancel(t.Context())
	wait := p.stream(ctx, 3000, mixed)
	await(t, "some batches", 30*time.Second, func() bool { o.shelf.look(t); return len(o.shelf.books) >= 3 })
	g.kill9()
	cancel()
	wait()
	return o
}

// FAULTS rows 7 and 8: what lies torn above the mark of what was synced goes,
// and nothing else does.
func TestATornTailGoes(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	o := killedUnderLoad(t, b, 7)
	g := o.g
	whole, err := os.ReadFile(g.lastSegment())
	if err != nil {
		t.Fatal(err)
	}
	tails := map[string][]byte{
		"garbage":              bytes.Repeat([]byte{0xd7, 3, 0x51, 0xff, 0x80}, 977),
		"zeros":                make([]byte, 70_000),
		"one byte":             {0x7f},
		"the log's own middle": whole[len(whole)/3 : len(whole)/2],
		"the log's own begin":  whole[:len(whole)/2-1],
	}
	for name, tail := range tails {
		f, err := os.OpenFile(g.lastSegment(), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(tail); err != nil {
			t.Fatal(err)
		}
		f.Close()
		if out, errs, code := g.command("wal", "verify", "--data-dir", g.dataDir()); code != 3 {
			t.Errorf("%s: wal verify exits %d, want 3 for a torn tail:\n%s%s", name, code, out, errs)
		}
		g.up()
		o.delivered(time.Minute)
		g.kill9()
		if out, errs, code := g.command("wal", "verify", "--data-dir", g.dataDir()); code != 0 {
			t.Errorf("%s: wal verify exits %d after the repair:\n%s%s", name, code, out, errs)
		}
	}
	g.up()
	g.stop()
	o.judge()
}

// FAULTS rows 7 and 11: what is torn off or flipped at or below the mark is not
// taken for a torn tail: the program says what it found and touches nothing.
func TestDamageBelowTheMarkStops(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	o := killedUnderLoad(t, b, 8)
	g := o.g
	path := g.lastSegment()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-20] ^= 0x40
	for name, damaged := range map[string][]byte{
		"truncated by a byte":       whole[:len(whole)-1],
		"truncated by half":         whole[:len(whole)/2],
		"a bit flipped at the end":  flipped,
		"truncated to nothing":      {},
		"overwritten by its middle": append(bytes.Clone(whole[:len(whole)-500]), whole[100:600]...),
	} {
		if err := os.WriteFile(path, damaged, 0o640); err != nil {
			t.Fatal(err)
		}
		out, _, code := g.command("wal", "verify", "--data-dir", g.dataDir())
		if code != 1 || !strings.Contains(out, "damaged") {
			t.Errorf("%s: wal verify exits %d, want 1, and says:\n%s", name, code, out)
		}
		g.fails(1, filepath.Base(path))
		if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, damaged) {
			t.Errorf("%s: the damaged segment was changed (error %v)", name, err)
		}
	}
	if err := os.WriteFile(path, whole, 0o640); err != nil {
		t.Fatal(err)
	}
	g.up()
	o.delivered(time.Minute)
	g.stop()
	o.judge()
}

// FAULTS row 13: a segment that is not there, the oldest, one in the middle or the
// last: the program does not start, says which and what helps, and touches nothing.
func TestAMissingSegmentStops(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 2)
	s := b.settings(topic)
	s.wal = `compression = "none"`
	g := newGateway(t, s)
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, 47)
	p.send(t.Context(), 500, heavy) // some 25 MB
	o.delivered(time.Minute)
	g.kill9()
	segments, err := filepath.Glob(filepath.Join(g.dataDir(), "lanes/0/log/*"))
	if err != nil || len(segments) < 4 {
		t.Fatalf("%d segments, %v", len(segments), err)
	}
	aside := g.path("aside")
	for _, i := range []int{0, 1, len(segments) / 2, len(segments) - 1} {
		if err := os.Rename(segments[i], aside); err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(segments[i])
		g.fails(1, name, "log is damaged", "`forebay wal verify`")
		if out, _, code := g.command("wal", "verify", "--data-dir", g.dataDir()); code != 1 || !strings.Contains(out, name) {
			t.Errorf("wal verify exits %d, and says:\n%s", code, out)
		}
		if err := os.Rename(aside, segments[i]); err != nil {
			t.Fatal(err)
		}
	}
	g.up()
	o.delivered(time.Minute)
	g.stop()
	o.judge()
}
