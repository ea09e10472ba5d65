package receiver

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kgo"

	"forebay/internal/record"
)

// beyond is a record that the log's format cannot carry.
func beyond(topic string, partition int32) *kgo.Record {
	return &kgo.Record{Topic: topic, Partition: partition, Headers: make([]kgo.RecordHeader, record.MaxHeaders+1)}
}

// TestRecordBeyondTheLimitsHoldsItsPartitionAlone: what came before it is in the
// log, the other partition goes on in the same session, a restart finds it again, and
// an operator's skip passes that one record.
func TestRecordBeyondTheLimitsHoldsItsPartitionAlone(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 2, "a")
	b.produce(numbered("a", 2, 0, 40)...)
	b.produce(beyond("a", 0))
	b.produce(numbered("a", 2, 40, 20)...)
	l := newMemLog(t)
	cfg := b.config("a")
	cfg.Registerer = prometheus.NewRegistry()
	r := start(t, cfg, l)
	blocked := func(s Status) bool { return s.partition("a", 0).State == StateBlocked }
	s := r.awaitStatus("the record to be found", blocked)
	if d := s.partition("a", 0).Detail; !strings.Contains(d, "a/0: the record at offset 20 cannot be kept: too many headers") || !strings.Contains(d, "`forebay gaps skip a 0`") {
		t.Errorf("detail %q", d)
	}
	l.await("all that can be read", func() bool { return l.total() == 50 })
	b.produce(numbered("a", 2, 60, 40)...)
	l.await("what comes later to the other partition", func() bool { return l.total() == 70 })
	if n := testutil.ToFloat64(r.metrics.sessions); n != 1 {
		t.Errorf("%v sessions: the other partition was disturbed", n)
	}
	if found, now := testutil.ToFloat64(r.metrics.unkeepable), testutil.ToFloat64(r.metrics.blocked); found != 1 || now != 1 {
		t.Errorf("counted %v records, %v partitions; want 1 and 1", found, now)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = start(t, b.config("a"), l)
	r.awaitStatus("the record to be found again", blocked)
	a := r.skip(t, "a", 0)
	if want := (record.Advance{Topic: "a", TopicID: a.TopicID, Base: 20, Next: 21, Reason: record.AdvanceSkipped}); a != want {
		t.Error(cmp.Diff(want, a))
	}
	l.await("what lies behind it", func() bool { return l.total() == 100 })
	onceInOrder(t, l, "a", 100)
	r.awaitStatus("the partition to go on", func(s Status) bool { return s.partition("a", 0).State == StateConsuming })
	if n := testutil.ToFloat64(r.metrics.blocked); n != 0 {
		t.Errorf("%v partitions are still counted as blocked", n)
	}
	if _, err := r.Skip(t.Context(), "a", 0); !errors.Is(err, ErrNotOutOfRange) {
		t.Errorf("a second skip: %v", err)
	}
}

// TestSkippedRecordBehindAHole: the marker of a transaction before the record is no
// part of the gap.
func TestSkippedRecordBehindAHole(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 1, "a")
	txn := b.client(kgo.TransactionalID("tx"))
	defer txn.Close()
	if err := txn.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := txn.ProduceSync(t.Context(), numbered("a", 1, 0, 3)...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := txn.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Fatal(err)
	}
	b.produce(beyond("a", 0))
	b.produce(numbered("a", 1, 3, 2)...)
	l := newMemLog(t)
	r := start(t, b.config("a"), l)
	r.awaitStatus("the record to be found", func(s Status) bool { return s.partition("a", 0).State == StateBlocked })
	a := r.skip(t, "a", 0)
	l.await("what lies behind it", func() bool { return l.total() == 5 })
	l.mu.Lock()
	defer l.mu.Unlock()
	want := []record.Advance{
		{Topic: "a", TopicID: a.TopicID, Base: 3, Next: 4, Reason: record.AdvanceControl},
		{Topic: "a", TopicID: a.TopicID, Base: 4, Next: 5, Reason: record.AdvanceSkipped},
	}
	if diff := cmp.Diff(want, l.advances); diff != "" {
		t.Error(diff)
	}
}

// skip skips as soon as what comes before has been written.
func (r *running) skip(t testing.TB, topic string, partition int32) record.Advance {
	t.Helper()
	type answer struct {
		a   record.Advance
		err error
	}
	got := poll(t, "the skip", func() answer {
		a, err := r.Skip(context.Background(), topic, partition)
		return answer{a, err}
	}, func(got answer) bool { return !errors.Is(got.err, ErrNotYet) })
	if got.err != nil {
		t.Fatal(got.err)
	}
	return got.a
}
