// Package sinks holds the contract between Forebay and a destination, for those
// who implement one, and the pieces that several of them share. Each sink is a
// folder below; sinktest is the suite that all must pass.
//
// # What a sink is given
//
// A Sink value serves one lane: the node makes one for each lane and each sink
// of its configuration. The lane's batches come in order, one at a time, and each comes
// again until Deliver has returned nil and that fact (the done) is in the log.
// So a sink sees a batch again after: an error of its own, a timeout, a crash
// of the process at any moment (between becoming durable and the done
// included), a new leader on another node while the old one has not noticed. A
// batch that comes again has the same ID, Gateway and LogID, and the same
// records in the same order, less those that a settled refusal left out;
// mapping, format and routing may have been changed by the operator between the
// two, so neither the presence of a record nor its form says that the batch is new.
//
// A batch is read as a stream, as often as the sink needs, and what is lent during the reading
// (the record, its slices, the row of a mapping) is the lender's again when the call returns.
//
// # What a sink promises
//
//   - Deliver returns nil only when the batch would survive a power cut of the
//     destination, as far as the destination can promise that: files and their
//     directory entries synced, a transaction committed with full durability, a
//     write acknowledged by a quorum.
//   - Exactly-once, in one of two ways: a name that says it all (a file or object
//     named by batch, never written again once it is there), or a ledger (the
//     batch's number stored in the same transaction as its records). The key is
//     (Gateway, LogID, lane, sequence). A sink that has neither returns
//     AtLeastOnce as its best guarantee, and configuration refuses more.
//   - Fencing, where the destination can check it: once a term was opened, a
//     lower one of the same LogID is refused with ErrFenced.
//   - A batch without records for the sink leaves no trace but the ledger's, if
//     any; it is delivered all the same.
//   - Memory stays bounded by the largest record, whatever the size of the batch.
//
// # One delivery, step by step
//
//  1. Is the batch there already, whatever its form? Then make sure that it is durable (the attempt
//     before may have died between writing and syncing) and return nil, without settling: what
//     that attempt left out was settled by it.
//  2. Read the batch through the mapping, and prepare it where no consumer looks:
//     a temporary file, an open transaction. Collect what the destination cannot take in Refusals.
//  3. Call settle, once, with the refusals, in order; none is usual, nil then. When settle fails, undo and return its
//     error as it is. After it returned nil, what was refused is recorded for
//     ever and left out of this batch by every later reading.
//  4. Make the batch durable and visible in one atomic step, fenced.
//
// # Errors
//
//   - An ordinary error is temporary: the batcher backs off and delivers the same
//     batch again, for as long as it takes. A full disk, a missing permission and a destination that is
//     down are of this kind: they are cured elsewhere, while the gateway runs.
//   - Permanent marks what retrying cannot cure for the whole sink: wrong
//     credentials, a missing table that may not be made, a fenced term, a foreign
//     destination. The sink stops and says so; other sinks go on.
//   - A record that the destination cannot take is no error of Deliver: it is
//     refused through settle, and the operator's policy (block, park, drop)
//     decides. With block, settle returns an error.
//
// Messages say what happened, where, and what the operator can do.
//
// # Lifecycle and concurrency
//
// New (of each sink's package) checks its settings and touches nothing outside
// the process. Open claims the destination for the lane: it is called once before the first
// Deliver of a term. Close may be followed by Open, of the same or a later term. A Sink value is used by
// one goroutine at a time; several values, of other lanes and of deposed terms, may be at
// work on one destination at once. Every call returns soon after its context
// ends, even when the destination hangs ([Stubborn]); what such a call leaves behind in the kernel has ended before the
// next one touches the destination.
package sinks

import (
	"context"
	"errors"

	"forebay/internal/record"
)

// Guarantee is how often a record can arrive.
type Guarantee uint8

// Guarantees, weakest first.
const (
	AtMostOnce Guarantee = iota + 1
	AtLeastOnce
	ExactlyOnce
)

// String gives the word used in configuration.
func (g Guarantee) String() string {
	switch g {
	case AtMostOnce:
		return "at-most-once"
	case AtLeastOnce:
		return "at-least-once"
	case ExactlyOnce:
		return "exactly-once"
	}
	return "unknown"
}

// ParseGuarantee reads the word used in configuration.
func ParseGuarantee(s string) (Guarantee, error) {
	for g := AtMostOnce; g <= ExactlyOnce; g++ {
		if g.String() == s {
			return g, nil
		}
	}
	return 0, errors.New(`want "at-most-once", "at-least-once" or "exactly-once"`)
}

// Identity says for whom a destination is claimed.
type Identity struct {
	Gateway string
	LogID   string
	Sink    string
	Node    string
	// Lane and Term are those of the leader that opens the sink.
	Lane uint32
	Term uint64
	// Next is the sink's cursor: everything below it is delivered.
	Next record.BatchID
	// Newest is the last batch that was cut, Seq 0 before the first: nothing above it can
	// have been delivered from this log.
	Newest record.BatchID
}

// Settle records the refusals of an attempt by the operator's policy. A nil
// return means that they are durable in the log and that the batch may be made durable
// without them. It keeps nothing of refused but its strings.
type Settle = func(ctx context.Context, refused []record.Refusal) error

// Sink is a destination. See the package comment for the rules.
type Sink interface {
	// Open claims the destination for an identity: it makes what is missing,
	// removes what a crash of this lane left behind, and refuses a destination that belongs
	// to another gateway, log or sink (ErrForeign), that a higher term holds
	// (ErrFenced), or that knows of more batches than the log does (ErrAhead).
	Open(ctx context.Context, id Identity) error
	// Deliver makes one batch durable: look, prepare, settle, make durable. Batches of a term other
	// than the opened one are refused.
	Deliver(ctx context.Context, b record.Batch, settle Settle) error
	// Close releases what Open took. It is safe after a failed Open.
	Close() error
	// Guarantee is the strongest delivery that the sink can do.
	Guarantee() Guarantee
	// Destination is a stable fingerprint of where the sink writes (no secrets,
	// no format): two sinks of one configuration must not have the same, and an
	// exactly-once sink keeps its own for life.
	Destination() string
}

// Advancer is an optional part of a Sink, called after each done and before the
// next delivery, with the batch that comes next and the oldest that may ever come again.
// An error is logged and costs nothing: the next call says all again.
type Advancer interface {
	Advanced(ctx context.Context, next, oldest record.BatchID) error
}

// Refusals of a whole destination. All are permanent.
var (
	// ErrForeign says that the destination belongs to another gateway, log or sink.
	ErrForeign = errors.New("the destination belongs to another")
	// ErrFenced says that a leader of a higher term holds the destination.
	ErrFenced = errors.New("a higher term holds the destination")
	// ErrAhead says that the destination holds batches which the log says were
	// never delivered, or never cut: the log is older than what it wrote, as after a restored backup.
	ErrAhead = errors.New("the destination is ahead of the log")
)

// ErrNotOpen is what Deliver and Advanced return outside Open and Close.
var ErrNotOpen = Permanent(errors.New("the sink is not open"))

// Permanent marks an error that retrying cannot cure.
func Permanent(err error) error { return &permanentError{err} }

// IsPermanent tells whether err, or one that it wraps, was marked by Permanent.
func IsPermanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

type permanentError struct{ err error }

func (e *permanentError) Error() string   { return e.err.Error() }
func (e *permanentError) Unwrap() error   { return e.err }
func (e *permanentError) Permanent() bool { return true }
