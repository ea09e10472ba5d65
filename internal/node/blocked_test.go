package node

import (
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"forebay/internal/admin"
	"forebay/internal/record"
)

// TestARecordThatCannotBeKeptWaitsForAnOperator: it is listed among the gaps, a node
// all of whose partitions wait is not ready, and a skip passes that record alone.
func TestARecordThatCannotBeKeptWaitsForAnOperator(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	r := p.up()
	b.produce("clicks", 0, numbers(0, 3)...)
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.k.ListenAddrs()...), kgo.ProducerBatchMaxBytes(16<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	beyond := &kgo.Record{Topic: "clicks", Headers: make([]kgo.RecordHeader, record.MaxHeaders+1)}
	if err := cl.ProduceSync(t.Context(), beyond).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b.produce("clicks", 0, numbers(3, 2)...)
	await(t, "the gap that waits", func() bool { return len(r.gaps()) == 1 })
	if g := r.gaps()[0]; !g.Pending || g.First != 3 || g.Last != 3 || g.Reason != "unkeepable" || g.At != nil {
		t.Errorf("the gap that waits: %+v", g)
	}
	if why := r.Ready(); len(why) != 1 || !strings.Contains(why[0], "gaps list") {
		t.Errorf("ready says %q", why)
	}
	var gap admin.Gap
	await(t, "the skip", func() bool {
		gap, err = r.SkipGap(t.Context(), "clicks", 0)
		return !errors.Is(err, admin.ErrConflict)
	})
	if err != nil || gap.First != 3 || gap.Last != 3 || gap.Reason != "skipped" || gap.Pending {
		t.Fatalf("skipping gave %+v, %v", gap, err)
	}
	r.awaitDelivered("files", 5)
	if gaps := r.gaps(); len(gaps) != 1 || gaps[0].Pending || gaps[0].Reason != "skipped" {
		t.Errorf("recorded: %+v", gaps)
	}
}
