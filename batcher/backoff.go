package batcher

import (
	"errors"
	"math"
	"time"
)

// Backoff is the schedule of an operation that is tried until it succeeds.
type Backoff struct {
	// Initial is the wait after the first failure; default 200 ms.
	Initial time.Duration
	// Max caps every wait, jitter included; default 30 s.
	Max time.Duration
	// Multiplier from one wait to the next, at least 1; default 2.
	Multiplier float64
	// Jitter is the share of each wait that is left to chance, in [0, 1];
	// negative is none; default 0.5.
	Jitter float64
}

func (b Backoff) withDefaults() Backoff {
	b.Initial = or(b.Initial == 0, defaultInitial, b.Initial)
	b.Max = or(b.Max == 0, max(defaultMax, b.Initial), b.Max)
	b.Multiplier = or(b.Multiplier == 0, defaultMultiplier, b.Multiplier)
	b.Jitter = max(0, or(b.Jitter == 0, defaultJitter, b.Jitter))
	return b
}

func (b Backoff) validate() []error {
	var errs []error
	if b.Initial < 0 || b.Max < b.Initial {
		errs = append(errs, errors.New("backoff: want 0 < initial <= max"))
	}
	if !(b.Multiplier >= 1) || !(b.Jitter <= 1) {
		errs = append(errs, errors.New("backoff: want multiplier >= 1 and jitter <= 1"))
	}
	return errs
}

// delay is the wait after the n-th failure in a row, from 1: between
// (1-Jitter) and 1 times Initial·Multiplier^(n-1), capped by Max. chance is in [0, 1).
// Unlike the usual ±jitter it never exceeds the cap that the operator wrote.
func (b Backoff) delay(n int, chance float64) time.Duration {
	full := float64(b.Initial) * math.Pow(b.Multiplier, float64(max(n, 1)-1))
	full = min(full, float64(b.Max))
	return time.Duration(full * (1 - b.Jitter*chance))
}
