package sinks

import (
	"context"
	"fmt"
)

// Stubborn runs calls that cannot be interrupted, such as an fsync on a disk that
// hangs, for a caller that has to return when its context ends. One call
// at most is ever left behind; the next one waits for it, so that what a hung
// call still does to the destination is over before anything else is tried. The
// zero value is ready; it is for one goroutine.
type Stubborn struct {
	// left is closed when the call that was left behind has ended.
	left chan struct{}
}

// Do runs op in a goroutine of its own and returns its error, or, soon after ctx ends,
// that of ctx: op then goes on, and must own all that it touches. No
// op begins under a context that has ended.
func (s *Stubborn) Do(ctx context.Context, op func() error) error {
	if err := s.Wait(ctx); err != nil {
		return err
	}
	done := make(chan struct{})
	var err error
	go func() {
		defer close(done)
		err = op()
	}()
	select {
	case <-done:
		return err
	case <-ctx.Done():
		s.left = done
		return fmt.Errorf("the destination did not answer: %w", context.Cause(ctx))
	}
}

// Wait waits for the call that was left behind, if any, and forgets its outcome.
func (s *Stubborn) Wait(ctx context.Context) error {
	if s.left != nil {
		select {
		case <-s.left:
			s.left = nil
		case <-ctx.Done():
			return fmt.Errorf("the destination has still not answered an earlier call: %w", context.Cause(ctx))
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// Hung tells whether a call was left behind and has not ended yet.
func (s *Stubborn) Hung() bool {
	if s.left == nil {
		return false
	}
	select {
	case <-s.left:
		s.left = nil
		return false
	default:
		return true
	}
}
