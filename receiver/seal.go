package receiver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"forebay/internal/record"
)

// gathering is what the claims of a session have put into runs and the sealer
// has not yet taken. Lock order: a claim's lock before this one.
type gathering struct {
	mu      sync.Mutex
	dirty   []*claim // whose runs are not empty
	pending int      // encoded bytes in them
	since   time.Time
	space   chan struct{} // closed and made anew when the sealer takes
	wake    chan struct{} // of the sealer; capacity 1
}

func newGathering() *gathering {
	return &gathering{space: make(chan struct{}), wake: make(chan struct{}, 1)}
}

// added books bytes that c, whose lock is held, has put into its run; first
// tells that the run was empty before.
func (g *gathering) added(c *claim, bytes int, first bool, full int) {
	g.mu.Lock()
	begun := g.pending == 0
	if first {
		g.dirty = append(g.dirty, c)
	}
	if begun {
		g.since = time.Now()
	}
	wasFull := g.pending >= full
	g.pending += bytes
	isFull := g.pending >= full
	g.mu.Unlock()
	if begun || isFull && !wasFull {
		select {
		case g.wake <- struct{}{}:
		default:
		}
	}
}

// room waits until fewer than limit bytes are gathered. slow is called when
// that takes long.
func (g *gathering) room(ctx context.Context, limit int, slow func()) error {
	return g.until(ctx, func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.pending < limit
	}, slow)
}

// until waits for what comes about when the sealer takes.
func (g *gathering) until(ctx context.Context, enough func() bool, slow func()) error {
	var late <-chan time.Time
	for {
		g.mu.Lock()
		space := g.space // before the look, so that no change is missed
		g.mu.Unlock()
		if enough() {
			return nil
		}
		if late == nil {
			late = time.After(slowWait)
		}
		select {
		case <-space:
		case <-late:
			slow()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// due tells how long until a block must be sealed; 0: now; negative: nothing
// is gathered.
func (g *gathering) due(full int, interval time.Duration) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.pending == 0:
		return -1
	case g.pending >= full:
		return 0
	default:
		return max(0, interval-time.Since(g.since))
	}
}

// grab gives the claims to seal.
func (g *gathering) grab() []*claim {
	g.mu.Lock()
	defer g.mu.Unlock()
	dirty := g.dirty
	g.dirty = nil
	return dirty
}

// taken books bytes that the sealer has taken out of runs.
func (g *gathering) taken(bytes int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pending -= bytes
	g.since = time.Now() // of what came while the runs were taken
	close(g.space)
	g.space = make(chan struct{})
}

// sealer turns runs into blocks and hands them to the log, one after the
// other, for one session.
type sealer struct {
	s     *session
	codec *record.Sealer
	spare []*record.Run
}

// run works until the session ends.
func (b *sealer) run(ctx context.Context) {
	cfg := &b.s.r.cfg
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		switch wait := b.s.gather.due(cfg.BlockBytes, cfg.BlockInterval); {
		case wait == 0:
			if err := b.seal(ctx); err != nil {
				b.s.fail(err)
				return
			}
			continue
		case wait > 0:
			timer.Reset(wait)
		default:
			timer.Reset(time.Hour)
		}
		select {
		case <-b.s.gather.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// seal makes a block of all that is gathered, or as many as readers can take it in,
// and appends them. It blocks as long as the log does.
func (b *sealer) seal(ctx context.Context) error {
	claims := b.s.gather.grab()
	runs := make([]*record.Run, 0, len(claims))
	size := 0
	for _, c := range claims {
		run := c.swap(b.fresh())
		size += run.Size()
		runs = append(runs, run)
	}
	b.s.gather.taken(size)
	for len(runs) > 0 {
		n := together(runs, record.MaxBody, maxSummary)
		if err := b.append(ctx, runs[:n]); err != nil {
			return err
		}
		runs = runs[n:]
	}
	return nil
}

const (
	// maxSummary bounds what a block says of its runs, in bytes: every part of a block
	// repeats it and must have room for more, see record.Split.
	maxSummary = record.MaxEntry / 2
	// spanBytes is the most that a summary says of a run, besides its topic's name:
	// eight numbers, the topic's id and the length of its name.
	spanBytes = 8*binary.MaxVarintLen64 + len(record.TopicID{}) + binary.MaxVarintLen16
)

// together tells how many of the runs, from the first on, go into one block. One at
// least, whatever its size: Run.Append sees to that it is not beyond the limits.
func together(runs []*record.Run, body, summary int) int {
	records := false
	for i, run := range runs {
		if run.Empty() {
			continue
		}
		body -= run.Size()
		summary -= spanBytes + len(run.Span().Topic)
		if records && (body < 0 || summary < 0) {
			return i
		}
		records = true
	}
	return len(runs)
}

// append makes one block of runs and appends it.
func (b *sealer) append(ctx context.Context, runs []*record.Run) error {
	f := &flight{s: b.s, spans: make([]record.Span, 0, len(runs))}
	for _, run := range runs {
		f.spans = append(f.spans, run.Span())
	}
	block := b.codec.Seal(runs)
	for _, run := range runs {
		if run.Size() <= 2*b.s.r.cfg.BlockBytes { // the buffer of a huge record is not kept
			b.spare = append(b.spare, run)
		}
	}
	r := b.s.r
	r.flights.begin()
	b.s.appendBegins(time.Now())
	err := r.log.Append(ctx, block, f.settled)
	b.s.appendBegins(time.Time{})
	if err != nil {
		r.flights.end() // settled will not be called
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("appending a block: %w", err)
	}
	return nil
}

func (b *sealer) fresh() *record.Run {
	if n := len(b.spare); n > 0 {
		run := b.spare[n-1]
		b.spare = b.spare[:n-1]
		return run
	}
	return new(record.Run)
}

// flight is a block that the log has and has not settled.
type flight struct {
	s     *session
	spans []record.Span
}

// settled is called by the log, once, in the order of the appends. Marking is
// all that happens here: the commit is in the background.
func (f *flight) settled(err error) {
	r := f.s.r
	defer r.flights.end()
	switch {
	case err == nil:
		r.metrics.blocks.Inc()
		f.s.progressed.Store(true)
		for _, span := range f.spans {
			f.s.mark(key{span.Topic, span.Partition}, span.Last+1)
		}
	case errors.Is(err, record.ErrRefused):
		// A block before this one did not get in. Nothing is
		// marked; the session ends, and all its partitions are taken up again
		// from where the log stands.
		r.metrics.refused.Inc()
		f.s.fail(fmt.Errorf("the log refused a block: %w", err))
	default:
		f.s.fail(fmt.Errorf("settling a block: %w", err))
	}
}
