package replicate

import (
	"context"
	"sync"
)

// gate counts those inside, and lets nobody in once it is being drained.
type gate struct {
	mu     sync.Mutex
	closed bool
	inside sync.WaitGroup
}

// enter reports whether the caller may go in; it calls leave afterwards.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.inside.Add(1)
	return true
}

func (g *gate) leave() { g.inside.Done() }

// drain closes the gate and waits until it is empty.
func (g *gate) drain() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.inside.Wait()
}

// slots is a counting semaphore.
type slots chan struct{}

func newSlots(n int) slots { return make(slots, n) }

// acquire waits for a slot until either context ends, and reports whether it has one.
func (s slots) acquire(ctx, term context.Context) bool {
	select {
	case s <- struct{}{}:
		return true
	default:
	}
	select {
	case s <- struct{}{}:
		return true
	case <-ctx.Done():
	case <-term.Done():
	}
	return false
}

func (s slots) release() { <-s }
