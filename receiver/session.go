package receiver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"

	"forebay/internal/record"
)

var (
	// errRejoin ends a session on purpose: the topics changed, or an operator skipped.
	errRejoin = errors.New("joining the group anew")
	// errClaimEnded ends a session whose claim sarama has closed: out of range, mostly.
	errClaimEnded = errors.New("a claim ended")
	// errUnprepared ends a session that was given other claims than were prepared.
	errUnprepared = errors.New("assigned what was not prepared")
)

// session is one membership in the group, from Setup to Cleanup. It
// implements sarama.ConsumerGroupHandler.
type session struct {
	r      *Receiver
	group  sarama.ConsumerGroup
	kafka  *kafka
	plan   *plan
	ctx    context.Context
	cancel context.CancelCauseFunc

	sess    sarama.ConsumerGroupSession // from Setup on
	start   map[key]record.Position     // where each claim begins; fixed in Setup
	gather  *gathering
	marked  atomic.Bool // something awaits a commit
	began   time.Time
	workers sync.WaitGroup // sealer, committer, governor

	progressed atomic.Bool  // a block of this session was settled
	appending  atomic.Int64 // since when an Append runs, in Unix nanoseconds; 0: none

	mu     sync.Mutex
	active map[key]*claim
	held   string
	rejoin *time.Timer // set when claims were missing
}

func newSession(ctx context.Context, r *Receiver, group sarama.ConsumerGroup, k *kafka, p *plan) *session {
	s := &session{r: r, group: group, kafka: k, plan: p, gather: newGathering(), active: make(map[key]*claim), began: time.Now()}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	return s
}

// fail ends the session with a reason; the first one counts.
func (s *session) fail(err error) { s.cancel(err) }

// Setup checks the claims and sets where each begins, then starts the
// session's own goroutines. It is called before any claim is started.
func (s *session) Setup(sess sarama.ConsumerGroupSession) error {
	s.sess = sess
	topo, err := s.r.topology(s.kafka)
	if err != nil {
		return s.failed(fmt.Errorf("asking for topics: %w", err))
	}
	if why, _ := difference(s.plan.topo, topo); why != "" {
		return s.failed(fmt.Errorf("%w: %s during the join", errRejoin, why))
	}
	s.start = make(map[key]record.Position)
	for topic, partitions := range sess.Claims() {
		for _, p := range partitions {
			k := key{topic, p}
			pos, ok := s.r.log.Position(topic, p)
			if !ok || !s.plan.want[k] {
				return s.failed(fmt.Errorf("%w: %s", errUnprepared, k))
			}
			s.start[k] = pos
			// One of the two moves the claim's start to the log's offset: mark only
			// raises, reset only lowers what the group had committed.
			sess.MarkOffset(topic, p, pos.Next, "")
			sess.ResetOffset(topic, p, pos.Next, "")
		}
	}
	s.marked.Store(true)
	s.fit()
	s.r.joined(s)
	ctx := sess.Context()
	s.workers.Go(func() {
		(&sealer{s: s, codec: record.NewSealer(s.r.cfg.Compression)}).run(ctx)
	})
	s.workers.Go(func() { s.commit(ctx) })
	s.workers.Go(func() { s.govern(ctx) })
	return nil
}

func (s *session) failed(err error) error {
	s.fail(err)
	return err
}

// fit joins again later when the lane got less than it should: the member that
// assigns may know less than we do, or be one that a takeover has left without a
// leader. Each time the wait is longer.
func (s *session) fit() {
	wait, fits := s.r.fitWait(len(s.start) == len(s.plan.want))
	if fits {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rejoin = time.AfterFunc(wait, func() {
		s.fail(fmt.Errorf("%w: %d of %d partitions were assigned", errRejoin, len(s.start), len(s.plan.want)))
	})
}

// ConsumeClaim takes one partition's records until the session ends.
func (s *session) ConsumeClaim(sess sarama.ConsumerGroupSession, sc sarama.ConsumerGroupClaim) error {
	k := key{sc.Topic(), sc.Partition()}
	pos := s.start[k]
	if sc.InitialOffset() != pos.Next {
		return s.failed(fmt.Errorf("%w: %s began at %d instead of %d", errUnprepared, k, sc.InitialOffset(), pos.Next))
	}
	c := newClaim(s, k, pos, sc.Messages())
	s.enter(c)
	defer s.leave(c)
	if err := c.loop(sess.Context()); err != nil {
		s.fail(fmt.Errorf("%s: %w", k, err))
	}
	<-sess.Context().Done() // a claim that returns early ends the session for all
	return nil
}

// Cleanup waits for what was appended to be settled, then commits: from here
// on the partitions may belong to another. What was gathered and not sealed is
// dropped; it will be fetched again.
func (s *session) Cleanup(sess sarama.ConsumerGroupSession) error {
	s.mu.Lock()
	if s.rejoin != nil {
		s.rejoin.Stop()
	}
	s.mu.Unlock()
	s.workers.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.r.cfg.StopGrace)
	defer cancel()
	_ = s.r.flights.wait(ctx) // the next prepare waits for the rest
	if s.marked.Swap(false) {
		s.r.commit(sess)
	}
	s.r.parted(s)
	return nil
}

// mark notes that the log has all below next. A session that is over takes no
// marks; then the next one begins at the log's offset, and marks that.
func (s *session) mark(k key, next int64) {
	s.sess.MarkOffset(k.topic, k.partition, next, "")
	s.marked.Store(true)
}

// commit sends the marks to Kafka in the background.
func (s *session) commit(ctx context.Context) {
	tick := time.NewTicker(s.r.cfg.CommitInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if s.marked.Swap(false) {
				s.r.commit(s.sess)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (s *session) enter(c *claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active[c.key] = c
	if s.held != "" {
		c.paused = pauseHeld
	}
	s.applyPause(c) // sarama remembers a pause of the session before
}

func (s *session) leave(c *claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.active, c.key)
}

// claims tells whether a partition is being read.
func (s *session) claims(k key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active[k] != nil
}

// width is the number of claims, at least 1.
func (s *session) width() int { return max(1, len(s.start)) }

// ---- holding the intake

// pauseBits are the reasons for which a claim does not fetch.
type pauseBits uint8

const (
	pauseHeld    pauseBits = 1 << iota // the log holds the intake
	pauseSlow                          // it waits long: for its rate, or for the log
	pauseBlocked                       // it waits before a record that cannot be kept
)

// pause sets or clears one reason.
func (s *session) pause(c *claim, why pauseBits, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pauseLocked(c, why, on)
}

func (s *session) pauseLocked(c *claim, why pauseBits, on bool) {
	before := c.paused
	if on {
		c.paused |= why
	} else {
		c.paused &^= why
	}
	if (before == 0) != (c.paused == 0) {
		s.applyPause(c)
	}
}

func (s *session) applyPause(c *claim) {
	partition := map[string][]int32{c.topic: {c.partition}}
	if c.paused != 0 {
		s.group.Pause(partition)
	} else {
		s.group.Resume(partition)
	}
}

// slowAppend is how long an Append may block before fetching stops.
const slowAppend = time.Second

// appendBegins notes that an Append runs since t; the zero time: none does.
func (s *session) appendBegins(t time.Time) {
	if t.IsZero() {
		s.appending.Store(0)
		return
	}
	s.appending.Store(t.UnixNano())
}

// govern pauses all claims while the log holds the intake or is slow to take a
// block, and resumes them. The member's heartbeat goes on by itself.
func (s *session) govern(ctx context.Context) {
	const look = 250 * time.Millisecond
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		reason, changed := s.r.log.Held()
		if since := s.appending.Load(); reason == "" && since != 0 && time.Since(time.Unix(0, since)) > slowAppend {
			reason = heldLog
		}
		s.hold(reason)
		select {
		case <-tick.C:
			if reason != "" {
				s.r.metrics.held.Add(look.Seconds())
			}
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (s *session) hold(reason string) {
	s.mu.Lock()
	before := s.held
	s.held = reason
	for _, k := range slices.SortedFunc(maps.Keys(s.active), compareKeys) {
		s.pauseLocked(s.active[k], pauseHeld, reason != "")
	}
	s.mu.Unlock()
	switch reason {
	case before:
	case "":
		s.r.logger.Info("intake is open again", "held_by", before)
	default:
		s.r.logger.Warn("intake is held; partitions are paused", "held_by", reason)
	}
}

func (s *session) heldBy() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}
