package replicate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"forebay/internal/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDisk = errors.New("disk failure")

// memStore is a log in memory that survives its lane. It obeys the floor as the
// real one does.
type memStore struct {
	mu        sync.Mutex
	first     uint64
	entries   []raft.Log
	floor     uint64
	applied   uint64
	installed uint64
	bytes     int64
	// fail makes the next StoreLogs fail; gate, when not nil, holds it up until closed.
	fail  error
	gate  chan struct{}
	stall chan struct{} // receives once per held StoreLogs
	// stored counts calls of StoreLogs; biggest is the most entries of one.
	stored, biggest int
	padding         int64 // added to Bytes
}

func newMemStore() *memStore { return &memStore{first: 1, stall: make(chan struct{}, 1024)} }

func (s *memStore) last() uint64 { return s.first + uint64(len(s.entries)) - 1 }

func (s *memStore) FirstIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.entries) == 0 {
		return 0, nil
	}
	return s.first, nil
}

func (s *memStore) LastIndex() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.entries) == 0 {
		return 0, nil
	}
	return s.last(), nil
}

func (s *memStore) GetLog(index uint64, out *raft.Log) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if index < s.first || index > s.last() {
		return raft.ErrLogNotFound
	}
	*out = s.entries[index-s.first]
	return nil
}

// ReadLog reads into *buf always, so that who keeps an entry too long reads another one.
func (s *memStore) ReadLog(index uint64, out *raft.Log, buf *[]byte) error {
	if err := s.GetLog(index, out); err != nil {
		return err
	}
	*buf = append((*buf)[:0], out.Data...)
	out.Data = *buf
	return nil
}

// ReadStart never gives more of a command than is wanted.
func (s *memStore) ReadStart(index uint64, out *raft.Log) error {
	err := s.GetLog(index, out)
	if err == nil && out.Type == raft.LogCommand {
		out.Data = out.Data[:KeepStart(out.Data)]
	}
	return err
}

func (s *memStore) ForgetStarts() {}

func (s *memStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

func (s *memStore) StoreLogs(logs []*raft.Log) error {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		s.stall <- struct{}{}
		<-gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored++
	s.biggest = max(s.biggest, len(logs))
	if s.fail != nil {
		err := s.fail
		s.fail = nil
		return err
	}
	s.installed = 0
	for _, l := range logs {
		if len(s.entries) == 0 {
			s.first = l.Index
		}
		if l.Index != s.last()+1 && len(s.entries) > 0 {
			return fmt.Errorf("entry %d after %d", l.Index, s.last())
		}
		c := *l
		c.Data = bytes.Clone(l.Data)
		s.entries = append(s.entries, c)
		s.bytes += int64(len(c.Data))
	}
	return nil
}

func (s *memStore) DeleteRange(lo, hi uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.entries) == 0 {
		return nil
	}
	if lo <= s.first && hi >= s.last() && s.installed > 0 {
		s.entries, s.bytes, s.first, s.installed = nil, 0, s.installed+1, 0
		return nil
	}
	if lo > s.first {
		for i := lo; i <= s.last(); i++ {
			s.bytes -= int64(len(s.entries[i-s.first].Data))
		}
		s.entries = s.entries[:lo-s.first]
		return nil
	}
	for len(s.entries) > 0 && s.first <= hi && s.first < s.floor {
		s.bytes -= int64(len(s.entries[0].Data))
		s.entries = s.entries[1:]
		s.first++
	}
	return nil
}

func (s *memStore) IsMonotonic() bool { return true }

func (s *memStore) SetFloor(index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.floor = max(s.floor, index)
}

func (s *memStore) SetApplied(index uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applied = max(s.applied, index)
}

func (s *memStore) Installed(index, _ uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.installed = index
}

func (s *memStore) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes + s.padding
}

func (s *memStore) BytesBefore(index uint64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sum int64
	for i := range s.entries {
		if s.entries[i].Index < index {
			sum += int64(len(s.entries[i].Data))
		}
	}
	return sum
}

// hold makes StoreLogs wait; the returned function lets it go on.
func (s *memStore) hold() (release func()) {
	gate := make(chan struct{})
	s.mu.Lock()
	s.gate = gate
	s.mu.Unlock()
	return sync.OnceFunc(func() {
		s.mu.Lock()
		s.gate = nil
		s.mu.Unlock()
		close(gate)
	})
}

func (s *memStore) failNext() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = errDisk
}

// lane is a lane under test, with its term.
type lane struct {
	*Lane
	t     *testing.T
	term  *Term
	terms chan *Term
	stop  func()
}

func testConfig(t *testing.T, dir string, store Store) Config {
	t.Helper()
	return Config{
		NodeID: "n1", Gateway: "forebay", Lanes: 1, Dir: dir, Store: store,
		ParkedMaxBytes: 1 << 20, Retention: time.Hour,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// start opens a lane and waits until it leads. It is closed with the test.
func start(t *testing.T, cfg Config) *lane {
	t.Helper()
	l := launch(t, cfg)
	l.term = l.nextTerm()
	return l
}

// launch opens a lane that may lead: its terms come on a channel.
func launch(t *testing.T, cfg Config) *lane {
	t.Helper()
	opened, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l := &lane{Lane: opened, t: t, terms: make(chan *Term, 16)}
	ctx, cancel := context.WithCancel(context.Background())
	led := make(chan error, 1)
	go func() {
		led <- opened.Lead(ctx, func(ctx context.Context, term *Term) {
			l.terms <- term
			<-ctx.Done()
		})
	}()
	l.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-led; !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) {
			t.Errorf("Lead returned %v", err)
		}
		if err := opened.Close(context.Background()); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	t.Cleanup(l.stop)
	return l
}

func (l *lane) nextTerm() *Term {
	l.t.Helper()
	select {
	case term := <-l.terms:
		return term
	case <-time.After(10 * time.Second):
		l.t.Fatal("no lead within 10 s")
		return nil
	}
}

var topicA = record.TopicID{1}

// seal makes a block of n records from base on, each with a value of size bytes.
func seal(t *testing.T, topic string, base int64, n, size int) []byte {
	t.Helper()
	var run record.Run
	run.Reset(topic, topicA, 0, base)
	for i := range n {
		rec := record.Record{Topic: topic, Offset: base + int64(i), Timestamp: 1, Key: []byte("k"), Value: payload(base+int64(i), size)}
		if err := run.Append(&rec); err != nil {
			t.Fatal(err)
		}
	}
	return record.NewSealer(record.None).Seal([]*record.Run{&run})
}

// payload is a value that tells its offset and does not compress.
func payload(offset int64, size int) []byte {
	v := make([]byte, size)
	x := uint64(offset)*0x9e3779b97f4a7c15 + 1
	for i := range v {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		v[i] = byte(x)
	}
	return v
}

func (l *lane) bases(topics ...string) {
	l.t.Helper()
	var bases []record.Base
	for _, topic := range topics {
		bases = append(bases, record.Base{Topic: topic, TopicID: topicA})
	}
	if err := l.term.SetBases(l.t.Context(), bases); err != nil {
		l.t.Fatal(err)
	}
}

// append hands over a block and waits for its outcome.
func (l *lane) append(block []byte) error {
	l.t.Helper()
	settled := make(chan error, 1)
	if err := l.term.Append(l.t.Context(), block, func(err error) { settled <- err }); err != nil {
		return err
	}
	return <-settled
}

func (l *lane) mustAppend(block []byte) {
	l.t.Helper()
	if err := l.append(block); err != nil {
		l.t.Fatal(err)
	}
}

// cut ends the open batch and returns its number.
func (l *lane) cut() uint64 {
	l.t.Helper()
	seq := l.LastSeq() + 1
	if err := l.term.Cut(l.t.Context(), seq, time.Now().UnixMilli()); err != nil {
		l.t.Fatal(err)
	}
	return seq
}

func (l *lane) done(sink string, seq uint64) {
	l.t.Helper()
	if err := l.term.Done(l.t.Context(), record.Done{Sink: sink, Seq: seq, Attempts: 1}); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lane) next(topic string) int64 {
	p, _ := l.Position(topic, 0)
	return p.Next
}

// offsets reads a batch and checks each record's value.
func (l *lane) offsets(seq uint64) ([]int64, error) {
	l.t.Helper()
	var got []int64
	err := l.ReadBatch(l.t.Context(), seq, nil, func(rec *record.Record) error {
		if !bytes.Equal(rec.Value, payload(rec.Offset, len(rec.Value))) {
			return fmt.Errorf("offset %d has another record's value", rec.Offset)
		}
		got = append(got, rec.Offset)
		return nil
	})
	return got, err
}

func (l *lane) mustOffsets(seq uint64) []int64 {
	l.t.Helper()
	got, err := l.offsets(seq)
	if err != nil {
		l.t.Fatal(err)
	}
	return got
}

// eventually waits for a change of the state until ok holds.
func (l *lane) eventually(what string, ok func() bool) {
	l.t.Helper()
	deadline := time.After(10 * time.Second)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-deadline:
			l.t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func seq(from, n int64) []int64 {
	var out []int64
	for i := range n {
		out = append(out, from+i)
	}
	return out
}
