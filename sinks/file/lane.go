package file

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"forebay/sinks"
)

// lockPause is how long a sink waits before it tries a lane's lock again. The lock is held for
// one rename, so it is busy only while a deposed leader publishes its last.
const lockPause = 5 * time.Millisecond

// locked runs op under the lane's lock. The lock is the kernel's: it goes with
// the process that holds it.
func (s *Sink) locked(ctx context.Context, op func() error) error {
	for {
		var got bool
		lane := s.lane
		err := s.do(ctx, func() (err error) {
			if got, err = lane.TryLock(); err != nil || !got {
				return err
			}
			err = op()
			if unlockErr := lane.Unlock(); err == nil {
				err = unlockErr
			}
			return err
		})
		if err != nil {
			return err // got may still be written by a call that was left behind
		}
		if got {
			return nil
		}
		timer := time.NewTimer(lockPause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("waiting for the lock of lane %d, which another process holds: %w", s.id.Lane, context.Cause(ctx))
		}
	}
}

// fence raises the lane's term to ours: from here on a lower one publishes nothing.
func (s *Sink) fence(ctx context.Context) error {
	lane, term := s.lane, s.id.Term
	return s.locked(ctx, func() error {
		held, err := heldTerm(lane)
		if err != nil {
			return err
		}
		if held > term {
			return fenced(held, term)
		}
		if held == term {
			return nil
		}
		return lane.Write(fmt.Appendf(nil, "%020d\n", term))
	})
}

// unfenced is the check of each publication. It is called under the lane's lock.
func unfenced(lane laneFile, term uint64) error {
	held, err := heldTerm(lane)
	if err != nil {
		return err
	}
	switch {
	case held > term:
		return fenced(held, term)
	case held < term:
		return sinks.Permanent(fmt.Errorf("the lock of the lane was changed by another than the sink: it holds term %d, and this is term %d", held, term))
	}
	return nil
}

func fenced(held, term uint64) error {
	return sinks.Permanent(fmt.Errorf("%w: term %d, and this is term %d", sinks.ErrFenced, held, term))
}

// heldTerm reads the term that holds the lane. Nothing, or the zeros that a power
// cut can leave, are no term: after one, no leader of before is left to be fenced.
func heldTerm(lane laneFile) (uint64, error) {
	content, err := lane.Read()
	if err != nil {
		return 0, fmt.Errorf("reading the term that holds the lane: %w", err)
	}
	text := strings.TrimRight(strings.TrimRight(string(content), "\x00"), "\n")
	if text == "" {
		return 0, nil
	}
	term, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, sinks.Permanent(fmt.Errorf("the lock of the lane holds %q, not a term: stop all nodes and remove it", text))
	}
	return term, nil
}
