package batcher

import (
	"errors"
	"fmt"

	"forebay/internal/record"
)

// ErrUnknownSink says that no sink of that name is configured.
var ErrUnknownSink = errors.New("no such sink")

// errGone ends the delivery to a sink that an operator removed meanwhile.
var errGone = errors.New("the sink was removed")

// BlockedError stops a sink at a record that it cannot take. A sink gets it from
// settle and returns it, wrapped or not.
type BlockedError struct {
	Batch record.BatchID
	// First is the first of Count refused records.
	First record.Refusal
	Count int
	// Cause says why the policy did not help; nil when the policy is to block.
	Cause error
}

func (e *BlockedError) Error() string {
	text := fmt.Sprintf("record %s/%d@%d of batch %s was refused: %s",
		e.First.Topic, e.First.Partition, e.First.Offset, e.Batch, e.First.Reason)
	if e.Count > 1 {
		text += fmt.Sprintf(" (and %d more)", e.Count-1)
	}
	if e.Cause != nil {
		text += fmt.Sprintf("; it could not be left out: %v", e.Cause)
	}
	return text
}

func (e *BlockedError) Unwrap() error { return e.Cause }

// PanicError is a panic in a sink's code, taken as a permanent failure of that
// sink: what it held when it panicked is not known.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("the sink's code panicked: %v", e.Value) }

// Permanent stops the sink until an operator resumes it.
func (e *PanicError) Permanent() bool { return true }

// brokenContractError is a sink that says success after settle said no.
type brokenContractError struct{ settle error }

func (e *brokenContractError) Error() string {
	return fmt.Sprintf("the sink reports a batch as durable although it was told not to make it so: %v", e.settle)
}

func (e *brokenContractError) Permanent() bool { return true }

func isPermanent(err error) bool {
	var p permanent
	return errors.As(err, &p) && p.Permanent()
}
