package batcher

import (
	"sync"
	"time"

	"forebay/internal/record"
)

// State is what a sink is doing, in the word used by the API and the metrics.
type State string

// States of a sink.
const (
	// StateIdle has everything that was cut.
	StateIdle State = "idle"
	// StateDelivering has an attempt under way (opening included).
	StateDelivering State = "delivering"
	// StateRetrying waits after a temporary error.
	StateRetrying State = "retrying"
	// StateBlocked waits at a record that the sink cannot take.
	StateBlocked State = "blocked"
	// StateFailed waits for an operator after a permanent error.
	StateFailed State = "failed"
	// StatePaused waits for the operator who paused it.
	StatePaused State = "paused"
	// StateRemoved is configured, but has no cursor in the log: an operator
	// removed it. (A sink that has a cursor and is not configured is not known here.)
	StateRemoved State = "removed"
)

// SinkStatus is what a sink is doing now. Times are zero when there is none.
type SinkStatus struct {
	Name string
	// Cursor is the batch that the sink needs next.
	Cursor record.BatchID
	// Lag counts the batches that were cut and that the sink does not have.
	Lag   uint64
	State State
	// Retries counts the failures in a row.
	Retries int
	// LastError is that of the last failure, "" after a success.
	LastError string
	// Blocked says which record a blocked sink stands at.
	Blocked *BlockedError
	// NextRetry is when it tries again by itself.
	NextRetry time.Time
	// StartedAt is when the first attempt at the current batch began.
	StartedAt   time.Time
	LastSuccess time.Time
}

// States of a delivery, besides StateDelivering, StateRetrying, StateBlocked and StateFailed.
const (
	// StateDone is a batch that the sink has.
	StateDone State = "done"
	// StateLost is a batch of an at-most-once sink that failed after its done.
	StateLost State = "lost"
)

// Delivery is the history of one batch at one sink, in this term. Times are zero
// when there is none.
type Delivery struct {
	Batch    record.BatchID
	Sink     string
	State    State
	Attempts int
	// Error is that of the last attempt that failed.
	Error     string
	StartedAt time.Time
	DoneAt    time.Time
	// SchedulingDelay is from the cut to the first attempt, ProcessingTime from
	// there to the done, TotalDelay the sum.
	SchedulingDelay, ProcessingTime, TotalDelay time.Duration
}

// Status tells what each sink is doing, in the order of the configuration.
func (b *Batcher) Status() []SinkStatus {
	all := make([]SinkStatus, len(b.sinks))
	for i, s := range b.sinks {
		all[i] = s.status()
	}
	return all
}

// Deliveries tells what this term remembers of a batch: for each sink that has
// been tried, in the order of the configuration.
func (b *Batcher) Deliveries(seq uint64) []Delivery {
	var all []Delivery
	for _, s := range b.sinks {
		if d, ok := s.delivery(seq); ok {
			all = append(all, d)
		}
	}
	return all
}

// Recent tells a sink's newest deliveries, newest first, at most limit of them.
func (b *Batcher) Recent(sink string, limit int) []Delivery {
	for _, s := range b.sinks {
		if s.cfg.Name == sink {
			return s.recent(limit)
		}
	}
	return nil
}

// history keeps the newest deliveries of one sink. Its owner's lock guards it.
type history struct{ ring []Delivery }

// slot is where a batch is remembered; whatever older batch was there goes.
func (h *history) slot(id record.BatchID) *Delivery {
	d := &h.ring[id.Seq%uint64(len(h.ring))]
	if d.Batch != id {
		*d = Delivery{Batch: id}
	}
	return d
}

func (h *history) find(seq uint64) (Delivery, bool) {
	d := h.ring[seq%uint64(len(h.ring))]
	return d, seq != 0 && d.Batch.Seq == seq
}

// recent walks back from a batch.
func (h *history) recent(from uint64, limit int) []Delivery {
	var all []Delivery
	for seq, n := from, 0; seq > 0 && n < len(h.ring) && len(all) < limit; seq, n = seq-1, n+1 {
		if d, ok := h.find(seq); ok {
			all = append(all, d)
		}
	}
	return all
}

// cutTimes remembers when the newest batches were cut on the monotonic clock, so
// that a clock that is set shows in no delay. Safe for concurrent use.
type cutTimes struct {
	mu   sync.Mutex
	ring []cutTime
}

type cutTime struct {
	seq uint64
	at  time.Time
}

func newCutTimes(n int) *cutTimes { return &cutTimes{ring: make([]cutTime, n)} }

func (c *cutTimes) put(seq uint64, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ring[seq%uint64(len(c.ring))] = cutTime{seq, at}
}

// since is the time from a cut of this term to now.
func (c *cutTimes) since(seq uint64, now time.Time) (time.Duration, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.ring[seq%uint64(len(c.ring))]
	return now.Sub(t.at), t.seq == seq
}
