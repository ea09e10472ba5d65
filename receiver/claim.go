package receiver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"forebay/internal/record"
)

// errBackwards ends a session whose claim gave an offset that the log has.
var errBackwards = errors.New("a claim went backwards")

// claim takes one partition's records from sarama into a run, for one session.
type claim struct {
	key
	s      *session
	id     record.TopicID
	msgs   <-chan *sarama.ConsumerMessage
	bucket bucket // guarded by the limiter's lock
	paused pauseBits

	slowed  bool   // it has stopped its fetches, as it waits long
	slow    func() // c.stopFetching, made once
	scratch record.Record
	headers []record.Header

	mu   sync.Mutex
	run  *record.Run
	next int64 // the offset after the last one put into a run: the base of the next run
}

// newClaim begins at an offset.
func newClaim(s *session, k key, pos record.Position, msgs <-chan *sarama.ConsumerMessage) *claim {
	c := &claim{key: k, s: s, id: pos.TopicID, msgs: msgs, run: new(record.Run), next: pos.Next}
	c.run.Reset(k.topic, c.id, k.partition, c.next)
	c.slow = c.stopFetching
	return c
}

// loop takes records until the session ends (nil) or sarama closes the claim
// in mid-session (errClaimEnded).
func (c *claim) loop(ctx context.Context) error {
	idle := time.NewTicker(c.s.r.cfg.MetadataRefresh)
	defer idle.Stop()
	busy := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case m, ok := <-c.msgs:
			if !ok {
				if ctx.Err() != nil {
					return nil
				}
				return errClaimEnded
			}
			if err := c.take(ctx, m); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				if beyond := (*record.LimitError)(nil); errors.As(err, &beyond) {
					return c.block(ctx, beyond)
				}
				return err
			}
			busy = true
		case <-idle.C:
			if !busy && c.s.heldBy() == "" {
				if err := c.probe(ctx); err != nil {
					return err
				}
			}
			busy = false
		}
	}
}

// take puts m, and what else waits and is granted, into the run.
func (c *claim) take(ctx context.Context, m *sarama.ConsumerMessage) (err error) {
	for m != nil && err == nil {
		m, err = c.takeSome(ctx, m)
	}
	return err
}

// takeSome takes what one grant allows, m first. It gives back a huge record that
// came behind m: that one begins a run of its own.
func (c *claim) takeSome(ctx context.Context, m *sarama.ConsumerMessage) (*sarama.ConsumerMessage, error) {
	r := c.s.r
	if err := c.s.gather.room(ctx, pendingBlocks*r.cfg.BlockBytes, c.slow); err != nil {
		return nil, err
	}
	if recordBytes(m) >= r.huge {
		if err := c.s.gather.until(ctx, c.empty, c.slow); err != nil {
			return nil, err
		}
	}
	g, err := r.limiter.acquire(ctx, &c.bucket, 1+len(c.msgs), recordBytes(m), c.slow)
	if err != nil {
		return nil, err
	}
	records, bytes, rest, err := c.fill(m, g)
	r.limiter.settle(r.limiter.now(), &c.bucket, g, records, bytes)
	r.meter.add(time.Now(), records, bytes)
	r.metrics.records.Add(float64(records))
	r.metrics.bytes.Add(float64(bytes))
	if c.slowed && len(c.msgs) < channelBuffer/2 && len(c.msgs)*bytes/max(1, records) < slowedBytes {
		c.slowed = false
		c.s.pause(c, pauseSlow, false)
	}
	return rest, err
}

// stopFetching keeps sarama from filling its channel with records, of whatever
// size, that nobody takes for long.
func (c *claim) stopFetching() {
	if !c.slowed {
		c.slowed = true
		c.s.pause(c, pauseSlow, true)
	}
}

// slowedBytes is what may still wait in sarama's channel when a claim that
// had stopped its fetches begins again.
const slowedBytes = 1 << 20

const (
	// pendingBlocks bounds what is gathered and not sealed, in blocks, to within a
	// share per claim: what is sealed at once after a wait still fits an entry of
	// the log whole, and is not cut into parts that a reader must join again.
	pendingBlocks = 2
	// smallestShare of a block is what a claim may put into its run at once,
	// however many claims there are.
	smallestShare = 16 << 10
	// hugeRecord is the size, in bytes, from which on a record begins its run: it fits
	// a block by itself, and not for certain behind others.
	hugeRecord = record.MaxBody / 4
)

// fill is the way of every record: no allocation, no channel but sarama's. It stops
// before a huge record and gives it back.
func (c *claim) fill(m *sarama.ConsumerMessage, g grant) (records, bytes int, rest *sarama.ConsumerMessage, err error) {
	share := max(smallestShare, c.s.r.cfg.BlockBytes/c.s.width())
	c.mu.Lock()
	defer c.mu.Unlock()
	before, first := c.run.Size(), c.run.Empty()
	for size := recordBytes(m); ; {
		if err = c.put(m); err != nil {
			break
		}
		records++
		bytes += size
		if records >= g.records || float64(bytes) >= g.bytes || c.run.Size()-before >= share || len(c.msgs) == 0 {
			break
		}
		m = <-c.msgs // there is one: nobody else takes from a claim that runs
		if size = recordBytes(m); size >= c.s.r.huge {
			rest = m
			break
		}
	}
	if records > 0 {
		c.s.gather.added(c, c.run.Size()-before, first, c.s.r.cfg.BlockBytes)
	}
	return records, bytes, rest, err
}

// put converts one record and appends it to the run.
func (c *claim) put(m *sarama.ConsumerMessage) error {
	if m.Offset < c.next {
		return fmt.Errorf("%w: %s gave offset %d, and %d is next", errBackwards, c.key, m.Offset, c.next)
	}
	c.headers = c.headers[:0]
	for _, h := range m.Headers {
		c.headers = append(c.headers, record.Header{Key: h.Key, Value: h.Value})
	}
	c.scratch = record.Record{
		Offset: m.Offset, Timestamp: timestampMillis(m.Timestamp),
		Key: m.Key, Value: m.Value, Headers: c.headers,
	}
	if err := c.run.Append(&c.scratch); err != nil {
		return fmt.Errorf("taking %s offset %d: %w", c.key, m.Offset, err)
	}
	c.next = m.Offset + 1
	return nil
}

// empty tells whether the sealer has taken all that was put into a run.
func (c *claim) empty() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.run.Empty()
}

// swap gives the run to the sealer and goes on with an empty one.
func (c *claim) swap(fresh *record.Run) *record.Run {
	c.mu.Lock()
	defer c.mu.Unlock()
	full := c.run
	c.run = fresh
	c.run.Reset(c.topic, c.id, c.partition, c.next)
	return full
}

// rebase moves an empty run on, past what an Advance has passed.
func (c *claim) rebase(next int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next = next
	c.run.Reset(c.topic, c.id, c.partition, next)
}

// recordBytes counts what the limits and metrics count.
func recordBytes(m *sarama.ConsumerMessage) int {
	n := len(m.Key) + len(m.Value)
	for _, h := range m.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

// probe looks whether an idle partition's end is nothing but holes: markers of
// transactions, aborted records and compacted ones move sarama's offset without
// a message. It runs in the claim's own goroutine, so that no record of this
// claim can come between the look and the advance.
func (c *claim) probe(ctx context.Context) error {
	r := c.s.r
	pos, ok := r.log.Position(c.topic, c.partition)
	if !ok || pos.TopicID != c.id || pos.Next != c.next || len(c.msgs) > 0 {
		return nil // something is still on its way
	}
	if end, known := r.end(c.key); !known || end <= c.next {
		return nil
	}
	next, err := c.s.kafka.probe(c.key, c.next)
	if err != nil || next <= c.next {
		// Not worth a word: sarama meets the same error and reports it, and the
		// lag stays visible.
		return nil //nolint:nilerr // see above
	}
	a := record.Advance{Topic: c.topic, TopicID: c.id, Partition: c.partition, Base: c.next, Next: next, Reason: record.AdvanceControl}
	if err := r.log.Advance(ctx, a); err != nil {
		return fmt.Errorf("passing the holes at the end of %s: %w", c.key, err)
	}
	c.rebase(next)
	c.s.mark(c.key, next)
	return nil
}
