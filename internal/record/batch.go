package record

import "context"

// Batch is one batch as a sink sees it: already routed to the sink's topics,
// and without the records that are recorded as left out.
type Batch struct {
	ID BatchID
	// Gateway and LogID identify the log that the batch belongs to: LogID is
	// random, made when the log is formed, so that batch 1 of a log that was
	// wiped is not taken for batch 1 of the new one.
	Gateway, LogID string
	// Term is the leader's term, which fences: a destination that has seen a
	// higher term of the same LogID refuses a lower one.
	Term uint64
	// CutAt is the time of the cut in Unix milliseconds.
	CutAt int64
	// Read streams the records in the order of the log. The record and its
	// slices are valid only during the call of fn. It may be called any number
	// of times, one at a time, and gives the same records each time, in bounded memory. An error
	// of fn ends the reading and is returned as it is.
	Read func(ctx context.Context, fn func(*Record) error) error
}
