package wal

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// failure remembers the first thing that went wrong, for good.
type failure struct {
	done   chan struct{}
	mu     sync.Mutex
	err    error
	report func(error)
}

func (f *failure) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// set keeps err if it is the first, reports it, and returns the first.
func (f *failure) set(err error) error {
	f.mu.Lock()
	if f.err != nil {
		defer f.mu.Unlock()
		return f.err
	}
	f.err = err
	close(f.done)
	f.mu.Unlock()
	if f.report != nil {
		f.report(err)
	}
	return err
}

// fail ends the log's life as a store and returns the first failure.
func (l *Log) fail(op, path string, err error) error {
	return l.failure.set(&FailedError{Op: op, Path: path, Err: err})
}

// watchdog reports an operation that lasts too long. One operation runs at a time.
//
// It looks twice: when the last tenth of the limit begins, and again after at least that
// tenth. So a process that was itself stopped for longer (SIGSTOP, a frozen container) has time to
// hear that the disk has answered long ago.
type watchdog struct {
	limit  time.Duration
	timer  *time.Timer
	began  atomic.Int64 // Unix nanoseconds, 0 when nothing runs
	seen   atomic.Int64 // began, of the operation that was looked at last
	report func(time.Duration)
}

func (w *watchdog) start(limit time.Duration, report func(time.Duration)) {
	if limit <= 0 {
		return
	}
	w.limit, w.report = limit, report
	w.timer = time.AfterFunc(time.Hour, w.look)
	w.timer.Stop()
}

// look runs on the timer's goroutine. A timer that was about to be stopped may
// still fire: an operation that has ended, or another one that has just begun, is not taken for a hung one.
func (w *watchdog) look() {
	began := w.began.Load()
	if began == 0 {
		return
	}
	took := time.Since(time.Unix(0, began))
	switch {
	case w.seen.Swap(began) != began:
		w.timer.Reset(max(w.limit/10, w.limit-took))
	case took < w.limit:
		w.timer.Reset(w.limit - took)
	default:
		w.report(took)
	}
}

func (w *watchdog) begin() {
	if w.timer == nil {
		return
	}
	w.began.Store(time.Now().UnixNano())
	w.timer.Reset(w.limit - w.limit/10)
}

func (w *watchdog) end() {
	if w.timer == nil {
		return
	}
	w.began.Store(0)
	w.timer.Stop()
}

func (w *watchdog) close() {
	if w.timer != nil {
		w.timer.Stop()
	}
}

// watchRead reports a read that lasts as long as a store may: with nothing to store, nobody
// else would notice that the disk hangs. Any number of reads are watched at once.
func (l *Log) watchRead() (end func()) {
	w := new(watchdog)
	w.start(l.cfg.StallTimeout, l.stalled)
	w.begin()
	return w.end
}

// stalled is the watchdog's report.
func (l *Log) stalled(took time.Duration) {
	_ = l.failure.set(fmt.Errorf("%w: %s, for %s by now", ErrStalled, l.p.dir, took.Round(time.Millisecond)))
}
