package state

import (
	"encoding/hex"
	"fmt"

	"forebay/internal/record"
)

// LogID names a log for ever: it is random, made when the lane is formed.
type LogID [16]byte

// String gives 32 hexadecimal digits.
func (id LogID) String() string { return hex.EncodeToString(id[:]) }

// State is a lane's replicated state. The zero value is not usable: see [New]
// and [Unmarshal].
type State struct {
	formed  bool
	form    Form
	term    uint64
	clock   int64
	applied uint64

	topics map[string]*topic
	open   openBatch
	// large are the unfinished large blocks, by their first index. Each
	// partition is in at most one of them.
	large []*largeBlock

	// batches are those from lastSeq-len(batches)+1 to lastSeq: all that were
	// cut and not released.
	batches   []batch
	lastSeq   uint64
	lastCutAt int64
	// ranges counts the ranges of all batches. At least the first stripped
	// batches have none.
	ranges, stripped int

	sinks  []*sink // by name
	parked parkedRecords

	gaps          []record.Gap
	gapsForgotten uint64
	changes       []TopicReplaced
	dropped       []DroppedRecord
	values        map[string]string
	scratch       []*partition // of the block being applied
}

// New gives the state of a lane before its first entry.
func New() *State {
	return &State{topics: map[string]*topic{}, values: map[string]string{}}
}

// Outcome is what an entry came to, the same on every node.
type Outcome struct {
	// Err is nil for an entry that was accepted. Otherwise it wraps
	// record.ErrRefused, with the reason in words, or record.ErrNothingToCut:
	// the entry changed nothing; or it is a *FatalError.
	Err error
	// Seq is the number of the batch that a Cut ended.
	Seq uint64
}

// FatalError is the outcome of an entry that this version cannot read, or that
// comes out of order: a node that went on would differ from its peers, so it
// must stop. The state is as it was before the entry.
type FatalError struct {
	Index uint64
	Err   error
}

func (e *FatalError) Error() string {
	return fmt.Sprintf("entry %d of the log cannot be applied: %v", e.Index, e.Err)
}

func (e *FatalError) Unwrap() error { return e.Err }

// maxTime is the end of the year 9999 in Unix milliseconds: a clock beyond it
// is broken, and would push every later time after it.
const maxTime = 253402300799999

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %s", record.ErrRefused, fmt.Sprintf(format, args...))
}

// Apply takes the entry at an index of the log into the state. Indexes grow;
// those between belong to Raft itself. Nothing of entry is kept.
func (s *State) Apply(index uint64, entry []byte) Outcome {
	if index <= s.applied {
		return Outcome{Err: &FatalError{index, fmt.Errorf("entry %d was applied before", s.applied)}}
	}
	if len(entry) > 0 && isBlock(entry) {
		sum, err := record.ParseSummary(entry)
		if err != nil {
			return Outcome{Err: &FatalError{index, err}}
		}
		s.applied = index
		return Outcome{Err: s.applyBlock(index, &sum)}
	}
	e, err := Decode(entry)
	if err != nil {
		return Outcome{Err: &FatalError{index, err}}
	}
	s.applied = index
	if cut, ok := e.(Cut); ok {
		seq, err := s.applyCut(index, cut)
		return Outcome{Err: err, Seq: seq}
	}
	return Outcome{Err: s.applyEntry(index, e)}
}

func (s *State) applyEntry(index uint64, e any) error {
	form, isForm := e.(Form)
	if isForm {
		return s.applyForm(form)
	}
	if !s.formed {
		return errNotFormed()
	}
	switch e := e.(type) {
	case Begin:
		return s.applyBegin(e)
	case Bases:
		return s.applyBases(e)
	case Advance:
		return s.applyAdvance(e)
	case TopicChange:
		return s.applyTopicChange(index, e)
	case SinkAdd:
		return s.applySinkAdd(e)
	case SinkRemove:
		return s.applySinkRemove(e)
	case SinkPause:
		return s.applySinkPause(e)
	case Done:
		return s.applyDone(e)
	case Refuse:
		return s.applyRefuse(e)
	case Copy:
		return s.applyCopy(index, e)
	case Discard:
		return s.applyDiscard(e)
	case Release:
		return s.applyRelease(e)
	case Set:
		return s.applySet(e)
	case Void:
		return s.applyVoid(index, e)
	}
	panic(fmt.Sprintf("state: %T is decoded but not applied", e))
}

func errNotFormed() error { return refused("the lane is not formed") }

// checkTime refuses what no sane clock says.
func checkTime(at int64) error {
	if at < 0 || at > maxTime {
		return refused("a clock that says %d ms is broken", at)
	}
	return nil
}

// tick takes the leader's clock from an accepted entry.
func (s *State) tick(at int64) { s.clock = max(s.clock, at) }

func (s *State) checkTerm(term uint64) error {
	if term != s.term {
		return refused("it is of term %d, the term is %d", term, s.term)
	}
	return nil
}

func (s *State) applyForm(e Form) error {
	if s.formed {
		return refused("the lane is formed already, as log %s", s.form.LogID)
	}
	if e.Gateway == "" || e.Node == "" || e.Lane >= e.Lanes || e.LogID == (LogID{}) {
		return refused("a lane needs a gateway, a node, a log id, and a number below that of lanes (lane %d of %d)", e.Lane, e.Lanes)
	}
	if err := checkTime(e.At); err != nil {
		return err
	}
	s.formed, s.form = true, e
	s.tick(e.At)
	return nil
}

func (s *State) applyBegin(e Begin) error {
	if e.Term <= s.term {
		return refused("term %d does not follow term %d", e.Term, s.term)
	}
	if err := checkTime(e.At); err != nil {
		return err
	}
	s.term = e.Term
	for len(s.large) > 0 {
		s.void(s.large[0])
	}
	s.parked.voidCopies()
	s.tick(e.At)
	return nil
}

func (s *State) applySet(e Set) error {
	if e.Key == "" || len(e.Key) > MaxKey || len(e.Value) > MaxValue {
		return refused("a key has 1 to %d bytes and a value up to %d; these have %d and %d",
			MaxKey, MaxValue, len(e.Key), len(e.Value))
	}
	if e.Value == "" {
		delete(s.values, e.Key)
		return nil
	}
	if _, known := s.values[e.Key]; !known && len(s.values) >= MaxValues {
		return refused("there are %d values already", len(s.values))
	}
	s.values[e.Key] = e.Value
	return nil
}
