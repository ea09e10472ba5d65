package receiver

import (
	"context"
	"sync"
)

// flights counts the blocks that the log has taken and not yet settled, over
// all sessions. The zero value is ready.
type flights struct {
	mu     sync.Mutex
	n      int
	landed chan struct{} // closed when n falls to 0
}

func (f *flights) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n == 0 {
		f.landed = make(chan struct{})
	}
	f.n++
}

func (f *flights) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n--; f.n == 0 {
		close(f.landed)
	}
}

// wait returns when nothing is in flight, or with the context's error.
func (f *flights) wait(ctx context.Context) error {
	f.mu.Lock()
	n, landed := f.n, f.landed
	f.mu.Unlock()
	if n == 0 {
		return nil
	}
	select {
	case <-landed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
