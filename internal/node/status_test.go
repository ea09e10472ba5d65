package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/admin"
	"forebay/internal/record"
	"forebay/receiver"
)

// TestTheShapeOfTheStatus is what scripts and pages rely on (admin.Status): fields are
// added, never renamed. What differs
// from run to run is replaced by the kind of value that it is.
func TestTheShapeOfTheStatus(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	p.sinks = p.fileSink("files", "") + p.fileSink("old", "")
	r := p.up()
	b.produce("clicks", 0, numbers(0, 7)...)
	r.awaitDelivered("files", 7)
	r.awaitDelivered("old", 7)
	r.stop()
	p.sinks = p.fileSink("files", "")
	r = p.up()
	b.produce("clicks", 0, numbers(7, 3)...)
	r.awaitDelivered("files", 10)
	r.awaitSink("files", "idle")
	await(t, "the end of the partition to be known", func() bool { return r.lane0().Partitions[0].End == 10 })
	page, err := r.Batches(0, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "status.json", shape(t, r.Status()))
	golden(t, "batches.json", shape(t, admin.BatchPage{Batches: page.Batches[:1], Next: page.Next}))
}

// shape is a value's JSON with what is never twice the same replaced.
func shape(t *testing.T, v any) string {
	t.Helper()
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		t.Fatal(err)
	}
	out := text.String()
	for pattern, by := range map[string]string{
		`"(logId)": "[0-9a-f]{32}"`: `"$1": "<32 hex digits>"`,
		`"(term|first|last|floor|bytes|bytesPerSecond|recordsPerSecond|seq|records|active)": [0-9.]+`: `"$1": "<number>"`,
		`"(lastSuccess|cutAt|startedAt|doneAt)": "[0-9TZ:.-]+"`:                                       `"$1": "<time>"`,
		`"(lastCut|cursor|id)": "0-[0-9]{20}"`:                                                        `"$1": "<batch>"`,
		`"(version)": "[0-9.]+"`:                                                                      `"$1": "<version>"`,
	} {
		out = regexp.MustCompile(pattern).ReplaceAllString(out, by)
	}
	return out
}

// TestBatchesComeInPages, newest first, each once.
func TestBatchesComeInPages(t *testing.T) {
	b := newBroker(t, 2, "clicks")
	p := newPlace(t, b, "clicks")
	r := p.up()
	if page, err := r.Batches(0, 0, 10); err != nil || len(page.Batches) != 0 || page.Next != nil {
		t.Errorf("before the first batch: %+v, %v", page, err)
	}
	if s := r.lane0().Batches; s.LastCut != "" || s.Active != 0 {
		t.Errorf("before the first batch: %+v", s)
	}
	const batches = 5
	for i := range batches {
		b.produce("clicks", int32(i%2), fmt.Sprint(i))
		r.awaitDelivered("files", int64(i+1))
	}
	all := r.batches()
	if len(all) != batches {
		t.Fatalf("%d batches", len(all))
	}
	for i, batch := range all {
		n := batches - 1 - i
		want := []record.Range{{Topic: "clicks", Partition: int32(n % 2), First: int64(n / 2), Last: int64(n / 2)}}
		if diff := cmp.Diff(want, batch.Ranges); diff != "" || batch.Records != 1 || batch.Bytes != 1 || batch.ID != batchID(uint64(n+1)).String() {
			t.Errorf("batch %d is %+v", n+1, batch)
		}
	}
	for limit := 1; limit <= batches+1; limit++ {
		var got []admin.Batch
		before := uint64(0)
		for pages := 1; ; pages++ {
			page, err := r.Batches(0, before, limit)
			if err != nil || len(page.Batches) > limit || pages > batches {
				t.Fatalf("limit %d, before %d: %+v, %v", limit, before, page, err)
			}
			got = append(got, page.Batches...)
			if page.Next == nil {
				break
			}
			before = *page.Next
		}
		if diff := cmp.Diff(all, got); diff != "" {
			t.Errorf("pages of %d (-want +got):\n%s", limit, diff)
		}
	}
	for before, want := range map[uint64]int{1: 0, 2: 1, 4: 3, 100: 5} {
		if page, err := r.Batches(0, before, 10); err != nil || len(page.Batches) != want {
			t.Errorf("before %d: %d batches (%v), want %d", before, len(page.Batches), err, want)
		}
	}
	if _, err := r.Batches(1, 0, 10); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("a lane that is not there: %v", err)
	}
}

// TestBatchesAreTheSameAfterARestart: numbers, times, ranges and deliveries.
func TestBatchesAreTheSameAfterARestart(t *testing.T) {
	b := newBroker(t, 3, "clicks", "views")
	p := newPlace(t, b, "clicks", "views")
	r := p.up()
	for i := range 4 {
		b.produce("clicks", int32(i%3), numbers(i*30, 30)...)
		b.produce("views", 0, numbers(i*5, 5)...)
		r.awaitDelivered("files", int64(35*(i+1)))
	}
	before, values := r.batches(), p.values("files")
	r.stop()
	p.brokers = []string{"127.0.0.1:1"}
	r = p.start()
	r.awaitLead()
	if diff := cmp.Diff(before, r.batches()); diff != "" {
		t.Errorf("after the restart (-before +after):\n%s", diff)
	}
	p.wantValues("files", values)
}

// TestParkedRecords from the refusal to the discard.
func TestParkedRecords(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	p.sinks = p.fileSink("files", "") + p.fileSink("strict", `refused = "park"`) +
		"[sinks.strict.mapping]\nvalue = 'split(value, \"|\")[1]'\n"
	r := p.up()
	if list := r.parked(); list == nil || len(list) != 0 {
		t.Errorf("nothing parked shows as %v, want an empty list", list)
	}
	b.produce("clicks", 0, "a|1", "bad", "b|2", "worse")
	r.awaitDelivered("strict", 4)
	p.wantValues("strict", []string{"1", "2"})
	p.wantValues("files", []string{"a|1", "bad", "b|2", "worse"})
	parked := r.parked()
	if len(parked) != 2 {
		t.Fatalf("parked: %+v", parked)
	}
	for i, offset := range []int64{1, 3} {
		q := parked[i]
		if q.Sink != "strict" || q.Topic != "clicks" || q.Partition != 0 || q.Offset != offset || q.Reason == "" || q.Bytes == 0 || q.At.IsZero() || q.Lane != 0 {
			t.Errorf("parked record %d is %+v", i, q)
		}
		if _, err := record.ParseBatchID(q.Batch); err != nil {
			t.Errorf("parked record %d: %v", i, err)
		}
	}
	if s := r.awaitSink("strict", "idle"); s.Parked != 2 || s.Dropped != 0 {
		t.Errorf("the sink shows as %+v", s)
	}
	shown, err := r.ParkedRecord(t.Context(), 0, parked[1].ID)
	if err != nil || string(shown.Value) != "worse" || shown.Offset != 3 || shown.Key != nil || shown.Timestamp != 3 {
		t.Errorf("the record is %+v, %v", shown, err)
	}
	// An ID that is not there discards nothing.
	for _, c := range []struct {
		lane uint32
		ids  []uint64
		want error
	}{
		{0, []uint64{parked[0].ID, 99}, admin.ErrNotFound}, {7, []uint64{parked[0].ID}, admin.ErrNotFound}, {0, nil, admin.ErrInvalid},
	} {
		if err := r.DiscardParked(t.Context(), c.lane, c.ids); !errors.Is(err, c.want) {
			t.Errorf("discarding %v of lane %d: %v, want %v", c.ids, c.lane, err, c.want)
		}
	}
	if len(r.parked()) != 2 {
		t.Error("a refused discard took something")
	}
	if err := r.DiscardParked(t.Context(), 0, []uint64{parked[0].ID}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ParkedRecord(t.Context(), 0, parked[0].ID); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("a discarded record: %v", err)
	}
	// What is left is still there after a restart, by reference and in bytes.
	r.stop()
	r = p.up()
	if left := r.parked(); len(left) != 1 || left[0].ID != parked[1].ID {
		t.Errorf("after a restart: %+v", left)
	}
	if shown, err := r.ParkedRecord(t.Context(), 0, parked[1].ID); err != nil || string(shown.Value) != "worse" {
		t.Errorf("after a restart the record is %+v, %v", shown, err)
	}
	if s := r.sink("strict"); s.Parked != 2 {
		t.Errorf("how many were ever parked is %d", s.Parked)
	}
}

// TestABlockedSinkSaysAtWhichRecord, and waits there alone.
func TestABlockedSinkSaysAtWhichRecord(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	p.sinks += p.fileSink("strict", "") + "[sinks.strict.mapping]\nvalue = 'split(value, \"|\")[1]'\n"
	r := p.up()
	b.produce("clicks", 0, "a|1", "bad")
	r.awaitDelivered("files", 2)
	s := r.awaitSink("strict", "blocked")
	if !strings.Contains(s.LastError, "clicks/0@1") {
		t.Errorf("the sink shows as %+v", s)
	}
	i := slices.IndexFunc(r.batches()[0].Sinks, func(s admin.BatchSink) bool { return s.Name == "strict" })
	if got := r.batches()[0].Sinks[i]; got.State != "blocked" || got.Attempts == 0 || got.StartedAt == nil || got.DoneAt != nil || !strings.Contains(got.Error, "clicks/0@1") {
		t.Errorf("the batch shows it as %+v", got)
	}
	r.stop()
}

// TestGaps: what expired while nobody looked waits for an operator, and is recorded
// when it is passed.
func TestGaps(t *testing.T) {
	b := newBroker(t, 2, "clicks")
	p := newPlace(t, b, "clicks")
	r := p.up()
	b.produce("clicks", 0, numbers(0, 5)...)
	r.awaitDelivered("files", 5)
	if gaps := r.gaps(); gaps == nil || len(gaps) != 0 {
		t.Errorf("no gaps show as %v, want an empty list", gaps)
	}
	if _, err := r.SkipGap(t.Context(), "clicks", 0); !errors.Is(err, admin.ErrConflict) || !strings.Contains(err.Error(), "nothing to skip") {
		t.Errorf("skipping what does not wait: %v", err)
	}
	r.stop()
	b.produce("clicks", 0, numbers(5, 10)...)
	b.produce("clicks", 1, "other")
	b.expire("clicks", 0, 9)
	r = p.up() // the other partition is unhindered
	r.awaitDelivered("files", 6)
	gaps := r.gaps()
	if len(gaps) != 1 || !gaps[0].Pending || gaps[0].First != 5 || gaps[0].Last != 8 || gaps[0].At != nil || gaps[0].Reason != "expired" {
		t.Fatalf("the gap that waits: %+v", gaps)
	}
	gap, err := r.SkipGap(t.Context(), "clicks", 0)
	if err != nil || gap.First != 5 || gap.Last != 8 || gap.Reason != "expired" || gap.Pending {
		t.Fatalf("skipping gave %+v, %v", gap, err)
	}
	r.awaitDelivered("files", 12)
	passed := []admin.Gap{{Topic: "clicks", Partition: 0, First: 5, Last: 8, Reason: "expired"}}
	r.stop()
	r = p.up()
	got := r.gaps()
	if len(got) == 1 && got[0].At != nil {
		got[0].At = nil
	}
	if diff := cmp.Diff(passed, got); diff != "" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}
}

// TestWhenAllPartitionsWaitTheNodeIsNotReady.
func TestWhenAllPartitionsWaitTheNodeIsNotReady(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	r := p.up()
	b.produce("clicks", 0, "a")
	r.awaitDelivered("files", 1)
	r.stop()
	b.produce("clicks", 0, numbers(0, 5)...)
	b.expire("clicks", 0, 3)
	r = p.start()
	await(t, "the reason", func() bool {
		reasons := r.Ready()
		return len(reasons) == 1 && strings.Contains(reasons[0], "gaps list")
	}, func() any { return r.Ready() })
}

func TestReasonsAgainstBeingReady(t *testing.T) {
	p := newPlace(t, nil, "clicks")
	r := p.start()
	await(t, "the broker to be missed", func() bool {
		reasons := r.Ready()
		return len(reasons) == 1 && strings.Contains(reasons[0], "127.0.0.1:1")
	}, func() any { return r.Ready() })
	if s := r.Status(); s.Ready || len(s.Reasons) != 1 {
		t.Errorf("the status says %+v", s)
	}
	r.stop()

	b := newBroker(t, 1, "clicks")
	p = newPlace(t, b, "clicks", "missing")
	r = p.start()
	await(t, "the topic to be missed", func() bool {
		reasons := r.Ready()
		return len(reasons) == 1 && strings.Contains(reasons[0], "missing")
	}, func() any { return r.Ready() })
	r.stop()
}

// TestARebalanceIsNoReason: once a member, the leader counts as ready while it joins again.
func TestARebalanceIsNoReason(t *testing.T) {
	l := &lead{}
	if got := l.ready(receiver.Status{}); len(got) != 1 || got[0] != "the consumer group is being joined" {
		t.Errorf("before the first join: %q", got)
	}
	if got := l.ready(receiver.Status{Joined: true}); len(got) != 0 {
		t.Errorf("joined: %q", got)
	}
	if got := l.ready(receiver.Status{}); len(got) != 0 {
		t.Errorf("joining again: %q", got)
	}
	if got := l.ready(receiver.Status{Problem: "fenced"}); len(got) != 1 || got[0] != "fenced" {
		t.Errorf("with a problem: %q", got)
	}
}

// TestANodeThatHasNoLogYetSaysSo to whoever asks or wants to change something.
func TestANodeThatHasNoLogYetSaysSo(t *testing.T) {
	p := newPlace(t, nil, "clicks")
	n := newNode(Options{Config: p.config(), Logger: discard(), Stdout: p.stdout}, p.machine)
	s := n.Status()
	if s.Ready || s.Gateway != "forebay" || s.Lanes == nil || len(s.Lanes) != 0 || s.LogID != "" {
		t.Errorf("the status says %+v", s)
	}
	// An empty list would say that nothing waits, which nobody knows yet.
	_, list := n.Parked()
	_, gaps := n.Gaps()
	_, batches := n.Batches(0, 0, 1)
	_, parked := n.ParkedRecord(t.Context(), 0, 1)
	_, gap := n.SkipGap(t.Context(), "clicks", 0)
	for what, err := range map[string]error{
		"parked list": list, "gaps list": gaps, "batches": batches, "parked show": parked, "gaps skip": gap,
		"sinks pause": n.PauseSink(t.Context(), "files", true), "sinks remove": n.RemoveSink(t.Context(), "files", batchID(1)),
		"parked discard": n.DiscardParked(t.Context(), 0, []uint64{1}),
	} {
		if !errors.Is(err, admin.ErrNotLeader) {
			t.Errorf("%s: %v, want ErrNotLeader", what, err)
		}
	}
	if text := n.Config(); !strings.Contains(text, "[sinks.files.file]") {
		t.Errorf("the configuration shows as:\n%s", text)
	}
}
