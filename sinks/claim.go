package sinks

import (
	"fmt"

	"forebay/internal/record"
)

// CheckHeld refuses, permanently, a destination that holds a batch which this log has not cut:
// the next one of that number would be taken for delivered, and be lost. wayOut says what
// else the operator can do than to bring the newer data directory back.
func (id Identity) CheckHeld(seq uint64, wayOut string) error {
	if seq <= id.Newest.Seq {
		return nil
	}
	return Permanent(fmt.Errorf("%w: it holds batch %v, and the last that this log has cut is %v: the data directory is older than what it delivered; "+
		"bring the newer one back, or %s", ErrAhead, record.BatchID{Lane: id.Lane, Seq: seq}, id.Newest, wayOut))
}

// CheckBatch refuses, permanently, a batch that does not belong to the identity
// that the sink was opened with: it would be a mistake of the node, never of the operator.
func (id Identity) CheckBatch(b *record.Batch) error {
	switch {
	case b.Gateway != id.Gateway || b.LogID != id.LogID:
		return Permanent(fmt.Errorf("batch %v of gateway %q, log %s: %w: opened for gateway %q, log %s",
			b.ID, b.Gateway, b.LogID, ErrForeign, id.Gateway, id.LogID))
	case b.ID.Lane != id.Lane || b.ID.Seq == 0:
		return Permanent(fmt.Errorf("batch %v came to the sink of lane %d", b.ID, id.Lane))
	case b.Term < id.Term:
		return Permanent(fmt.Errorf("batch %v of term %d: %w: term %d", b.ID, b.Term, ErrFenced, id.Term))
	case b.Term > id.Term:
		return Permanent(fmt.Errorf("batch %v of term %d came to a sink opened for term %d", b.ID, b.Term, id.Term))
	}
	return nil
}
