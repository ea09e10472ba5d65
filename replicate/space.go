package replicate

import (
	"sync"
	"time"
)

const (
	// spaceInterval is how often the log's size and the disk are looked at, and
	// measureEvery how many bytes of blocks may come in between.
	spaceInterval = 250 * time.Millisecond
	measureEvery  = 4 << 20
)

// space knows whether there is room for blocks. Only a leader holds intake.
type space struct {
	lane   *Lane
	limits limits

	mu      sync.Mutex
	leading bool
	held    string
	changed chan struct{}
	// since counts the bytes admitted since the last measurement.
	since int64
	// stuck is set when a release did not help although it was due.
	stuck bool
	// seen is the last measurement.
	seen usage
	// freeErr is said once, until the disk answers again.
	freeErr bool
	wake    chan struct{}
}

func (s *space) init(l *Lane) {
	s.lane = l
	s.changed = make(chan struct{})
	s.wake = make(chan struct{}, 1)
	s.limits = limits{retention: l.cfg.Retention, maxBytes: l.cfg.MaxBytes, maxBatches: l.cfg.MaxBatches}
	if l.cfg.Free != nil {
		s.limits.minFree = max(l.cfg.MinFree, l.cfg.HardFree)
	}
}

// open begins a term, close ends it.
func (s *space) open() {
	s.mu.Lock()
	s.leading, s.stuck = true, false
	s.mu.Unlock()
	s.measure()
}

func (s *space) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leading = false
	s.setHeld("")
}

// state says why intake is held, and gives a channel that is closed when that changes.
func (s *space) state() (string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held, s.changed
}

// admit counts a block in, unless there is no room for it: before any write.
func (s *space) admit(size int64) bool {
	s.mu.Lock()
	s.since += size
	due := s.since >= measureEvery
	held := s.held
	s.mu.Unlock()
	if held == "" && due {
		held = s.measure()
	}
	return held == ""
}

// measure looks at the log and the disk, and holds or opens intake.
func (s *space) measure() string {
	u := s.usage()
	view := s.lane.batchView()
	due := dueByRoom(view, s.limits, u)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = 0
	s.seen = u
	if !s.leading {
		return ""
	}
	expected := u
	if !s.stuck {
		expected = u.after(view, due)
	}
	s.setHeld(heldBy(s.held, s.limits, expected))
	if due > 0 {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return s.held
}

// usage reads the figures. A disk that does not tell its free space is taken to be as before.
func (s *space) usage() usage {
	u := usage{bytes: s.lane.store.Bytes(), batches: s.lane.keptBatches()}
	if s.limits.minFree == 0 {
		return u
	}
	free, err := s.lane.cfg.Free()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if !s.freeErr {
			s.lane.cfg.Logger.Error("free disk space unknown", "error", err)
		}
		s.freeErr = true
		u.free = s.seen.free
		return u
	}
	s.freeErr = false
	u.free = int64(min(free, 1<<62))
	return u
}

// setHeld changes the reason; the caller holds the lock.
func (s *space) setHeld(reason string) {
	if reason == s.held {
		return
	}
	if reason == "" {
		s.lane.cfg.Logger.Info("intake resumed", "after", s.held)
	} else {
		s.lane.cfg.Logger.Warn("intake held", "reason", reason, "log_bytes", s.seen.bytes, "free_bytes", s.seen.free, "batches", s.seen.batches)
	}
	s.held = reason
	s.lane.metrics.setHeld(reason)
	close(s.changed)
	s.changed = make(chan struct{})
}

// setStuck remembers whether the last release helped.
func (s *space) setStuck(stuck bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stuck = stuck
}

// pressed tells whether room runs short, on any node.
func (s *space) pressed() bool {
	u := s.usage()
	return s.limits.maxBytes > 0 && u.bytes >= easeBytes(s.limits.maxBytes) ||
		s.limits.minFree > 0 && u.free < easeFree(s.limits.minFree)
}

// roomForCopies tells whether parked records may be appended again.
func (s *space) roomForCopies() bool {
	if s.lane.cfg.Free == nil || s.lane.cfg.HardFree <= 0 {
		return true
	}
	return s.usage().free >= s.lane.cfg.HardFree
}
