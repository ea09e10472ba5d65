// Package sinks holds the contract between Forebay and a destination, for those
// who implement one, and the pieces that several of them share. Each sink is a
// folder below; sinktest is the suite that all must pass.
//
// # What a sink is given
//
// Batches of one lane come in order, one at a time, and each comes again until
// Deliver has returned nil and that fact (the done) is in the log. So a sink sees
// a batch again after: an error of its own, a timeout, a crash of the process at
// any moment (between becoming durable and the done included), a new leader on
// another node while the old one has not noticed. A batch that comes again has the same
// ID, Gateway and LogID, and the same records in the same order, less those that
// a settled refusal left out; mapping, format and routing may have been changed by the operator between the two.
//
// # What a sink promises
//
//   - Deliver returns nil only when the batch would survive a power cut of the
//     destination, as far as the destination can promise that: files and their
//     directory entries synced, a transaction committed with full durability, a
//     write acknowledged by a quorum.
//   - Exactly-once, one of: a name that says it all (a file or object named by
//     batch, that is never written again once it is there), or a ledger (the batch's
//     number stored in the same transaction as its records). The key is (Gateway, LogID, lane, sequence). A
//     sink that has neither returns AtLeastOnce as its best guarantee and configuration refuses more.
//   - Fencing, where the destination can check it: a lower Term of the same LogID
//     is refused with a permanent error.
//   - A batch without records for the sink leaves no trace but the ledger's, if any.
//   - Memory stays bounded whatever the size of the batch: stream.
//
// # Errors
//
//   - An ordinary error is temporary: the batcher backs off and delivers the same
//     batch again, for as long as it takes.
//   - Permanent marks what retrying cannot cure for the whole sink: wrong credentials, a
//     missing table that may not be made, a fenced term, a foreign ledger. The sink stops and says so; other sinks go on.
//   - A record that the destination cannot take is no error of Deliver: it is
//     collected and reported through settle; the operator's policy (block, park, drop) decides. With block,
//     settle returns an error, which Deliver returns as it is after undoing its attempt.
//
// # Lifecycle and concurrency
//
// New (of each sink's package) checks its settings and touches nothing outside the process. Open
// claims the destination: it is called once, before the first Deliver of a term, and
// again after Close. Deliver, Advanced and Close are called from one goroutine at a time per
// lane. Every call returns soon after its context ends.
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
	return [...]string{"unknown", "at-most-once", "at-least-once", "exactly-once"}[g]
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
}

// Settle records the refusals of an attempt by the operator's policy. Nil means
// that they are durable in the log and the batch may be made durable without them.
type Settle = func(ctx context.Context, refused []record.Refusal) error

// Sink is a destination. See the package comment for the rules.
type Sink interface {
	// Open claims the destination for an identity: it makes what is missing,
	// removes what a crash left behind, and refuses a destination that belongs to another gateway, log or sink.
	Open(ctx context.Context, id Identity) error
	// Deliver makes one batch durable: read the batch, prepare, settle, make durable.
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
