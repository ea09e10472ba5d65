// Package sinktest is the suite that every sink passes. A sink's own test makes
// a [Harness] around it and calls [Run]; what the suite cannot ask of the sink, the harness says.
//
// Each case gets a destination of its own. Sink values come and go over it
// as processes, nodes and terms would; what counts is what a consumer of the destination sees in the end.
package sinktest

import (
	"errors"
	"testing"

	"forebay/internal/record"
	"forebay/sinks"
)

// Harness is one empty destination, and what the suite must know of its sink.
type Harness struct {
	// Make gives a new, unopened sink over the destination, as a fresh process
	// would have it. Variant 0 is the usual settings; each other one differs in what an operator may
	// change between two attempts: format, compression, mapping, encoding.
	Make func(t testing.TB, variant int) sinks.Sink
	// Variants is how many there are, at least 1.
	Variants int
	// Read gives what a consumer sees, in the order in which it sees it.
	Read func(t testing.TB) []Seen
	// Leftovers names what lies in the destination that is neither a batch nor
	// the sink's bookkeeping, such as temporary files. Nil when there can be none.
	Leftovers func(t testing.TB) []string

	// Points are the moments of Deliver, in order, at which a fault can be injected
	// when a batch with records is delivered for the first time.
	Points []Point
	// Inject arms one fault for the next time that its point is reached, in
	// whatever sink value reaches it.
	Inject func(f *Fault)

	// Keeps cuts a record down to what can be read back, such as a record without
	// headers where the destination has no column for them. Nil keeps everything.
	Keeps func(r *record.Record)
	// Refused changes a record into one that the sink refuses in every variant. Nil when
	// the sink takes everything.
	Refused func(r *record.Record)
	// Takes tells whether a record is taken, as it is, by variant 0; one that is not must be
	// refused by name. Nil takes everything.
	Takes func(r *record.Record) bool

	// OneLane tells that the destination is for one lane alone.
	OneLane bool
	// Fences tells that a lower term is refused once a higher one was opened.
	Fences bool
	// Unclaimed tells that the destination keeps no identity (a pipe), so that a foreign one cannot be refused.
	Unclaimed bool
	// MemoryBytes bounds the growth of the heap while a batch of 200 MB is
	// delivered; 0 takes 64 MiB.
	MemoryBytes uint64
}

// Seen is one batch as a consumer sees it. A sink that does not say which batch a
// record came in gives all records in one Seen without an ID.
type Seen struct {
	ID      record.BatchID
	Records []record.Record
}

// Point is a moment between two steps of Deliver.
type Point struct {
	// Name says which step comes next.
	Name string
	// Durable tells that the batch is durable when the point is reached.
	Durable bool
}

// Kind is what happens at a point.
type Kind uint8

// Kinds of faults.
const (
	// Fail makes the next step fail with ErrInjected, without an effect.
	Fail Kind = iota + 1
	// Hang makes the next step wait until its context ends, if it takes one, or
	// until Release is closed, and then fail, without an effect.
	Hang
	// Crash ends the process there: nothing that the sink value does from then on reaches
	// the destination, and everything fails with ErrCrashed. The suite
	// abandons the value without Close and makes another, with which the harness must be alive again.
	Crash
)

// String names a kind in the names of tests.
func (k Kind) String() string {
	return [...]string{"none", "fail", "hang", "crash"}[k]
}

// Fault is one fault at one point, armed once.
type Fault struct {
	Point string
	Kind  Kind
	// Reached is to be closed by the harness when the fault happens.
	Reached chan struct{}
	// Release is closed by the suite when a hung step may go on.
	Release chan struct{}
}

// ErrInjected is what a step fails with.
var ErrInjected = errors.New("injected fault")

// ErrCrashed is what everything fails with after a Crash, until the next Make.
var ErrCrashed = errors.New("the process is gone")
