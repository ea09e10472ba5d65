package receiver

import (
	"context"

	"forebay/internal/record"
)

// Log is what the receiver needs of the lane that it feeds. It is bound to one
// term of the lead: when that is over, everything returns record.ErrLeadLost.
// All methods are safe for concurrent use.
type Log interface {
	// Append hands over a sealed block. It blocks while too much is in flight
	// or the intake is held, and returns early when ctx ends. After a nil return
	// settled is called exactly once, in the order of the Appends, from one
	// goroutine: nil means that the block is on disk on a majority and its
	// records are in the log; record.ErrRefused that they are not, and that its
	// partitions must be taken up again from their Position.
	Append(ctx context.Context, block []byte, settled func(error)) error
	// Position tells where the log wants a partition to go on.
	Position(topic string, partition int32) (record.Position, bool)
	// TopicID tells which incarnation of a topic the log holds.
	TopicID(topic string) (record.TopicID, bool)
	// Topics lists the topics that the log has positions of, sorted.
	Topics() []string
	// SetBases records first offsets; it must return before the first fetch.
	SetBases(ctx context.Context, bases []record.Base) error
	// Advance moves a next offset without records.
	Advance(ctx context.Context, a record.Advance) error
	// ReplaceTopic takes up a new incarnation of a topic, from 0. Suspect is the first
	// entry that may hold its records under the old one's id, 0 when that is not known.
	ReplaceTopic(ctx context.Context, c record.TopicChange, suspect uint64) error
	// Retired lists the incarnations of topics that the log has replaced. A broker that
	// still tells of one lags behind.
	Retired() []record.TopicID
	// AppliedIndex is the newest entry of the log that its state has taken in.
	AppliedIndex() uint64
	// Held says why the intake is held, "" when it is open, and a channel that
	// is closed when that changes.
	Held() (reason string, changed <-chan struct{})
}
