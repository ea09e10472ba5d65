package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"forebay/internal/config"
	"forebay/internal/record"
	"forebay/sinks"
)

// TestAGracefulStopLosesNothing: a stop under load commits what the log has, and
// the next start delivers the rest, once and in order.
func TestAGracefulStopLosesNothing(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	r := p.up()
	const total = 3000
	var producing sync.WaitGroup
	producing.Go(func() {
		for at := 0; at < total; at += 50 {
			b.produce("clicks", 0, numbers(at, 50)...)
		}
	})
	r.awaitNext("clicks", 0, 200)
	r.stop()
	producing.Wait()

	// Without Kafka the log tells how far it is.
	brokers := p.brokers
	p.brokers = []string{"127.0.0.1:1"}
	alone := p.start()
	alone.awaitLead()
	lane, _ := alone.view()
	at, ok := lane.Position("clicks", 0)
	if !ok || at.Next < 200 {
		t.Fatalf("the log stands at %+v (%v)", at, ok)
	}
	if committed := b.committed("clicks", 0); committed != at.Next {
		t.Errorf("the group's offset is %d, the log's %d", committed, at.Next)
	}
	alone.stop()

	p.brokers = brokers
	r = p.up()
	r.awaitDelivered("files", total)
	r.stop()
	p.wantValues("files", numbers(0, total))
	if committed := b.committed("clicks", 0); committed != total {
		t.Errorf("the group's offset is %d after all", committed)
	}
}

// blocked is a sink whose deliveries wait until they are let go, or, unless it is
// deaf, until their context ends.
func blocked(deaf bool) (fake *fakeSink, entered, release chan struct{}) {
	entered, release = make(chan struct{}, 100), make(chan struct{})
	return &fakeSink{name: "slow", deliver: func(ctx context.Context, _ record.Batch) error {
		entered <- struct{}{}
		told := ctx.Done()
		if deaf {
			told = nil
		}
		select {
		case <-release:
			return nil
		case <-told:
			return context.Cause(ctx)
		}
	}}, entered, release
}

// TestAStopFinishesWhatIsBeingDelivered: the batch in hand is waited for, and its done.
func TestAStopFinishesWhatIsBeingDelivered(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	p.sinks = p.fileSink("slow", "")
	fake, entered, release := blocked(false)
	p.with(fake)
	r := p.up()
	b.produce("clicks", 0, "one")
	<-entered
	r.cancel()
	await(t, "the stop to begin", func() bool { return len(r.logs.lines("stopping")) > 0 })
	if got := r.Ready(); len(got) != 1 || got[0] != "the node is stopping" {
		t.Errorf("reasons against being ready: %q", got)
	}
	close(release)
	if err := r.end(); err != nil {
		t.Fatal(err)
	}
	p.brokers = []string{"127.0.0.1:1"}
	r = p.start()
	if s := r.awaitSink("slow", "idle"); s.Cursor != batchID(2).String() {
		t.Errorf("the next start finds %+v, want the batch done", s)
	}
}

// TestAStopBreaksOffASinkThatDoesNotAnswer within its time; the batch comes again.
func TestAStopBreaksOffASinkThatDoesNotAnswer(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	p.sinks = p.fileSink("slow", "") + p.fileSink("files", "")
	p.stopTimeout = 1500 * time.Millisecond
	fake, entered, release := blocked(false)
	p.with(fake)
	r := p.up()
	b.produce("clicks", 0, "one")
	<-entered
	r.stop()
	if said := r.logs.lines("WARN", "stays in the log", "slow"); len(said) != 1 {
		t.Errorf("the log says %q of the batch that was broken off", said)
	}
	if committed := b.committed("clicks", 0); committed != 1 {
		t.Errorf("the group's offset is %d", committed)
	}
	close(release)
	r = p.up()
	<-entered
	r.awaitDelivered("slow", 1)
}

// TestAStopEndsAlthoughASinkHangs: one that does not even heed its context.
func TestAStopEndsAlthoughASinkHangs(t *testing.T) {
	if !inChild(t) {
		return
	}
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	p.sinks = p.fileSink("slow", "")
	p.stopTimeout, p.machine.endGrace = 300*time.Millisecond, 50*time.Millisecond
	fake, entered, _ := blocked(true)
	p.with(fake)
	r := p.up()
	b.produce("clicks", 0, "one")
	<-entered
	r.cancel()
	err := r.end()
	if err == nil || !strings.Contains(err.Error(), "no answer from sink slow") || !strings.Contains(err.Error(), "node.stopTimeout (300ms)") ||
		!strings.Contains(err.Error(), "stays in the log") {
		t.Errorf("the stop ended with %v", err)
	}
	if _, err := openDataDir(t.Context(), p.path("data"), "n1", "forebay", turn{}); !errors.Is(err, ErrInUse) {
		t.Errorf("the directory was let go of while parts of the node still run: %v", err)
	}
}

// TestAStopWhileDestinationsAreLookedAt: it does not wait for them.
func TestAStopWhileDestinationsAreLookedAt(t *testing.T) {
	p := newPlace(t, nil, "clicks")
	p.sinks = p.fileSink("slow", "")
	looking := make(chan struct{})
	p.with(&fakeSink{name: "slow", open: func(ctx context.Context, _ sinks.Identity) error {
		close(looking)
		<-ctx.Done()
		return context.Cause(ctx)
	}})
	r := p.start()
	<-looking
	if got := r.Ready(); len(got) != 1 || got[0] != "the destinations of the sinks are being looked at" {
		t.Errorf("reasons against being ready: %q", got)
	}
	r.stop()
}

// TestAStopWhileTheDirectoryIsInUse is no failure: it was only told to stop.
func TestAStopWhileTheDirectoryIsInUse(t *testing.T) {
	p := newPlace(t, nil, "clicks")
	p.machine.lockWait = time.Hour
	holder, err := openDataDir(t.Context(), p.path("data"), "n1", "forebay", turn{})
	if err != nil {
		t.Fatal(err)
	}
	defer holder.close()
	r := p.start()
	await(t, "the wait to be said", func() bool {
		return len(r.logs.lines("waiting: another process has the data directory", p.path("data"), fmt.Sprint("pid ", os.Getpid()), "at_most=1h")) == 1
	})
	if got := r.Ready(); len(got) != 1 || !strings.Contains(got[0], "waiting for") {
		t.Errorf("reasons against being ready: %q", got)
	}
	r.stop()
}

// TestAFailedSyncEndsTheNodeWithTheReason (FAULTS 17): nothing of the block is
// acknowledged, and the next start goes on.
func TestAFailedSyncEndsTheNodeWithTheReason(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	layer := &files{}
	p.machine.files = layer
	r := p.up()
	b.produce("clicks", 0, numbers(0, 10)...)
	r.awaitDelivered("files", 10)
	layer.onSync(func() error { return errDisk })
	b.produce("clicks", 0, numbers(10, 10)...)
	err := r.end()
	if !errors.Is(err, errDisk) || !strings.Contains(err.Error(), "start the node again") || !strings.Contains(err.Error(), p.path("data")) {
		t.Errorf("the node ended with: %v", err)
	}
	if said := r.logs.lines(errDisk.Error(), "ERROR"); len(said) != 1 || !strings.Contains(said[0], "forebay ends") {
		t.Errorf("the reason must be said once, at the end:\n%s", strings.Join(said, ""))
	}
	if committed := b.committed("clicks", 0); committed > 10 {
		t.Errorf("the group's offset is %d", committed)
	}
	p.machine.files = nil
	r = p.up()
	r.awaitDelivered("files", 20)
	r.stop()
	p.wantValues("files", numbers(0, 20))
}

// TestAFailureDuringAStop is the outcome of the stop.
func TestAFailureDuringAStop(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	p.sinks = p.fileSink("slow", "")
	layer := &files{}
	p.machine.files = layer
	fake, entered, release := blocked(false)
	p.with(fake)
	r := p.up()
	b.produce("clicks", 0, "one")
	<-entered
	r.cancel()
	await(t, "the stop to begin", func() bool { return len(r.logs.lines("stopping")) > 0 })
	layer.onSync(func() error { return errDisk })
	close(release) // the done cannot be written
	if err := r.end(); !errors.Is(err, errDisk) {
		t.Errorf("the node ended with: %v", err)
	}
}

// TestAPartThatEndsByItself: a node must not go on leading without it.
func TestAPartThatEndsByItself(t *testing.T) {
	other := errors.New("other")
	for _, c := range []struct {
		name     string
		err      error
		termOver bool
		after    time.Duration // when the term ends by itself, 0 for never
		want     string
	}{
		{"with an error", other, false, 0, "receiving: other"},
		{"with none", nil, false, 0, "receiving ended although nobody told it to: please report this"},
		{"with its term", other, true, 0, ""},
		{"a moment before its term", record.ErrLeadLost, false, time.Second, ""},
		{"as if the term were over, and it is not", record.ErrLeadLost, false, 0, "receiving: " + record.ErrLeadLost.Error()},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				term, end := context.WithCancel(t.Context())
				defer end()
				if c.termOver {
					end()
				}
				if c.after > 0 {
					time.AfterFunc(c.after, end)
				}
				if got := fmt.Sprint(byItself(term, "receiving", c.err)); got != c.want && (c.want != "" || got != "<nil>") {
					t.Errorf("got %q, want %q", got, c.want)
				}
			})
		})
	}
}

func TestANodeWhoseReceiverCannotBeBuilt(t *testing.T) {
	p := newPlace(t, nil, "clicks")
	f := p.config()
	f.Receiver.Kafka.TLS = &config.ClientTLS{CA: p.path("nowhere.pem")}
	n := newNode(Options{Config: f, Logger: discard(), Stdout: p.stdout}, p.machine)
	if err := n.run(t.Context()); err == nil || !strings.Contains(err.Error(), "receiver.kafka.tls") || !strings.Contains(err.Error(), "nowhere.pem") {
		t.Errorf("got %v, want the key and the file", err)
	}
}
