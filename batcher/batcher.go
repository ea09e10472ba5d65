package batcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"forebay/internal/record"
)

// Batcher cuts and delivers one lane for one term of its lead.
type Batcher struct {
	cfg      Config
	log      Log
	lane     string // the label
	logger   *slog.Logger
	metrics  *metrics
	cuts     *cutTimes
	sinks    []*courier
	retryCut Backoff

	running  atomic.Bool
	stop     chan struct{} // closed by the first Drain
	stopOnce sync.Once
	stopped  chan struct{} // closed when Run returns
}

// New checks a configuration, and returns all that is wrong with it.
func New(cfg Config, log Log) (*Batcher, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("batcher: %w", err)
	}
	lane := strconv.FormatUint(uint64(cfg.Lane), 10)
	m, err := newMetrics(cfg.Registerer, lane)
	if err != nil {
		return nil, fmt.Errorf("batcher: registering metrics: %w", err)
	}
	b := &Batcher{
		cfg: cfg, log: log, lane: lane, metrics: m,
		logger:   cfg.Logger.With("lane", cfg.Lane),
		cuts:     newCutTimes(cfg.History),
		retryCut: Backoff{Initial: 50 * time.Millisecond, Max: 5 * time.Second}.withDefaults(),
		stop:     make(chan struct{}),
		stopped:  make(chan struct{}),
	}
	for _, s := range cfg.Sinks {
		b.sinks = append(b.sinks, newCourier(b, s))
	}
	return b, nil
}

// Run cuts and delivers until ctx ends, the log says that the lead is lost, or
// Drain was called; it returns when all of it has stopped and every sink is closed.
// The error is nil after Drain, wraps record.ErrLeadLost when the log said so,
// and is otherwise ctx's cause. A Batcher runs once.
func (b *Batcher) Run(ctx context.Context) error {
	if b.running.Swap(true) {
		return errors.New("batcher: run a second time")
	}
	defer close(b.stopped)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	start := func(run func(context.Context) error) {
		all.Go(func() {
			if err := run(ctx); err != nil {
				cancel(err)
			}
		})
	}
	start(b.newCutter().run)
	for _, s := range b.sinks {
		start(s.run)
	}
	all.Wait()
	for _, s := range b.sinks {
		s.metrics.end()
	}
	return context.Cause(ctx)
}

// Drain begins no more cuts and no more attempts, and waits until those under
// way have ended, their dones included; then Run returns nil. When ctx ends first,
// the error says which sinks were still busy, and the caller ends Run's context.
// There is no last cut: what is open stays in the log, for the next term.
func (b *Batcher) Drain(ctx context.Context) error {
	b.stopOnce.Do(func() { close(b.stop) })
	if !b.running.Load() {
		return nil
	}
	select {
	case <-b.stopped:
		return nil
	case <-ctx.Done():
	}
	var busy []string
	for _, s := range b.sinks {
		if s.status().State == StateDelivering {
			busy = append(busy, s.cfg.Name)
		}
	}
	return fmt.Errorf("waiting for the deliveries under way (%s): %w", strings.Join(busy, ", "), context.Cause(ctx))
}

// Resume lets a sink that is retrying, blocked or failed try again at once; a
// failed one is opened anew. In any other state it does nothing. (A paused sink is resumed in the log.)
func (b *Batcher) Resume(sink string) error {
	for _, s := range b.sinks {
		if s.cfg.Name == sink {
			s.resume()
			return nil
		}
	}
	return fmt.Errorf("sink %q: %w", sink, ErrUnknownSink)
}

func (b *Batcher) id(seq uint64) record.BatchID {
	return record.BatchID{Lane: b.cfg.Lane, Seq: seq}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
