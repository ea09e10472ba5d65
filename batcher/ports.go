package batcher

import (
	"context"

	"forebay/internal/record"
)

// Log is what the batcher needs of the lane that it cuts and delivers. It is
// bound to one term of the lead: when that is over, everything returns
// record.ErrLeadLost. All methods are safe for concurrent use.
type Log interface {
	// Changed gives a channel that is closed when anything that the methods
	// below tell may have changed: blocks accepted, cuts, dones, pauses.
	Changed() <-chan struct{}
	// Open tells what has been accepted since the last cut.
	Open() record.OpenBatch
	// Held says why the intake is held for want of room, "" when it is open, and
	// gives a channel that is closed when that changes.
	Held() (reason string, changed <-chan struct{})
	// LastSeq is the newest batch that was cut, 0 before the first; FirstSeq
	// the oldest that the log still has (LastSeq+1 when none).
	LastSeq() uint64
	FirstSeq() uint64
	// Batch describes a batch that was cut and not yet released.
	Batch(seq uint64) (record.BatchInfo, bool)
	// Sink tells a sink's cursor.
	Sink(name string) (record.SinkState, bool)
	// Cut ends the open batch as number seq, with the leader's clock in Unix
	// milliseconds. record.ErrNothingToCut and record.ErrRefused change nothing.
	Cut(ctx context.Context, seq uint64, at int64) error
	// Done moves a sink's cursor past a batch; it returns when that is durable.
	Done(ctx context.Context, done record.Done) error
	// Refuse records which records are left out of a batch for a sink, parked
	// or dropped; it returns when that is durable. There may be any number of
	// them: after an error some may be recorded. An error while ctx lasts,
	// other than record.ErrLeadLost, says why they cannot be left out (no room to park).
	Refuse(ctx context.Context, sink string, seq uint64, drop bool, refusals []record.Refusal) error
	// Excluded lists what recorded refusals leave out of the batch that the
	// sink's cursor stands at.
	Excluded(sink string, seq uint64) []record.RecordID
	// Read streams a batch. Topics that want refuses are skipped unread (nil
	// wants all). Any number of readers may read at once. It holds no lock
	// while fn runs: fn may be slow, and may panic.
	Read(ctx context.Context, seq uint64, want func(topic string) bool, fn func(*record.Record) error) error
}

// Sink is one destination as the batcher drives it; package sinks states the
// whole contract.
type Sink interface {
	// Deliver makes a batch durable. Before anything of it is durable it calls
	// settle once, with the records that it will leave out (none is usual);
	// when settle fails it must undo its attempt and return that error.
	Deliver(ctx context.Context, b record.Batch, settle func(ctx context.Context, refused []record.Refusal) error) error
}

// Advancer is implemented by sinks that keep or prune something as the
// cursor moves. Advanced is called after a done, before the next delivery: next
// is the batch that the sink needs next, oldest the oldest that may ever come again.
type Advancer interface {
	Advanced(ctx context.Context, next, oldest record.BatchID) error
}

// permanent is implemented by errors that retrying cannot cure: the sink stops
// until an operator resumes it or the program is started again.
type permanent interface {
	error
	Permanent() bool
}
