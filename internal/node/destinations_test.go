package node

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	"forebay/internal/admin"
	"forebay/internal/record"
	"forebay/sinks"
)

// TestAnExactlyOnceSinkKeepsItsDestination: batches that the old one has would be
// missing in the new one.
func TestAnExactlyOnceSinkKeepsItsDestination(t *testing.T) {
	p := newPlace(t, nil, "clicks")
	r := p.start()
	r.awaitLead()
	r.stop()
	before, after := p.path("files"), p.path("elsewhere")
	p.sinks = strings.ReplaceAll(p.sinks, before, after)
	_ = p.mustFail("sink files", "file:"+before, "is now file:"+after, "a new sink name", "or set the old destination again")
	if _, err := os.Stat(after); !errors.Is(err, os.ErrNotExist) {
		t.Error("the new destination was touched")
	}
	// Who asked for less may move.
	p.sinks = strings.Replace(p.sinks, "[sinks.files]", "[sinks.files]\ndelivery = \"at-least-once\"", 1)
	p.start().awaitLead()
}

// TestADestinationOfAnotherStopsTheStart, whoever the other is.
func TestADestinationOfAnotherStopsTheStart(t *testing.T) {
	mine := func(t *testing.T) *place {
		t.Helper()
		p := newPlace(t, nil, "clicks")
		r := p.start()
		r.awaitLead()
		r.stop()
		return p
	}
	for name, c := range map[string]struct {
		change func(p *place) error
		words  string
	}{
		"another gateway": {func(p *place) error {
			p.node = `gateway = "other"`
			return os.RemoveAll(p.path("data"))
		}, `it is of gateway "forebay", and this is gateway "other"`},
		"another log": {func(p *place) error { return os.RemoveAll(p.path("data")) }, "either another gateway named \"forebay\" delivers into it, perhaps now, or this one's data directory was made anew"},
		"another sink": {func(p *place) error {
			p.sinks = strings.ReplaceAll(p.sinks, "sinks.files", "sinks.others")
			return nil
		}, `it is of sink "files", and this is sink "others"`},
		"a log that is ahead": {func(p *place) error {
			return os.WriteFile(p.path("files/cursor-0"), []byte("0-00000000000000000007\n"), 0o600)
		}, sinks.ErrAhead.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			p := mine(t)
			if err := c.change(p); err != nil {
				t.Fatal(err)
			}
			_ = p.mustFail("sink ", p.path("files"), c.words)
		})
	}
}

// TestTwoDestinationsOfOthersAreBothSaid, in the order of their names.
func TestTwoDestinationsOfOthersAreBothSaid(t *testing.T) {
	p := newPlace(t, nil, "clicks")
	p.sinks = p.fileSink("b", "") + p.fileSink("a", "")
	for _, name := range []string{"a", "b"} {
		p.with(&fakeSink{name: name, open: func(context.Context, sinks.Identity) error { return sinks.Permanent(sinks.ErrForeign) }})
	}
	if err := p.mustFail(); err.Error() != "sink a: "+sinks.ErrForeign.Error()+"; sink b: "+sinks.ErrForeign.Error() {
		t.Errorf("got %q", err)
	}
}

// TestADeadDestinationHoldsNobodyBack: the start goes on, the others deliver, and
// the dead one gets all when it is back.
func TestADeadDestinationHoldsNobodyBack(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	if err := os.WriteFile(p.path("dead"), []byte("a file where a directory is wanted"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.sinks += p.fileSink("dead", "")
	p.sinks = strings.Replace(p.sinks, "[sinks.dead]", "[sinks.dead]\nbackoff = { initial = \"10ms\", max = \"20ms\" }", 1)
	r := p.up()
	b.produce("clicks", 0, numbers(0, 20)...)
	r.awaitDelivered("files", 20)
	s := r.awaitSink("dead", "retrying")
	if s.Retries == 0 || !strings.Contains(s.LastError, p.path("dead")) || s.Cursor != batchID(1).String() {
		t.Errorf("the dead sink shows as %+v", s)
	}
	if active := r.lane0().Batches.Active; active == 0 {
		t.Error("no batch is active although a sink waits for all")
	}
	if err := os.Remove(p.path("dead")); err != nil {
		t.Fatal(err)
	}
	r.awaitDelivered("dead", 20)
	r.stop()
	p.wantValues("files", numbers(0, 20))
	p.wantValues("dead", numbers(0, 20))
}

// TestDestinationsAreLookedAtWithTheirOwnBatch: lane, sequence and term are the sink's.
func TestDestinationsAreLookedAtWithTheirOwnBatch(t *testing.T) {
	p := newPlace(t, nil, "clicks")
	seen := make(chan sinks.Identity, 100)
	p.with(&fakeSink{name: "files", open: func(_ context.Context, id sinks.Identity) error {
		seen <- id
		return nil
	}})
	r := p.start()
	id := <-seen
	if id.Next != (record.BatchID{Lane: id.Lane, Seq: 1}) || id.Sink != "files" || id.Gateway != "forebay" || id.Node != "n1" || id.Term == 0 ||
		id.LogID != r.Status().LogID {
		t.Errorf("opened as %+v", id)
	}
}

// TestASinkDroppedFromTheConfigurationHoldsTheLog (HARD-CASES 28) until an operator
// removes it, who must have looked at what that gives up.
func TestASinkDroppedFromTheConfigurationHoldsTheLog(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	both := p.sinks + p.fileSink("old", "")
	p.sinks = both
	r := p.up()
	b.produce("clicks", 0, numbers(0, 10)...)
	r.awaitDelivered("old", 10)
	if err := r.RemoveSink(t.Context(), "old", batchID(2)); !errors.Is(err, admin.ErrConflict) || !strings.Contains(err.Error(), "take it out of the configuration") {
		t.Errorf("removing a configured sink: %v", err)
	}
	stands := r.awaitSink("old", "idle").Cursor
	r.stop()

	p.sinks = p.fileSink("files", "")
	r = p.up()
	b.produce("clicks", 0, numbers(10, 10)...)
	r.awaitDelivered("files", 20)
	old := r.sink("old")
	if old.Configured || old.Cursor != stands || old.State != "notConfigured" {
		t.Errorf("the dropped sink shows as %+v", old)
	}
	if newest := r.batches()[0]; len(newest.Sinks) != 2 || newest.Sinks[1].Name != "old" || newest.Sinks[1].State != "waiting" {
		t.Errorf("the newest batch does not wait for the dropped sink: %+v", newest)
	}
	if floor, last := r.lane0().Log.Floor, r.lane0().Log.Last; floor >= last {
		t.Errorf("the floor is %d of %d", floor, last)
	}
	at, err := record.ParseBatchID(stands)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		from  record.BatchID
		want  error
		words string
	}{
		{"none", at, admin.ErrNotFound, `no sink "none"; the log knows: files, old`},
		{"old", batchID(at.Seq + 1), admin.ErrConflict, "stands at batch " + stands},
		{"old", record.BatchID{Lane: 3, Seq: at.Seq}, admin.ErrNotFound, "no lane 3"},
	} {
		if err := r.RemoveSink(t.Context(), c.name, c.from); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("removing %s from %s: %v, want %v and %q", c.name, c.from, err, c.want, c.words)
		}
	}
	if err := r.RemoveSink(t.Context(), "old", at); err != nil {
		t.Fatal(err)
	}
	if left := r.lane0(); len(left.Sinks) != 1 || left.Batches.Active != 0 {
		t.Errorf("after the removal: %+v", left)
	}
	if len(r.logs.lines("sink removed by an operator", "gives_up_from="+stands)) != 1 {
		t.Error("the removal is not in the log")
	}
}

// TestANewSinkStartsAtTheOldestOrTheNewestBatch, as it is configured.
func TestANewSinkStartsAtTheOldestOrTheNewestBatch(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	r := p.up()
	b.produce("clicks", 0, numbers(0, 10)...)
	r.awaitDelivered("files", 10)
	r.stop()
	p.sinks += p.fileSink("all", `startFrom = "oldest"`) + p.fileSink("fresh", `startFrom = "newest"`)
	r = p.up()
	b.produce("clicks", 0, numbers(10, 5)...)
	r.awaitDelivered("all", 15)
	r.awaitDelivered("fresh", 5)
	r.stop()
	p.wantValues("all", numbers(0, 15))
	p.wantValues("fresh", numbers(10, 5))
}

// TestAPauseSurvivesARestart, and holds back only its own sink.
func TestAPauseSurvivesARestart(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	p.sinks += p.fileSink("late", "")
	r := p.up()
	if err := r.PauseSink(t.Context(), "late", true); err != nil {
		t.Fatal(err)
	}
	if err := r.PauseSink(t.Context(), "none", true); !errors.Is(err, admin.ErrNotFound) {
		t.Errorf("pausing a sink that is not there: %v", err)
	}
	r.awaitSink("late", "paused")
	b.produce("clicks", 0, numbers(0, 10)...)
	r.awaitDelivered("files", 10)
	r.stop()
	r = p.up()
	r.awaitSink("late", "paused")
	b.produce("clicks", 0, numbers(10, 10)...)
	r.awaitDelivered("files", 20)
	p.wantValues("late", nil)
	if err := r.PauseSink(t.Context(), "late", false); err != nil {
		t.Fatal(err)
	}
	r.awaitDelivered("late", 20)
	r.stop()
	p.wantValues("late", numbers(0, 20))
}
