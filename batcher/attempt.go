package batcher

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"forebay/internal/record"
)

// maxReason bounds what a sink may say of one record, in bytes: it goes into the
// log, and into the replicated state.
const maxReason = 512

// attempt is one call of Deliver: what the sink reads and what it settles.
type attempt struct {
	*courier
	term context.Context //nolint:containedctx // an attempt lives within one call of deliver, whose context this is
	info record.BatchInfo
	// excluded are left out by what the log recorded before this attempt; left
	// are those of its own settle. The batch reads the same all through.
	excluded, left map[record.RecordID]struct{}
	blocked        *BlockedError
	settleErr      error // of the last settle
	done           bool  // the cursor was moved within settle
	ours           bool  // a panic came out of the log's code, not the sink's
	records, bytes int64 // of the last complete reading
}

// newAttempt asks the log afresh what is left out of the batch.
func newAttempt(ctx context.Context, c *courier, info record.BatchInfo) *attempt {
	a := &attempt{courier: c, term: ctx, info: info, left: map[record.RecordID]struct{}{}}
	if ids := c.log.Excluded(c.cfg.Name, info.ID.Seq); len(ids) > 0 {
		a.excluded = make(map[record.RecordID]struct{}, len(ids))
		for _, id := range ids {
			a.excluded[id] = struct{}{}
		}
	}
	return a
}

func (a *attempt) batch() record.Batch {
	return record.Batch{
		ID: a.info.ID, Gateway: a.b.cfg.Gateway, LogID: a.b.cfg.LogID, Term: a.b.cfg.Term,
		CutAt: a.info.CutAt, Read: a.read,
	}
}

// read is the batch's Read: routed by the log, less what is excluded.
func (a *attempt) read(ctx context.Context, fn func(*record.Record) error) error {
	var records, bytes int64
	inSink, returned := false, false
	defer func() { a.ours = a.ours || !returned && !inSink }()
	err := a.log.Read(ctx, a.info.ID.Seq, a.want, func(rec *record.Record) error {
		if len(a.excluded) > 0 {
			if _, out := a.excluded[idOf(rec)]; out {
				return nil
			}
		}
		records++
		bytes += sizeOf(rec)
		inSink = true
		err := fn(rec)
		inSink = false
		return err
	})
	returned = true
	if err == nil {
		a.records, a.bytes = records, bytes
	}
	return err
}

// settle is what the sink calls before anything of the batch is durable.
func (a *attempt) settle(ctx context.Context, refused []record.Refusal) error {
	returned := false
	defer func() { a.ours = a.ours || !returned }()
	a.settleErr = a.decide(ctx, refused)
	returned = true
	return a.settleErr
}

func (a *attempt) decide(ctx context.Context, refused []record.Refusal) error {
	if a.term.Err() != nil {
		return context.Cause(a.term)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if fresh := a.fresh(refused); len(fresh) > 0 {
		a.metrics.refused(a.cfg.Refused, len(fresh))
		if err := a.leaveOut(fresh); err != nil {
			return err
		}
	}
	if a.cfg.Guarantee == AtMostOnce && !a.done {
		// Not with the attempt's timeout: whether the cursor has moved must be
		// known before anything is written or given up.
		if err := a.commit(a.term, a.info.ID.Seq); err != nil {
			return err
		}
		a.done = true
	}
	return nil
}

// fresh is what is not left out already, each record once.
func (a *attempt) fresh(refused []record.Refusal) []record.Refusal {
	var fresh []record.Refusal
	seen := make(map[record.RecordID]struct{}, len(refused))
	for _, r := range refused {
		_, excluded := a.excluded[r.RecordID]
		_, left := a.left[r.RecordID]
		_, twice := seen[r.RecordID]
		if excluded || left || twice {
			continue
		}
		seen[r.RecordID] = struct{}{}
		r.Reason = shorten(r.Reason)
		fresh = append(fresh, r)
	}
	return fresh
}

// leaveOut does as the policy says; nil means that the log has it.
func (a *attempt) leaveOut(fresh []record.Refusal) error {
	stand := &BlockedError{Batch: a.info.ID, First: fresh[0], Count: len(fresh)}
	if a.cfg.Refused == Block {
		a.blocked = stand
		return stand
	}
	// Bound to the term, not to the attempt: the next attempt must not begin
	// while it is open whether this entry will still be applied.
	err := a.log.Refuse(a.term, a.cfg.Name, a.info.ID.Seq, a.cfg.Refused == Drop, fresh)
	switch {
	case err == nil:
	case a.term.Err() != nil:
		return context.Cause(a.term)
	case errors.Is(err, record.ErrLeadLost):
		return err
	default: // no room for parked records, for one
		stand.Cause = err
		a.blocked = stand
		return stand
	}
	for _, r := range fresh {
		a.left[r.RecordID] = struct{}{}
	}
	a.logger.Warn("records that the sink cannot take were left out", "batch", a.info.ID.String(),
		"policy", string(a.cfg.Refused), "records", len(fresh), "topic", fresh[0].Topic,
		"partition", fresh[0].Partition, "offset", fresh[0].Offset, "reason", fresh[0].Reason)
	return nil
}

// outcome is Deliver's error in the light of what settle said.
func (a *attempt) outcome(err error) error {
	switch {
	case err == nil && a.settleErr != nil:
		return &brokenContractError{settle: a.settleErr}
	case err != nil && errors.Is(a.settleErr, record.ErrLeadLost):
		return a.settleErr
	case err != nil && a.blocked != nil && !isPermanent(err):
		return a.blocked
	}
	return err
}

// delivered counts what the sink has got.
func (a *attempt) delivered() (records, bytes int64) {
	if a.want == nil && len(a.excluded)+len(a.left) == 0 {
		return a.info.Records, a.info.Bytes
	}
	return max(0, a.records-int64(len(a.left))), a.bytes
}

func idOf(rec *record.Record) record.RecordID {
	return record.RecordID{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset}
}

func sizeOf(rec *record.Record) int64 {
	n := len(rec.Key) + len(rec.Value)
	for i := range rec.Headers {
		n += len(rec.Headers[i].Key) + len(rec.Headers[i].Value)
	}
	return int64(n)
}

// shorten bounds a reason, in valid UTF-8.
func shorten(reason string) string {
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	if len(reason) <= maxReason {
		return reason
	}
	cut := maxReason - len("…")
	for !utf8.RuneStart(reason[cut]) {
		cut--
	}
	return reason[:cut] + "…"
}
