package receiver

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"forebay/internal/record"
)

func TestMain(m *testing.M) { goleakMain(m) }

func TestRecordsArriveOnceAndAreCommitted(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 4, "a")
	b.produce(numbered("a", 4, 0, 2000)...)
	l := newMemLog(t)
	r := start(t, b.config("a"), l)
	l.await("all records", func() bool { return l.total() == 2000 })
	b.produce(numbered("a", 4, 2000, 1000)...)
	l.await("the records that came later", func() bool { return l.total() == 3000 })
	onceInOrder(t, l, "a", 3000)
	poll(t, "the commit", func() int64 { return b.committed("g", "a", 0) }, func(o int64) bool { return o == 750 })
	s := r.awaitStatus("an end", func(s Status) bool { return s.partition("a", 3).End == 750 })
	if p := s.partition("a", 3); p.State != StateConsuming || p.Next != 750 || s.Problem != "" || !s.Joined {
		t.Errorf("status %+v", s)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
}

// TestCommitWaitsForTheLog: while the log settles nothing, Kafka's offset
// stays; after that it follows.
func TestCommitWaitsForTheLog(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 1, "a")
	l := newMemLog(t)
	gate := make(chan struct{})
	l.set(func() { l.gate = gate })
	r := start(t, b.config("a"), l)
	r.awaitStatus("the session", func(s Status) bool { return s.partition("a", 0).State == StateConsuming })
	poll(t, "the first commit, of the start", func() int64 { return b.committed("g", "a", 0) }, func(o int64) bool { return o == 0 })
	b.produce(numbered("a", 1, 0, 100)...)
	poll(t, "a block in flight", func() int { r.flights.mu.Lock(); defer r.flights.mu.Unlock(); return r.flights.n }, func(n int) bool { return n > 0 })
	settled := time.After(10 * r.cfg.CommitInterval) // commits that would come if they were wrong
	for open := true; open; {
		select {
		case <-settled:
			open = false
		default:
		}
		if o := b.committed("g", "a", 0); o != 0 {
			t.Fatalf("committed %d before the log had it", o)
		}
	}
	l.set(func() { l.gate = nil })
	close(gate)
	poll(t, "the commit", func() int64 { return b.committed("g", "a", 0) }, func(o int64) bool { return o == 100 })
}

// TestLogsOffsetWinsOverTheGroups: at the formation the group's offset counts,
// afterwards the log's alone, be it higher or lower.
func TestLogsOffsetWinsOverTheGroups(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 1, "a")
	b.produce(numbered("a", 1, 0, 100)...)
	b.commit("g", "a", 0, 40)
	l := newMemLog(t)
	cfg := b.config("a")
	cfg.SessionTimeout = 700 * time.Millisecond // until a static member that stopped is forgotten
	r := start(t, cfg, l)
	l.await("60 records", func() bool { return l.total() == 60 })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	for _, groups := range []int64{10, 150} {
		if recs := recordsOf(l, "a", 0); recs[0].Offset != 40 {
			t.Fatalf("began at %d, the group was at 40", recs[0].Offset)
		}
		before := len(recordsOf(l, "a", 0))
		poll(t, "an empty group", func() string { return b.k.GroupInfo("g").State }, func(s string) bool { return s == "Empty" })
		b.commit("g", "a", 0, groups)
		b.produce(numbered("a", 1, 40+before, 100)...)
		r := start(t, cfg, l)
		l.await("100 more", func() bool { return l.total() == before+100 })
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if o := b.committed("g", "a", 0); o != int64(40+before+100) {
			t.Errorf("the group is at %d", o)
		}
	}
	onceInOrder(t, l, "a", 260)
}

// TestLostPredecessorLooksLikeAHole: a block fails while later ones are in
// flight; none of them may get in, and all is taken up again.
func TestLostPredecessorLooksLikeAHole(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 3, "a")
	l := newMemLog(t)
	start(t, b.config("a"), l)
	for round := range 5 {
		l.set(func() { l.refuse = 1 })
		b.produce(numbered("a", 3, round*500, 500)...)
		l.await("the records of the round", func() bool { return l.total() == (round+1)*500 })
	}
	onceInOrder(t, l, "a", 2500)
	if l.refusals < 5 {
		t.Errorf("%d refusals", l.refusals)
	}
}

func TestLeadLostEndsRun(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 1, "a")
	l := newMemLog(t)
	cfg := b.config("a")
	r, err := New(cfg, l)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Run(t.Context()) }()
	b.produce(numbered("a", 1, 0, 10)...)
	l.await("records", func() bool { return l.total() == 10 })
	l.set(func() { l.lost = true })
	b.produce(numbered("a", 1, 10, 10)...)
	select {
	case err := <-ended:
		if !errors.Is(err, record.ErrLeadLost) {
			t.Errorf("Run returned %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Run goes on without the lead")
	}
	if o := b.committed("g", "a", 0); o > 10 {
		t.Errorf("committed %d", o)
	}
}

// TestRecordsArriveAsTheyAre: nil and empty, headers, timestamps, sizes, every codec.
func TestRecordsArriveAsTheyAre(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 1, "a")
	big := bytes.Repeat([]byte("0123456789abcdef"), 20<<20/16)
	many := make([]kgo.RecordHeader, 1000)
	for i := range many {
		many[i] = kgo.RecordHeader{Key: fmt.Sprint("h", i%10), Value: []byte{byte(i)}}
	}
	want := []*kgo.Record{
		{Key: nil, Value: nil},
		{Key: []byte{}, Value: []byte{}},
		{Key: []byte("k"), Value: nil},
		{Key: nil, Value: []byte("v")},
		{Key: []byte{0xff, 0xfe, 0}, Value: []byte("invalid \xff utf-8")},
		{Value: []byte("headers"), Headers: []kgo.RecordHeader{{Key: "a", Value: []byte("1")}, {Key: "a", Value: nil}, {Key: "", Value: []byte{}}}},
		{Value: []byte("thousand"), Headers: many},
		{Value: []byte("epoch"), Timestamp: time.UnixMilli(0)},
		{Value: []byte("before"), Timestamp: time.UnixMilli(-5000)},
		{Value: []byte("far"), Timestamp: time.UnixMilli(9_000_000_000_000)},
		{Value: []byte("now"), Timestamp: time.UnixMilli(1_763_700_000_123)},
		{Value: big},
		{Value: []byte("after big")},
	}
	for _, rec := range want {
		rec.Topic = "a"
	}
	b.produce(want[:11]...)
	b.produce(want[11], want[12])
	for _, codec := range []kgo.CompressionCodec{kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(), kgo.NoCompression()} {
		cl := b.client(kgo.ProducerBatchCompression(codec))
		for range 20 {
			want = append(want, &kgo.Record{Topic: "a", Value: bytes.Repeat([]byte("compress me "), 500)})
		}
		if err := cl.ProduceSync(t.Context(), want[len(want)-20:]...).FirstErr(); err != nil {
			t.Fatal(err)
		}
		cl.Close()
	}
	l := newMemLog(t)
	start(t, b.config("a"), l)
	l.await("all of them", func() bool { return l.total() >= len(want) })
	got := recordsOf(l, "a", 0)
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i, g := range got {
		w := want[i]
		same := func(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }
		if !same(g.Key, w.Key) || !same(g.Value, w.Value) || g.Offset != w.Offset || g.Timestamp != w.Timestamp.UnixMilli() {
			t.Errorf("record %d: offset %d/%d, timestamp %d/%d, key nil %v/%v, value nil %v/%v", i, g.Offset, w.Offset, g.Timestamp, w.Timestamp.UnixMilli(), g.Key == nil, w.Key == nil, g.Value == nil, w.Value == nil)
		}
		if len(g.Headers) != len(w.Headers) {
			t.Fatalf("record %d: %d headers, want %d", i, len(g.Headers), len(w.Headers))
		}
		for j, h := range g.Headers {
			if string(h.Key) != w.Headers[j].Key || !same(h.Value, w.Headers[j].Value) {
				t.Errorf("record %d header %d: %q=%q, want %q=%q", i, j, h.Key, h.Value, w.Headers[j].Key, w.Headers[j].Value)
			}
		}
	}
}

// TestAbortedTransactionsLeaveHolesThatAreNoGaps, also at the end of a
// partition, where the lag must still reach 0.
func TestAbortedTransactionsLeaveHolesThatAreNoGaps(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 1, "a")
	txn := b.client(kgo.TransactionalID("tx"), kgo.DefaultProduceTopic("a"))
	defer txn.Close()
	n := 0
	inTxn := func(end kgo.TransactionEndTry, records int) {
		t.Helper()
		if err := txn.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for range records {
			value := []byte("aborted")
			if end == kgo.TryCommit {
				value = fmt.Appendf(nil, "a-%d", n)
				n++
			}
			if err := txn.ProduceSync(t.Context(), &kgo.Record{Topic: "a", Value: value}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if err := txn.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	l := newMemLog(t)
	r := start(t, b.config("a"), l)
	inTxn(kgo.TryCommit, 5)
	inTxn(kgo.TryAbort, 7)
	inTxn(kgo.TryCommit, 3)
	inTxn(kgo.TryAbort, 4)
	const end = 5 + 1 + 7 + 1 + 3 + 1 + 4 + 1
	l.await("the end of the partition", func() bool { return l.positions[key{"a", 0}].Next == end })
	onceInOrder(t, l, "a", 8)
	for _, a := range l.advances {
		if a.Reason != record.AdvanceControl {
			t.Errorf("advance %+v", a)
		}
	}
	poll(t, "the commit of the end", func() int64 { return b.committed("g", "a", 0) }, func(o int64) bool { return o == end })
	r.awaitStatus("no lag", func(s Status) bool { p := s.partition("a", 0); return p.Next == end && p.End == end })
	inTxn(kgo.TryCommit, 2) // the claim goes on behind the advance
	l.await("two more", func() bool { return l.total() == 10 })
}

func TestHeldIntakePausesWithoutRebalance(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 2, "a")
	l := newMemLog(t)
	cfg := b.config("a")
	cfg.SessionTimeout = 500 * time.Millisecond
	r := start(t, cfg, l)
	b.produce(numbered("a", 2, 0, 100)...)
	l.await("records", func() bool { return l.total() == 100 })
	generation := b.k.GroupInfo("g").Epoch
	l.hold("wal.maxBytes")
	r.awaitStatus("the pause", func(s Status) bool {
		return s.HeldBy == "wal.maxBytes" && s.partition("a", 0).State == StatePaused && s.partition("a", 1).State == StatePaused
	})
	b.produce(numbered("a", 2, 100, 1000)...)
	// Twice the session's timeout: without heartbeats the member would be gone.
	if err := sleep(t.Context(), 2*cfg.SessionTimeout); err != nil {
		t.Fatal(err)
	}
	l.set(func() {
		if l.total() > 100 {
			t.Errorf("%d records came while the intake was held", l.total()-100)
		}
	})
	l.hold("")
	l.await("the rest", func() bool { return l.total() == 1100 })
	onceInOrder(t, l, "a", 1100)
	if g := b.k.GroupInfo("g").Epoch; g != generation {
		t.Errorf("generation %d, was %d: there was a rebalance", g, generation)
	}
	r.awaitStatus("open", func(s Status) bool { return s.HeldBy == "" && s.partition("a", 0).State == StateConsuming })
}

func TestRateHoldsFromTheFirstSecond(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 3, "a")
	b.produce(numbered("a", 3, 0, 5000)...)
	l := newMemLog(t)
	cfg := b.config("a")
	cfg.MaxRate = 1000
	r := start(t, cfg, l)
	l.await("the first", func() bool { return l.total() > 0 })
	began := time.Now()
	s := r.awaitStatus("what holds it", func(s Status) bool { return s.HeldBy == "maxRate" })
	if s.Limits.Records != 1000 {
		t.Errorf("limits %+v", s.Limits)
	}
	l.await("two seconds' worth", func() bool { return l.total() >= 2000 })
	// What the window tests on a virtual clock say exactly, seen roughly in the whole.
	if took := time.Since(began); took < 1900*time.Millisecond {
		t.Errorf("2000 records at 1000/s took %v", took)
	}
}

func TestNoBrokerIsSaidAndTriedAgain(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 1, "a")
	cfg := b.config("a")
	cfg.Brokers = []string{"127.0.0.1:1"}
	cfg.Registerer = prometheus.NewRegistry()
	r := start(t, cfg, newMemLog(t))
	s := r.awaitStatus("the problem", func(s Status) bool { return s.Problem != "" })
	if !strings.Contains(s.Problem, "127.0.0.1:1") {
		t.Errorf("problem %q", s.Problem)
	}
	began := time.Now()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if time.Since(began) > r.cfg.StopGrace {
		t.Errorf("stopping took %v", time.Since(began))
	}
	if _, err := New(cfg, newMemLog(t)); err != nil {
		t.Errorf("a second term with the same registry: %v", err)
	}
}

func TestConfigSaysAllThatIsWrong(t *testing.T) {
	_, err := New(Config{Lane: 3, Lanes: 2, IsolationLevel: "x", OffsetOutOfRange: "y", MaxRate: -1, SASL: SASL{Mechanism: "GSSAPI"}, KafkaVersion: "9"}, nil)
	for _, want := range []string{"no brokers", "no consumer group", "no topics", "lane 3 of 2", `"x"`, `"y"`, "negative", "GSSAPI", `"9"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}
