package batcher

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"forebay/internal/record"
)

// fakeLog is a lane in memory. Faults are set through the on… hooks, which are
// called without its lock and before anything happens.
type fakeLog struct {
	onCut, onDone func() error
	onRefuse      func(context.Context) error
	onRead        func()
	afterCut      func() // before Cut returns

	mu       sync.Mutex
	changed  chan struct{}
	calls    int // of any method
	held     string
	eased    chan struct{} // closed when held changes
	open     []record.Record
	batches  [][]record.Record // batch n is at n-1
	infos    []record.BatchInfo
	cuts     []time.Time // when, in virtual time
	sinks    map[string]*record.SinkState
	excluded map[string][]record.RecordID
	dones    []record.Done
	refused  []string // "sink seq drop offsets"
}

func newFakeLog(sinks ...string) *fakeLog {
	nothing := func() error { return nil }
	l := &fakeLog{
		changed: make(chan struct{}), eased: make(chan struct{}), sinks: map[string]*record.SinkState{}, excluded: map[string][]record.RecordID{},
		onCut: nothing, onDone: nothing, onRefuse: func(context.Context) error { return nil }, onRead: func() {}, afterCut: func() {},
	}
	for _, name := range sinks {
		l.sinks[name] = &record.SinkState{Name: name, Cursor: 1}
	}
	return l
}

func (l *fakeLog) lock() func() {
	l.mu.Lock()
	l.calls++
	return l.mu.Unlock
}

func (l *fakeLog) changeLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// accept puts records of the given offsets of topic/0 into the open batch.
func (l *fakeLog) accept(topic string, offsets ...int64) {
	defer l.lock()()
	for _, o := range offsets {
		l.open = append(l.open, record.Record{Topic: topic, Offset: o, Value: fmt.Appendf(nil, "%s-%d", topic, o)})
	}
	l.changeLocked()
}

// batch accepts records and cuts them, as an earlier leader would have.
func (l *fakeLog) batch(topic string, offsets ...int64) {
	l.accept(topic, offsets...)
	if err := l.Cut(context.Background(), uint64(len(l.batches))+1, time.Now().UnixMilli()); err != nil {
		panic(err)
	}
}

func (l *fakeLog) set(sink string, change func(*record.SinkState)) {
	defer l.lock()()
	change(l.sinks[sink])
	l.changeLocked()
}

func (l *fakeLog) remove(sink string) {
	defer l.lock()()
	delete(l.sinks, sink)
	l.changeLocked()
}

func (l *fakeLog) cursor(sink string) uint64 {
	s, _ := l.Sink(sink)
	return s.Cursor
}

func (l *fakeLog) callCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.calls
}

func (l *fakeLog) doneCount() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.dones)
}

func (l *fakeLog) Changed() <-chan struct{} {
	defer l.lock()()
	return l.changed
}

func (l *fakeLog) Open() record.OpenBatch {
	defer l.lock()()
	return l.openLocked()
}

// hold says that the intake is held, or open again with "".
func (l *fakeLog) hold(reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = reason
	close(l.eased)
	l.eased = make(chan struct{})
}

func (l *fakeLog) Held() (string, <-chan struct{}) {
	defer l.lock()()
	return l.held, l.eased
}

func (l *fakeLog) openLocked() record.OpenBatch {
	o := record.OpenBatch{Seq: uint64(len(l.batches)) + 1, Records: int64(len(l.open))}
	for i := range l.open {
		o.Bytes += sizeOf(&l.open[i])
	}
	if len(l.infos) > 0 {
		o.LastCutAt = l.infos[len(l.infos)-1].CutAt
	}
	return o
}

func (l *fakeLog) LastSeq() uint64 {
	defer l.lock()()
	return uint64(len(l.batches))
}

func (l *fakeLog) FirstSeq() uint64 {
	defer l.lock()()
	return 1
}

func (l *fakeLog) Batch(seq uint64) (record.BatchInfo, bool) {
	defer l.lock()()
	if seq == 0 || seq > uint64(len(l.infos)) {
		return record.BatchInfo{}, false
	}
	return l.infos[seq-1], true
}

func (l *fakeLog) Sink(name string) (record.SinkState, bool) {
	defer l.lock()()
	s, ok := l.sinks[name]
	if !ok {
		return record.SinkState{}, false
	}
	return *s, true
}

func (l *fakeLog) Cut(_ context.Context, seq uint64, at int64) error {
	if err := l.onCut(); err != nil {
		return err
	}
	defer l.afterCut()
	defer l.lock()()
	o := l.openLocked()
	switch {
	case seq != o.Seq:
		return fmt.Errorf("cut %d, want %d: %w", seq, o.Seq, record.ErrRefused)
	case o.Records == 0:
		return record.ErrNothingToCut
	}
	l.infos = append(l.infos, record.BatchInfo{ID: record.BatchID{Lane: 7, Seq: seq}, CutAt: at, Records: o.Records, Bytes: o.Bytes})
	l.batches, l.open = append(l.batches, l.open), nil
	l.cuts = append(l.cuts, time.Now())
	l.changeLocked()
	return nil
}

func (l *fakeLog) Done(_ context.Context, done record.Done) error {
	if err := l.onDone(); err != nil {
		return err
	}
	return l.takeDone(done)
}

func (l *fakeLog) takeDone(done record.Done) error {
	defer l.lock()()
	s := l.sinks[done.Sink]
	if s == nil || s.Cursor != done.Seq || done.Seq > uint64(len(l.batches)) {
		return fmt.Errorf("done %d: %w", done.Seq, record.ErrRefused)
	}
	s.Cursor++
	l.dones = append(l.dones, done)
	delete(l.excluded, done.Sink)
	l.changeLocked()
	return nil
}

func (l *fakeLog) Refuse(ctx context.Context, sink string, seq uint64, drop bool, refusals []record.Refusal) error {
	if err := l.onRefuse(ctx); err != nil {
		return err
	}
	defer l.lock()()
	s := l.sinks[sink]
	if s == nil || s.Cursor != seq {
		return record.ErrRefused
	}
	var offsets []int64
	for _, r := range refusals {
		offsets = append(offsets, r.Offset)
		l.excluded[sink] = append(l.excluded[sink], r.RecordID)
	}
	l.refused = append(l.refused, fmt.Sprint(sink, " ", seq, " ", drop, " ", offsets))
	l.changeLocked()
	return nil
}

func (l *fakeLog) Excluded(sink string, _ uint64) []record.RecordID {
	defer l.lock()()
	return slices.Clone(l.excluded[sink])
}

func (l *fakeLog) Read(ctx context.Context, seq uint64, want func(string) bool, fn func(*record.Record) error) error {
	l.onRead()
	l.mu.Lock()
	l.calls++
	records := l.batches[seq-1]
	l.mu.Unlock()
	for i := range records {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if want != nil && !want(records[i].Topic) {
			continue
		}
		if err := fn(&records[i]); err != nil {
			return err
		}
	}
	return nil
}

// try is one call of Deliver as the fake sink saw it.
type try struct {
	Seq     uint64
	Offsets []int64
	At      time.Duration // since the sink was made
}

// fakeSink makes batches durable in memory, in the order of the contract: read,
// settle, write. Hooks are called with the number of the try, from 1; nil is none.
type fakeSink struct {
	before  func(ctx context.Context, n int) error // before reading
	refuse  func(rec *record.Record) string        // a reason, or ""
	write   func(ctx context.Context, n int) error // after settle, before the batch is durable
	opening func(n int) error
	advance func(next, oldest record.BatchID) error

	mu             sync.Mutex
	made           time.Time
	busy           bool
	open           bool
	opens, closes  int
	nexts          []uint64 // what Open was told
	tries          []try
	durable        []try
	settleErrs     []error
	batch          record.Batch // of the last try
	advanced       []string
	brokenContract string
}

func (s *fakeSink) tried() []try {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.tries)
}

func (s *fakeSink) took() []try {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.durable)
}

// accepting makes the sink refuse nothing from now on.
func (s *fakeSink) accepting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = nil
}

func newFakeSink() *fakeSink { return &fakeSink{made: time.Now()} }

func (s *fakeSink) Open(_ context.Context, next record.BatchID) error {
	s.opens++
	s.nexts = append(s.nexts, next.Seq)
	if s.open {
		s.brokenContract = "opened twice"
	}
	if s.opening != nil {
		if err := s.opening(s.opens); err != nil {
			return err
		}
	}
	s.open = true
	return nil
}

func (s *fakeSink) Close() error {
	s.closes++
	s.open = false
	return nil
}

func (s *fakeSink) Deliver(ctx context.Context, b record.Batch, settle func(context.Context, []record.Refusal) error) error {
	s.mu.Lock()
	if s.busy || !s.open {
		s.brokenContract = "delivered to while busy or closed"
	}
	s.busy, s.batch = true, b
	n := len(s.tries) + 1
	s.tries = append(s.tries, try{Seq: b.ID.Seq, At: time.Since(s.made)})
	refuse := s.refuse
	s.mu.Unlock()
	defer s.idle()
	if s.before != nil {
		if err := s.before(ctx, n); err != nil {
			return err
		}
	}
	var took []int64
	var refused []record.Refusal
	err := b.Read(ctx, func(rec *record.Record) error {
		s.mu.Lock()
		s.tries[n-1].Offsets = append(s.tries[n-1].Offsets, rec.Offset)
		s.mu.Unlock()
		if refuse != nil {
			if reason := refuse(rec); reason != "" {
				refused = append(refused, record.Refusal{RecordID: idOf(rec), Reason: reason})
				return nil
			}
		}
		took = append(took, rec.Offset)
		return nil
	})
	if err != nil {
		return err
	}
	if err := settle(ctx, refused); err != nil {
		s.settleErrs = append(s.settleErrs, err)
		return fmt.Errorf("undone: %w", err)
	}
	if s.write != nil {
		if err := s.write(ctx, n); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.durable = append(s.durable, try{Seq: b.ID.Seq, Offsets: took, At: time.Since(s.made)})
	return nil
}

func (s *fakeSink) idle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
}

func (s *fakeSink) Advanced(_ context.Context, next, oldest record.BatchID) error {
	s.advanced = append(s.advanced, fmt.Sprintf("%d %d", next.Seq, oldest.Seq))
	if s.advance != nil {
		return s.advance(next, oldest)
	}
	return nil
}

func (s *fakeSink) config(name string) SinkConfig {
	return SinkConfig{
		Name: name, Guarantee: AtLeastOnce, Sink: s, Open: s.Open, Close: s.Close,
		Timeout: 30 * time.Second,
		Backoff: Backoff{Initial: time.Second, Max: 8 * time.Second, Jitter: -1},
	}
}

// bench is a batcher that runs within a bubble of virtual time.
type bench struct {
	*Batcher
	t      *testing.T
	cancel context.CancelCauseFunc
	result chan error
}

func testConfig(sinks ...SinkConfig) Config {
	return Config{
		Lane: 7, Gateway: "gw", LogID: "1d", Term: 3, Interval: 5 * time.Second, Sinks: sinks,
		Rand:   func() float64 { return 0 },
		Logger: slog.New(slog.DiscardHandler),
	}
}

func run(t *testing.T, cfg Config, log Log) *bench {
	t.Helper()
	b, err := New(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	r := &bench{Batcher: b, t: t, cancel: cancel, result: make(chan error, 1)}
	go func() { r.result <- b.Run(ctx) }()
	synctest.Wait()
	return r
}

var errTermOver = errors.New("the term is over")

// end ends the term and waits until the batcher has stopped.
func (r *bench) end() {
	r.t.Helper()
	r.cancel(errTermOver)
	if err := <-r.result; !errors.Is(err, errTermOver) {
		r.t.Errorf("Run returned %v, want the cause of its context", err)
	}
}

// pass lets virtual time pass, and everything settle.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *bench) state(sink string) SinkStatus {
	r.t.Helper()
	for _, s := range r.Status() {
		if s.Name == sink {
			return s
		}
	}
	r.t.Fatalf("no status of sink %q", sink)
	return SinkStatus{}
}

type permanentErr struct{ error }

func (permanentErr) Permanent() bool { return true }

// failing fails the first n tries.
func failing(n int, err error) func(context.Context, int) error {
	return func(_ context.Context, try int) error {
		if try <= n {
			return err
		}
		return nil
	}
}

// transcript is a log that a test reads while it grows.
type transcript struct {
	mu  sync.Mutex
	out strings.Builder
}

func (w *transcript) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(p)
}

func (w *transcript) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.String()
}

func textLogger(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
