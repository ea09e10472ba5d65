package e2e_test

import (
	"context"
	"syscall"
	"testing"
	"time"
)

// FAULTS row 36: SIGTERM under load drains in order within its time, with exit
// code 0, and nothing is repeated after a restart.
func TestSigtermUnderLoad(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 3)
	s := b.settings(topic)
	s.node = `stopTimeout = "10s"`
	g := newGateway(t, s)
	o := newOracle(g, b, topic)
	p := b.producer(topic, 12)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wait := p.stream(ctx, 5000, mixed)
	for range size(3, 15) {
		g.up()
		before := o.shelf.got.count()
		await(t, "some records", 30*time.Second, func() bool { o.shelf.look(t); return o.shelf.got.count() > before+500 }, g.show)
		_, next := o.offsets()
		at := time.Now()
		_ = g.run.cmd.Process.Signal(syscall.SIGTERM)
		if code := g.exit(11 * time.Second); code != 0 {
			t.Errorf("exit code %d after SIGTERM, want 0", code)
		}
		took := time.Since(at)
		// What the log had when it was told to stop is committed to Kafka.
		committed := b.committed(g.settings.group)
		for place, n := range next {
			if committed[place] < n {
				t.Errorf("%v: the log held all below %d, only %d is committed", place, n, committed[place])
			}
		}
		o.shelf.look(t)
		o.shelf.unchanged(t)
		t.Logf("stopped within %s", took.Round(time.Millisecond))
	}
	cancel()
	wait()
	g.up()
	o.delivered(time.Minute)
	o.acknowledged(p)
	g.stop()
	o.judge()
}

// SIGTERM ends a process in any state, and an idle one soon.
func TestSigtermAtAnyMoment(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 1)
	g := newGateway(t, b.settings(topic))
	random := newRandom(t)
	for range size(5, 30) {
		g.start()
		g.said("serving HTTP", 10*time.Second)
		select { // not to wait for anything: the moment is to be any
		case <-time.After(time.Duration(random.IntN(800)) * time.Millisecond):
		case <-g.run.done:
		}
		at := time.Now()
		g.stop()
		if took := time.Since(at); took > 12*time.Second {
			t.Errorf("an idle gateway took %s to stop", took)
		}
	}
}
