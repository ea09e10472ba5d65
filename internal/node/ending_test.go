package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"forebay/internal/config"
	"forebay/internal/record"
	"forebay/sinks"
)

// TestAFailureAtTheEndOfAStopIsNotLost, although all has ended by the time it is looked for.
func TestAFailureAtTheEndOfAStopIsNotLost(t *testing.T) {
	p := newPlace(t, nil, "clicks")
	for range 50 { // each time one of two ways that are both open
		n := newNode(Options{Config: p.config(), Logger: discard(), Stdout: p.stdout}, p.machine)
		ended := make(chan struct{})
		n.fail(errDisk)
		close(ended)
		if err := n.stopLeading(ended, func() {}); !errors.Is(err, errDisk) {
			t.Fatalf("the stop ended with: %v", err)
		}
	}
}

// TestALeadLostWhileATermIsBuilt ends the term and not the node, although the term
// hears of it a moment later.
func TestALeadLostWhileATermIsBuilt(t *testing.T) {
	j := openJoint(t, t.TempDir(), nil)
	p := newPlace(t, nil, "clicks")
	lost := errors.New("something else")
	p.machine.sink = func(string, config.Sink, io.Writer, *slog.Logger) (sinks.Sink, error) {
		return nil, fmt.Errorf("adding a sink: %w", lost)
	}
	n := newNode(Options{Config: p.config(), Logger: discard(), Stdout: p.stdout}, p.machine)
	if err := n.runTerm(t.Context(), t.Context(), j.Lane, j.term); !errors.Is(err, lost) {
		t.Errorf("another failure: %v", err)
	}
	lost = record.ErrLeadLost
	term, end := context.WithCancel(t.Context())
	defer time.AfterFunc(20*time.Millisecond, end).Stop()
	if err := n.runTerm(t.Context(), term, j.Lane, j.term); err != nil {
		t.Errorf("a lost lead: %v", err)
	}
}

// TestAStartThatIsToldToStopAtOnce ends as it was told, whatever it was at: looking up
// the name of node.http, for one.
func TestAStartThatIsToldToStopAtOnce(t *testing.T) {
	p := newPlace(t, nil, "clicks")
	for _, address := range []string{"localhost:0", "127.0.0.1:0"} {
		f := p.config()
		f.Node.HTTP = address
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("terminated"))
		n := newNode(Options{Config: f, Logger: discard(), Stdout: p.stdout}, p.machine)
		if err := n.run(ctx); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// TestAFullDiskSaysWhatToDo, at the first start too.
func TestAFullDiskSaysWhatToDo(t *testing.T) {
	p := newPlace(t, nil, "clicks")
	layer := &files{}
	layer.onSync(func() error { return syscall.ENOSPC })
	p.machine.files = layer
	if err := p.mustFail("free some space", p.path("data")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("the node ended with: %v", err)
	}
	p.machine.files = nil
	r := p.start()
	r.awaitLead()
	r.stop()
}
