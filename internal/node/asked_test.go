package node

import (
	"context"
	"sync"
	"testing"
	"time"
)

// TestAskingGoesOnThroughStartAndStop: whatever the node is at, a question or a change
// is answered, soon and without a panic, and keeps nothing from ending.
func TestAskingGoesOnThroughStartAndStop(t *testing.T) {
	b := newBroker(t, 2, "clicks")
	p := newPlace(t, b, "clicks")
	p.sinks += p.fileSink("other", "")
	const rounds = 4
	for round := range rounds {
		r := p.start()
		var asking sync.WaitGroup
		for _, ask := range []func(context.Context){
			func(context.Context) { _ = r.Status() },
			func(context.Context) { _ = r.batches() },
			func(context.Context) { _, _ = r.parked(), r.gaps() },
			func(ctx context.Context) { _ = r.PauseSink(ctx, "other", true) },
			func(ctx context.Context) { _ = r.PauseSink(ctx, "other", false) },
			func(ctx context.Context) { _ = r.RemoveSink(ctx, "other", batchID(1)) },
			func(ctx context.Context) { _ = r.DiscardParked(ctx, 0, []uint64{1}) },
			func(ctx context.Context) { _, _ = r.ParkedRecord(ctx, 0, 1) },
			func(ctx context.Context) { _, _ = r.SkipGap(ctx, "clicks", 0) },
		} {
			asking.Go(func() {
				for over := false; !over; {
					select {
					case <-r.ended:
						over = true // once more, of a node that has ended
					default:
					}
					began := time.Now()
					ask(t.Context())
					if took := time.Since(began); took > patience/2 {
						t.Errorf("an answer took %s", took)
					}
				}
			})
		}
		if round != 0 { // the first is stopped while it starts
			await(t, "the node to be ready", func() bool { return len(r.Ready()) == 0 })
			b.produce("clicks", int32(round%2), numbers(round*20, 20)...)
			r.awaitDelivered("files", int64(20*round))
		}
		r.stop()
		asking.Wait()
	}
	p.wantValues("files", numbers(20, 20*(rounds-1)))
	r := p.up()
	if err := r.PauseSink(t.Context(), "other", false); err != nil {
		t.Fatal(err)
	}
	r.awaitDelivered("other", 20*(rounds-1))
	r.stop()
	p.wantValues("other", numbers(20, 20*(rounds-1)))
}
