package node

import (
	"context"
	"errors"
	"testing"

	"forebay/internal/admin"
	"forebay/internal/record"
)

// TestALostBatchIsNotShownAsDelivered: an at-most-once sink's cursor moves before
// the write, and a write that fails after that is lost, for everyone who looks.
func TestALostBatchIsNotShownAsDelivered(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	p.sinks = p.fileSink("files", `delivery = "at-most-once"`)
	p.with(&fakeSink{name: "files", deliver: func(_ context.Context, b record.Batch) error {
		if b.ID.Seq == 1 {
			return errors.New("the pipe broke")
		}
		return nil
	}})
	r := p.up()
	b.produce("clicks", 0, "a")
	shown := func() admin.BatchSink {
		for _, b := range r.batches() {
			if b.Seq == 1 && len(b.Sinks) == 1 {
				return b.Sinks[0]
			}
		}
		return admin.BatchSink{}
	}
	await(t, "the batch to be shown as lost", func() bool { return shown().State == "lost" }, func() any { return shown() })
	if s := shown(); s.Error != "the pipe broke" || s.DoneAt != nil {
		t.Errorf("the lost batch shows as %+v", s)
	}
}
