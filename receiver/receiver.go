package receiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"

	"forebay/internal/record"
)

// ErrNotOutOfRange is Skip's answer for a partition that does not wait for it.
var ErrNotOutOfRange = errors.New("the partition is neither out of range nor blocked by a record")

// Receiver reads one lane's partitions for one term.
type Receiver struct {
	cfg     Config
	log     Log
	logger  *slog.Logger
	metrics *metrics
	limiter *limiter
	meter   meter
	flights flights

	huge       int           // bytes from which on a record begins its run; see hugeRecord
	kick       chan struct{} // wakes Run between sessions; capacity 1
	committing atomic.Bool   // errors that arrive now are taken for the commit's

	mu         sync.Mutex
	kafka      *kafka
	session    *session // nil while not joined
	plan       *plan
	lane       []key
	ends       map[key]int64
	excluded   map[key]*outOfRange
	leaderless map[key]bool
	blocked    map[key]*blockage       // partitions that wait before a record; see blockageOf
	details    map[key]detail          // the newest error of a partition
	looked     map[string]sighting     // when an incarnation was last seen
	retired    map[record.TopicID]bool // incarnations that were replaced
	limits     Limits
	problems   map[string]string
	notes      []Note
	nonce      uint64
	misfits    int
}

// New checks the configuration; it does not connect.
func New(cfg Config, log Log) (*Receiver, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("receiver configuration: %w", err)
	}
	m, err := newMetrics(cfg.Registerer, cfg.Lane)
	if err != nil {
		return nil, fmt.Errorf("registering the receiver's metrics: %w", err)
	}
	r := &Receiver{
		cfg: cfg, log: log, metrics: m, huge: hugeRecord, limiter: newLimiter(Limits{}),
		logger:  cfg.Logger.With("lane", cfg.Lane),
		retired: make(map[record.TopicID]bool), kick: make(chan struct{}, 1),
		ends: make(map[key]int64), blocked: make(map[key]*blockage), details: make(map[key]detail),
		looked: make(map[string]sighting), problems: make(map[string]string),
		limits: Limits{Records: cfg.MaxRate, Bytes: cfg.MaxBytesRate, PerPartition: cfg.MaxRatePerPartition},
	}
	for _, id := range log.Retired() {
		r.retired[id] = true
	}
	return r, nil
}

// Run reads until ctx ends (nil) or the lead is lost (record.ErrLeadLost). It
// returns when everything that the log took is settled and committed, but not
// later than StopGrace after ctx.
func (r *Receiver) Run(ctx context.Context) error {
	defer r.metrics.lag.Reset()
	defer r.metrics.blocked.Set(0)
	for attempt := 0; ; attempt++ {
		began := time.Now()
		err := r.connected(ctx)
		switch {
		case errors.Is(err, record.ErrLeadLost):
			return err
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, sarama.ErrFencedInstancedId):
			// Another process took our place. It is ours again only if the lead
			// still is; one that was deposed learns that while it waits here.
			r.problem(problemGroup, fmt.Sprintf("another process joined group %q as %q; this one waits before it takes its place back", r.cfg.Group, r.cfg.InstanceID))
			err = sleep(ctx, r.cfg.FencedWait)
		default:
			if time.Since(began) > settledAfter {
				attempt = 0
			}
			err = sleep(ctx, backoff(attempt))
		}
		if err != nil {
			return nil //nolint:nilerr // only ctx ends a sleep, and that is how Run is told to stop
		}
	}
}

const (
	// settledAfter is how long a session must last for the next failure to count as the first.
	settledAfter = 10 * time.Second
	maxBackoff   = 5 * time.Second
	// hastyRejoin is the age below which even a session that was ended on
	// purpose is followed by a wait.
	hastyRejoin = 200 * time.Millisecond
)

// backoff is the wait before another attempt, from 50 ms on doubling.
func backoff(attempt int) time.Duration {
	return min(maxBackoff, 50*time.Millisecond<<min(attempt, 10))
}

// connected opens clients and works with them until ctx ends or they must be
// opened anew.
func (r *Receiver) connected(ctx context.Context) error {
	// Requests outlive ctx by the grace, for the last commit; then their
	// connections are cut.
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	var ender sync.WaitGroup
	ender.Go(func() { r.cutAfterGrace(ctx, hard, cut) })
	defer ender.Wait()
	defer cut()
	dial := &dialer{ctx: hard, open: r.cfg.Dial, timeout: r.cfg.DialTimeout}

	client, err := sarama.NewClient(r.cfg.Brokers, r.cfg.sarama(0, dial, nil))
	if err != nil {
		if ctx.Err() == nil {
			r.unreachable(err)
		}
		return err
	}
	defer func() { _ = client.Close() }()
	k := &kafka{client: client, group: r.cfg.Group}
	r.setKafka(k)
	defer r.setKafka(nil)

	watching, stop := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { r.watch(watching, k) })
	defer watcher.Wait()
	defer stop()
	return r.member(ctx, k, dial)
}

// cutAfterGrace ends hard, and with it all connections, when ctx has ended: at
// once if there is nothing to commit, else after the grace.
func (r *Receiver) cutAfterGrace(ctx, hard context.Context, cut context.CancelFunc) {
	select {
	case <-ctx.Done():
	case <-hard.Done():
		return
	}
	if _, session := r.current(); session != nil {
		_ = sleep(hard, r.cfg.StopGrace)
	}
	cut()
}

// member joins the group and goes from session to session.
func (r *Receiver) member(ctx context.Context, k *kafka, dial *dialer) error {
	first, err := r.prepared(ctx, k)
	if err != nil {
		return err
	}
	conf := r.cfg.sarama(len(first.want), dial, &balancer{data: r.memberData})
	client, err := sarama.NewClient(r.cfg.Brokers, conf)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	group, err := sarama.NewConsumerGroupFromClient(r.cfg.Group, client)
	if err != nil {
		return err
	}
	var errs sync.WaitGroup
	errs.Go(func() { r.hear(group.Errors()) })
	defer errs.Wait()
	defer func() { _ = group.Close() }()

	for attempt, p := 0, first; ; {
		s := newSession(ctx, r, group, k, p)
		err := r.consume(ctx, s)
		if err != nil {
			return err
		}
		lasted := time.Since(s.began)
		if lasted > settledAfter || s.progressed.Load() {
			attempt = 0
		}
		if !errors.Is(context.Cause(s.ctx), errRejoin) || lasted < hastyRejoin {
			err = sleep(ctx, backoff(attempt))
			attempt++
		}
		s.cancel(nil)
		if err != nil {
			return err
		}
		if p, err = r.prepared(ctx, k); err != nil {
			return err
		}
	}
}

// prepared repeats prepare until it succeeds and there is something to join
// for.
func (r *Receiver) prepared(ctx context.Context, k *kafka) (*plan, error) {
	for attempt := 0; ; attempt++ {
		p, err := r.prepare(ctx, k)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, record.ErrLeadLost):
			return nil, err
		case err != nil:
			var nobody *unreachableError
			if errors.As(err, &nobody) {
				r.unreachable(nobody)
			} else {
				r.problem(problemPrepare, err.Error())
			}
			err = sleep(ctx, backoff(attempt))
		case len(p.topics) == 0:
			r.problem(problemKafka, "")
			r.problem(problemPrepare, "")
			attempt = 0
			err = r.waitKick(ctx, r.cfg.MetadataRefresh)
		default:
			r.problem(problemKafka, "")
			r.problem(problemPrepare, "")
			return p, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// consume runs one session. It returns an error only if the group must be
// joined by a new client, or not at all.
func (r *Receiver) consume(ctx context.Context, s *session) error {
	err := s.group.Consume(s.ctx, s.plan.topics, s)
	cause := context.Cause(s.ctx)
	switch {
	case errors.Is(cause, record.ErrLeadLost):
		return cause
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, sarama.ErrFencedInstancedId):
		return err
	case cause != nil:
		if !errors.Is(cause, errRejoin) {
			r.logger.Warn("session ended; partitions are taken up again from the log", "reason", cause.Error())
		} else {
			r.logger.Info("joining the group anew", "reason", cause.Error())
		}
	case errors.Is(err, sarama.ErrClosedConsumerGroup), errors.Is(err, sarama.ErrClosedClient):
		return err
	case err != nil:
		r.problem(problemGroup, fmt.Sprintf("joining group %q: %v", r.cfg.Group, err))
	}
	return nil
}

// memberData is what the balancer tells the group of us.
func (r *Receiver) memberData() memberData {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := memberData{Lane: r.cfg.Lane, Lanes: r.cfg.Lanes, Seen: r.plan.topo.fingerprint(), Nonce: r.nonce}
	for _, k := range r.lane {
		if !r.plan.want[k] {
			if d.Skip == nil {
				d.Skip = make(map[string][]int32)
			}
			d.Skip[k.topic] = append(d.Skip[k.topic], k.partition)
		}
	}
	return d
}

// fitWait tells how long to bear with an assignment that lacks something; each
// one that does makes the next join look different to Kafka.
func (r *Receiver) fitWait(fits bool) (time.Duration, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if fits {
		r.misfits = 0
		return 0, true
	}
	wait := min(30*time.Second, 500*time.Millisecond<<min(r.misfits, 10))
	r.misfits++
	r.nonce++
	return wait, false
}

// joined and parted tell which session is current.
func (r *Receiver) joined(s *session) {
	r.metrics.sessions.Inc()
	r.metrics.joined.Set(1)
	r.problem(problemGroup, "")
	r.mu.Lock()
	r.session = s
	r.mu.Unlock()
	r.logger.Info("joined the group", "group", r.cfg.Group, "partitions", len(s.start), "generation", s.sess.GenerationID())
}

func (r *Receiver) parted(s *session) {
	r.metrics.joined.Set(0)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.session == s {
		r.session = nil
	}
}

func (r *Receiver) current() (*plan, *session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.plan, r.session
}

func (r *Receiver) setKafka(k *kafka) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kafka = k
}

// rejoin ends a session, or wakes Run if there is none.
func (r *Receiver) rejoin(s *session, why string) {
	if s != nil {
		s.fail(fmt.Errorf("%w: %s", errRejoin, why))
	}
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

func (r *Receiver) waitKick(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-r.kick:
	case <-t.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}
