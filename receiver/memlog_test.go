package receiver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"forebay/internal/record"
)

// memLog is the log in memory, by the state machine's rules: a block applies
// only if every span continues from the state, and settles in order from one
// goroutine. Its knobs play the faults.
type memLog struct {
	t testing.TB

	mu        sync.Mutex
	positions map[key]record.Position
	ids       map[string]record.TopicID
	records   map[key][]record.Record
	spans     []record.Span // of the blocks, in order
	bases     []record.Base
	advances  []record.Advance
	changes   []record.TopicChange
	suspects  []uint64
	blocks    int
	refusals  int
	changed   chan struct{} // closed at every change, for await

	refuse  int           // so many of the next blocks are refused whatever they say
	gate    chan struct{} // when not nil, settling waits for it
	lost    bool
	held    string
	heldCh  chan struct{}
	queue   chan memBlock
	done    chan struct{}
	stopped chan struct{}
}

type memBlock struct {
	data    []byte
	settled func(error)
}

func newMemLog(t testing.TB) *memLog {
	l := &memLog{
		t: t, positions: make(map[key]record.Position), ids: make(map[string]record.TopicID),
		records: make(map[key][]record.Record), changed: make(chan struct{}), heldCh: make(chan struct{}),
		queue: make(chan memBlock, 8), done: make(chan struct{}), stopped: make(chan struct{}),
	}
	go l.run()
	t.Cleanup(func() { close(l.done); <-l.stopped })
	return l
}

func (l *memLog) run() {
	defer close(l.stopped)
	for {
		select {
		case b := <-l.queue:
			l.mu.Lock()
			gate := l.gate
			l.mu.Unlock()
			if gate != nil {
				select {
				case <-gate:
				case <-l.done:
				}
			}
			b.settled(l.apply(b.data))
		case <-l.done:
			return
		}
	}
}

func (l *memLog) apply(block []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.touch()
	if l.lost {
		return record.ErrLeadLost
	}
	if l.refuse > 0 {
		l.refuse--
		l.refusals++
		return fmt.Errorf("%w: as the test wanted", record.ErrRefused)
	}
	sum, err := record.ParseSummary(block)
	if err != nil {
		return err
	}
	for _, s := range sum.Spans {
		if pos, ok := l.positions[key{s.Topic, s.Partition}]; !ok || pos.TopicID != s.TopicID || pos.Next != s.Base {
			l.refusals++
			return fmt.Errorf("%w: %s/%d continues from %d, the log is at %d", record.ErrRefused, s.Topic, s.Partition, s.Base, pos.Next)
		}
	}
	var d record.Decoder
	if err := d.Open(block, nil); err != nil {
		return err
	}
	for {
		var rec record.Record
		ok, err := d.Next(&rec)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		rec.Key, rec.Value = bytes.Clone(rec.Key), bytes.Clone(rec.Value)
		rec.Headers = slices.Clone(rec.Headers)
		for i := range rec.Headers {
			rec.Headers[i] = record.Header{Key: bytes.Clone(rec.Headers[i].Key), Value: bytes.Clone(rec.Headers[i].Value)}
		}
		k := key{rec.Topic, rec.Partition}
		l.records[k] = append(l.records[k], rec)
	}
	l.spans = append(l.spans, sum.Spans...)
	for _, s := range sum.Spans {
		l.positions[key{s.Topic, s.Partition}] = record.Position{TopicID: s.TopicID, Next: s.Last + 1}
	}
	l.blocks++
	return nil
}

// touch is called with the lock held.
func (l *memLog) touch() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *memLog) Append(ctx context.Context, block []byte, settled func(error)) error {
	for {
		l.mu.Lock()
		held, ch, lost := l.held, l.heldCh, l.lost
		l.mu.Unlock()
		if lost {
			return record.ErrLeadLost
		}
		if held == "" {
			break
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case l.queue <- memBlock{block, settled}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *memLog) Position(topic string, partition int32) (record.Position, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.positions[key{topic, partition}]
	return p, ok
}

func (l *memLog) TopicID(topic string) (record.TopicID, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	id, ok := l.ids[topic]
	return id, ok
}

func (l *memLog) Topics() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.ids))
}

func (l *memLog) SetBases(_ context.Context, bases []record.Base) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.touch()
	if l.lost {
		return record.ErrLeadLost
	}
	for _, b := range bases {
		k := key{b.Topic, b.Partition}
		if _, ok := l.positions[k]; ok {
			continue
		}
		l.positions[k] = record.Position{TopicID: b.TopicID, Next: b.Next}
		l.ids[b.Topic] = b.TopicID
		l.bases = append(l.bases, b)
	}
	return nil
}

func (l *memLog) Advance(_ context.Context, a record.Advance) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.touch()
	if l.lost {
		return record.ErrLeadLost
	}
	k := key{a.Topic, a.Partition}
	if pos := l.positions[k]; pos.TopicID != a.TopicID || pos.Next != a.Base {
		return fmt.Errorf("%w: advance of %s from %d, the log is at %d", record.ErrRefused, k, a.Base, pos.Next)
	}
	l.positions[k] = record.Position{TopicID: a.TopicID, Next: a.Next}
	l.advances = append(l.advances, a)
	return nil
}

func (l *memLog) Retired() []record.TopicID {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []record.TopicID
	for _, c := range l.changes {
		ids = append(ids, c.Old)
	}
	return ids
}

// AppliedIndex counts blocks: this log keeps nothing else as an entry.
func (l *memLog) AppliedIndex() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return uint64(l.blocks)
}

func (l *memLog) ReplaceTopic(_ context.Context, c record.TopicChange, suspect uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.touch()
	if l.ids[c.Topic] != c.Old {
		return record.ErrRefused
	}
	l.ids[c.Topic] = c.New
	maps.DeleteFunc(l.positions, func(k key, _ record.Position) bool { return k.topic == c.Topic })
	l.changes = append(l.changes, c)
	l.suspects = append(l.suspects, suspect)
	return nil
}

func (l *memLog) Held() (string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held, l.heldCh
}

func (l *memLog) hold(reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = reason
	close(l.heldCh)
	l.heldCh = make(chan struct{})
}

func (l *memLog) set(fn func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fn()
}

// await waits until cond, called with the lock held, is true.
func (l *memLog) await(what string, cond func() bool) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	for {
		l.mu.Lock()
		ok, ch := cond(), l.changed
		l.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-ch:
		case <-ctx.Done():
			l.mu.Lock()
			defer l.mu.Unlock()
			counts := make(map[key]int)
			for k, recs := range l.records {
				counts[k] = len(recs)
			}
			l.t.Fatalf("waited in vain for %s; positions %v, records %v, blocks %d, refusals %d, advances %v", what, l.positions, counts, l.blocks, l.refusals, l.advances)
		}
	}
}

// total is called with the lock held.
func (l *memLog) total() int {
	n := 0
	for _, recs := range l.records {
		n += len(recs)
	}
	return n
}

func TestMemLogRefusesWhatDoesNotContinue(t *testing.T) {
	l := newMemLog(t)
	if err := l.SetBases(t.Context(), []record.Base{{Topic: "t", Next: 5}}); err != nil {
		t.Fatal(err)
	}
	for base, want := range map[int64]error{4: record.ErrRefused, 6: record.ErrRefused, 5: nil} {
		var run record.Run
		run.Reset("t", record.TopicID{}, 0, base)
		if err := run.Append(&record.Record{Offset: 9}); err != nil {
			t.Fatal(err)
		}
		if err := l.apply(record.NewSealer(0).Seal([]*record.Run{&run})); !errors.Is(err, want) {
			t.Errorf("base %d: %v, want %v", base, err, want)
		}
		l.positions[key{"t", 0}] = record.Position{Next: 5}
	}
}
