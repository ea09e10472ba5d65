package batcher

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"forebay/internal/record"
)

// courier brings one sink its batches. Its loop is the only goroutine that calls
// the sink; the fields below mu are what others may look at.
type courier struct {
	b       *Batcher
	log     Log
	cfg     SinkConfig
	logger  *slog.Logger
	metrics *sinkMetrics
	want    func(topic string) bool // nil wants all
	opened  bool
	batch   current
	// said and saidAdvance are the trouble that was logged last, "" when there is none.
	said, saidAdvance string
	kick              chan struct{}

	mu      sync.Mutex
	shown   SinkStatus // without what is asked of the log
	history history
}

// current is the batch that is being delivered, over all attempts of this term.
type current struct {
	seq      uint64
	attempts uint32
	wall     time.Time // Clock's, for people and for the done
	began    time.Time // monotonic, for delays
	// scheduling is the time from the cut to the first attempt.
	scheduling time.Duration
}

func newCourier(b *Batcher, cfg SinkConfig) *courier {
	c := &courier{
		b: b, log: b.log, cfg: cfg,
		logger:  b.logger.With("sink", cfg.Name),
		metrics: b.metrics.forSink(b.lane, cfg.Name),
		kick:    make(chan struct{}, 1),
		shown:   SinkStatus{Name: cfg.Name, State: StateIdle},
		history: history{ring: make([]Delivery, b.cfg.History)},
	}
	if len(cfg.Topics) > 0 {
		topics := make(map[string]bool, len(cfg.Topics))
		for _, t := range cfg.Topics {
			topics[t] = true
		}
		c.want = func(topic string) bool { return topics[topic] }
	}
	return c
}

// run does what the log says is next for the sink, until the context ends or
// the batcher is drained. It returns the error that ends the term, if it is the first to see it.
func (c *courier) run(ctx context.Context) error {
	defer c.close()
	for ctx.Err() == nil && !closed(c.b.stop) {
		changed := c.log.Changed()
		state, known := c.log.Sink(c.cfg.Name)
		c.showCursor()
		var err error
		switch {
		case !known:
			c.rest(ctx, StateRemoved, changed)
		case state.Paused:
			c.rest(ctx, StatePaused, changed)
		case !c.opened:
			err = c.open(ctx, state.Cursor)
		case state.Cursor > c.log.LastSeq():
			c.rest(ctx, StateIdle, changed)
		default:
			err = c.deliver(ctx, state.Cursor)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, record.ErrLeadLost):
			return err
		case err != nil:
			c.trouble(ctx, err)
		}
	}
	return nil
}

// open claims the destination. Its failures are those of a delivery.
func (c *courier) open(ctx context.Context, next uint64) error {
	c.show(func(s *SinkStatus) { s.State, s.NextRetry = StateDelivering, time.Time{} })
	c.metrics.attempts.Inc()
	err := c.call(ctx, "open", nil, func(ctx context.Context) error { return c.cfg.Open(ctx, c.b.id(next)) })
	c.opened = err == nil
	if err == nil && c.batch.seq == 0 {
		c.recovered()
	}
	return err
}

func (c *courier) close() {
	err := guard(nil, func() error { return c.cfg.Close() })
	if err != nil {
		c.logger.Warn("closing the sink failed", "error", err)
	}
	c.opened = false
}

// rest waits until something changes in the log.
func (c *courier) rest(ctx context.Context, state State, changed <-chan struct{}) {
	c.show(func(s *SinkStatus) { s.State, s.NextRetry = state, time.Time{} })
	select {
	case <-changed:
	case <-c.b.stop:
	case <-ctx.Done():
	}
}

// trouble says a failure, and waits until it is time to try again.
func (c *courier) trouble(ctx context.Context, err error) {
	c.metrics.failures.Inc()
	state, delay := c.verdict(err)
	var blocked *BlockedError
	errors.As(err, &blocked)
	c.mu.Lock()
	select { // an operator's resume counts only from here on
	case <-c.kick:
	default:
	}
	c.setLocked(func(s *SinkStatus) {
		s.State, s.LastError, s.Blocked, s.Retries = state, err.Error(), blocked, s.Retries+1
		if delay != never {
			s.NextRetry = c.now().Add(delay)
		}
	})
	if c.batch.seq > 0 {
		d := c.history.slot(c.b.id(c.batch.seq))
		d.State, d.Error = state, err.Error()
	}
	c.mu.Unlock()
	c.say(state, err)
	if state == StateFailed {
		c.close()
	}
	c.await(ctx, delay)
}

// never is the delay of what only an operator can set going again.
const never time.Duration = -1

// verdict says what an error makes of the sink, and when it tries again by itself.
func (c *courier) verdict(err error) (State, time.Duration) {
	var blocked *BlockedError
	switch chance := c.b.cfg.Rand(); {
	case errors.As(err, &blocked):
		slow := Backoff{Initial: c.cfg.BlockedRetry, Max: c.cfg.BlockedRetry, Multiplier: 1, Jitter: c.cfg.Backoff.Jitter}
		return StateBlocked, slow.delay(1, chance)
	case isPermanent(err):
		return StateFailed, never
	default:
		return StateRetrying, c.cfg.Backoff.delay(c.status().Retries+1, chance)
	}
}

// await returns when the delay is over, an operator resumes, pauses or
// removes the sink, its cursor is moved, or there is no more to do.
func (c *courier) await(ctx context.Context, delay time.Duration) {
	var timer <-chan time.Time
	if delay != never {
		t := time.NewTimer(delay)
		defer t.Stop()
		timer = t.C
	}
	before, _ := c.log.Sink(c.cfg.Name)
	for {
		changed := c.log.Changed()
		now, known := c.log.Sink(c.cfg.Name)
		if !known || now.Paused || now.Cursor != before.Cursor {
			return
		}
		select {
		case <-changed:
		case <-timer:
			return
		case <-c.kick:
			return
		case <-c.b.stop:
			return
		case <-ctx.Done():
			return
		}
	}
}

// resume is the operator's.
func (c *courier) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.shown.State {
	case StateRetrying, StateBlocked, StateFailed:
		select {
		case c.kick <- struct{}{}:
		default:
		}
	}
}

// say logs trouble when it begins and when it changes, not at each attempt.
func (c *courier) say(state State, err error) {
	text := string(state) + err.Error()
	if text == c.said {
		return
	}
	c.said = text
	attrs := []any{"error", err}
	if c.batch.seq > 0 {
		attrs = append(attrs, "batch", c.b.id(c.batch.seq).String())
	}
	var panicked *PanicError
	if errors.As(err, &panicked) {
		attrs = append(attrs, "stack", string(panicked.Stack))
	}
	switch state {
	case StateFailed:
		c.logger.Error("sink failed; it stays so until it is resumed or the program is started again", attrs...)
	case StateBlocked:
		c.logger.Error("sink is blocked by a record that it cannot take", attrs...)
	default:
		c.logger.Warn("sink failed, trying again", attrs...)
	}
}

// recovered ends trouble.
func (c *courier) recovered() {
	if c.said != "" {
		c.said = ""
		c.logger.Info("sink works again", "retries", c.status().Retries)
	}
	c.show(func(s *SinkStatus) { s.Retries, s.LastError, s.Blocked, s.NextRetry = 0, "", nil, time.Time{} })
}

// now is the wall clock without Go's monotonic reading: a time to show.
func (c *courier) now() time.Time { return c.b.cfg.Clock().Round(0) }

func (c *courier) show(change func(*SinkStatus)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setLocked(change)
}

func (c *courier) setLocked(change func(*SinkStatus)) {
	before := c.shown.State
	change(&c.shown)
	c.metrics.inState(before, c.shown.State)
}

// showCursor brings the gauges up to date. The cutter calls it too, so that the
// lag of a sink that hangs is seen to grow.
func (c *courier) showCursor() {
	if state, known := c.log.Sink(c.cfg.Name); known {
		c.metrics.at(state.Cursor, lag(state.Cursor, c.log.LastSeq()))
	}
}

func lag(cursor, last uint64) uint64 {
	if cursor > last {
		return 0
	}
	return last - cursor + 1
}

func (c *courier) status() SinkStatus {
	state, known := c.log.Sink(c.cfg.Name)
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.shown
	if known {
		s.Cursor, s.Lag = c.b.id(state.Cursor), lag(state.Cursor, c.log.LastSeq())
	}
	return s
}

func (c *courier) delivery(seq uint64) (Delivery, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.history.find(seq)
}

func (c *courier) recent(limit int) []Delivery {
	last := c.log.LastSeq()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.history.recent(last, limit)
}
