package batcher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"forebay/internal/record"
)

// Guarantee is how often a record may arrive at a sink, in the word used in
// configuration.
type Guarantee string

// Guarantees. The batcher does the same for the last two: what makes a repeated
// batch harmless is the sink.
const (
	// AtMostOnce moves the cursor before the sink makes the batch durable:
	// within settle, when all is prepared. A write that fails after that is lost, and said.
	AtMostOnce  Guarantee = "at-most-once"
	AtLeastOnce Guarantee = "at-least-once"
	ExactlyOnce Guarantee = "exactly-once"
)

// Policy says what becomes of a record that a sink cannot take.
type Policy string

// Policies.
const (
	// Block stops the sink at the batch and leaves nothing out.
	Block Policy = "block"
	// Park leaves the record out, and keeps it in the log by reference.
	Park Policy = "park"
	// Drop leaves the record out, and keeps that it was.
	Drop Policy = "drop"
)

// Defaults of the fields that say so.
const (
	DefaultTimeout      = 2 * time.Minute
	DefaultBlockedRetry = time.Minute
	DefaultHistory      = 512
	defaultInitial      = 200 * time.Millisecond
	defaultMax          = 30 * time.Second
	defaultMultiplier   = 2
	defaultJitter       = 0.5
)

// Config is what a Batcher is made of.
type Config struct {
	// Lane, Gateway, LogID and Term are those of the lead: they go into every
	// batch that is handed to a sink.
	Lane    uint32
	Gateway string
	LogID   string
	Term    uint64

	// Interval between cuts; its multiples on the wall clock are where they
	// fall. Required.
	Interval time.Duration
	// MaxBytes (keys, values and headers, uncompressed) and MaxRecords cut
	// early; 0 is no bound. Both hold to within what is in flight.
	MaxBytes   int64
	MaxRecords int64

	// Sinks, each with a name of its own. None is allowed: then the log is
	// only cut.
	Sinks []SinkConfig
	// History is how many batches are remembered for each sink, for the API and
	// the page; default DefaultHistory.
	History int

	// Clock is the wall clock, for what people read and for where the
	// boundaries lie when the term begins; default time.Now. What is measured or
	// waited for runs on Go's monotonic clock, whatever Clock says.
	Clock func() time.Time
	// Rand gives numbers in [0, 1) for the jitter; default math/rand/v2.
	Rand func() float64
	// Logger; default slog.Default().
	Logger *slog.Logger
	// Registerer for the metrics; nil registers none. The metrics of batchers
	// with the same Registerer are shared, told apart by their lane.
	Registerer prometheus.Registerer
}

// SinkConfig is one sink.
type SinkConfig struct {
	// Name is that of the cursor in the log. Required.
	Name string
	// Topics that the sink is given; empty: all.
	Topics []string
	// Guarantee asked of the sink. Required.
	Guarantee Guarantee
	// Refused is the policy for records that the sink cannot take; default Block.
	Refused Policy
	// Timeout of one attempt, of one opening and of one Advanced; default DefaultTimeout.
	Timeout time.Duration
	// Backoff between attempts.
	Backoff Backoff
	// BlockedRetry is how long a blocked sink waits before it tries by itself
	// whether the record can be taken now; default DefaultBlockedRetry.
	BlockedRetry time.Duration

	// Sink is driven from one goroutine. Required.
	Sink Sink
	// Open claims the destination; next is the batch that the sink needs next.
	// It is called before the first delivery, and again after each Close. nil: nothing to open.
	Open func(ctx context.Context, next record.BatchID) error
	// Close releases what Open took; nil: nothing to close.
	Close func() error
}

// withDefaults fills in what was left out and returns all that is wrong.
func (c Config) withDefaults() (Config, error) {
	c.Clock = or(c.Clock == nil, time.Now, c.Clock)
	c.Rand = or(c.Rand == nil, rand.Float64, c.Rand)
	c.Logger = or(c.Logger == nil, slog.Default(), c.Logger)
	c.History = or(c.History == 0, DefaultHistory, c.History)
	c.Sinks = append([]SinkConfig(nil), c.Sinks...)
	var errs []error
	if c.Interval <= 0 {
		errs = append(errs, fmt.Errorf("interval %v: want more than 0", c.Interval))
	}
	if c.MaxBytes < 0 || c.MaxRecords < 0 || c.History < 0 {
		errs = append(errs, errors.New("max bytes, max records and history: want 0 or more"))
	}
	names := make(map[string]bool, len(c.Sinks))
	for i := range c.Sinks {
		s := &c.Sinks[i]
		s.setDefaults()
		for _, err := range s.validate() {
			errs = append(errs, fmt.Errorf("sink %q: %w", s.Name, err))
		}
		if names[s.Name] {
			errs = append(errs, fmt.Errorf("sink %q: configured twice", s.Name))
		}
		names[s.Name] = true
	}
	return c, errors.Join(errs...)
}

func (s *SinkConfig) setDefaults() {
	s.Refused = or(s.Refused == "", Block, s.Refused)
	s.Timeout = or(s.Timeout == 0, DefaultTimeout, s.Timeout)
	s.BlockedRetry = or(s.BlockedRetry == 0, DefaultBlockedRetry, s.BlockedRetry)
	s.Backoff = s.Backoff.withDefaults()
	if s.Open == nil {
		s.Open = func(context.Context, record.BatchID) error { return nil }
	}
	if s.Close == nil {
		s.Close = func() error { return nil }
	}
}

func (s *SinkConfig) validate() []error {
	var errs []error
	if s.Name == "" {
		errs = append(errs, errors.New("has no name"))
	}
	if s.Sink == nil {
		errs = append(errs, errors.New("has nothing to deliver to"))
	}
	switch s.Guarantee {
	case AtMostOnce, AtLeastOnce, ExactlyOnce:
	default:
		errs = append(errs, fmt.Errorf("delivery %q: want %q, %q or %q", s.Guarantee, AtMostOnce, AtLeastOnce, ExactlyOnce))
	}
	switch s.Refused {
	case Block, Park, Drop:
	default:
		errs = append(errs, fmt.Errorf("refused %q: want %q, %q or %q", s.Refused, Block, Park, Drop))
	}
	if s.Timeout < 0 || s.BlockedRetry < 0 {
		errs = append(errs, errors.New("timeout and blocked retry: want more than 0"))
	}
	return append(errs, s.Backoff.validate()...)
}

// or gives the default when a field was left out.
func or[T any](leftOut bool, value, given T) T {
	if leftOut {
		return value
	}
	return given
}
