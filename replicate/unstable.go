package replicate

import (
	"fmt"
	"runtime"

	"github.com/hashicorp/raft"
)

// raftStable is the stable store as Raft is given it. Raft panics when its term
// cannot be written, and goes on as if nothing had been asked of it when a vote cannot; it is spared
// both: the reason is reported, and the goroutine that asked ends then and there,
// its deferred calls run, which answers what was proposed. The node must end, and keeps
// the term and the vote that it had.
type raftStable struct {
	raft.StableStore
	failed func(error)
}

// Set implements raft.StableStore. It does not return after an error.
func (s raftStable) Set(key, val []byte) error {
	return s.must(s.StableStore.Set(key, val))
}

// SetUint64 implements raft.StableStore. It does not return after an error. What is there
// already is not written again: so NewRaft, which runs on the caller's goroutine, writes nothing.
func (s raftStable) SetUint64(key []byte, val uint64) error {
	if old, err := s.GetUint64(key); err == nil && old == val {
		return nil
	}
	return s.must(s.StableStore.SetUint64(key, val))
}

func (s raftStable) must(err error) error {
	if err != nil {
		s.failed(err)
		runtime.Goexit()
	}
	return nil
}

// unstable ends the node because its term or vote cannot be kept.
func (l *Lane) unstable(err error) {
	l.lost.Do(func() {
		l.cfg.Lost(fmt.Errorf("the lane's term or vote cannot be kept: %w; see to the disk and start the node again", err))
	})
}
