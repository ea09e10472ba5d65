package replicate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"forebay/internal/record"
	"forebay/replicate/state"
)

// leadPoll bounds how late we are when Raft's news of the lead were dropped.
const leadPoll = 100 * time.Millisecond

// Lead calls fn once for each term in which this node leads the lane, after
// everything committed in earlier terms has been applied here, and the lane's
// identity and the term's Begin entry with it. fn's context ends when the lead is
// lost or ctx ends; Lead waits for fn to return, and for the outcomes of all that
// was appended, before the next term begins. When fn returns early the term goes on without it.
//
// Lead returns ctx's error when ctx ends, ErrClosed when the lane is closed, and
// the reason when a term cannot be begun for good. Call it once.
func (l *Lane) Lead(ctx context.Context, fn func(ctx context.Context, t *Term)) error {
	if !l.leading.enter() {
		return ErrClosed
	}
	defer l.leading.leave()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.ctx, func() { cancel(ErrClosed) })()

	var last uint64
	for {
		if err := l.awaitLead(ctx, last); err != nil {
			return err
		}
		t, err := l.begin(ctx)
		switch {
		case err == nil:
			last = t.number
			l.hold(ctx, t, fn)
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, record.ErrLeadLost):
			l.pause(ctx)
		default:
			return fmt.Errorf("beginning a term: %w", err)
		}
	}
}

// awaitLead returns when this node leads in a term after the one given. Raft's
// channel may drop all but the latest news, so it only wakes us.
func (l *Lane) awaitLead(ctx context.Context, after uint64) error {
	for ctx.Err() == nil && !l.leads(after+1) {
		l.pause(ctx)
	}
	return context.Cause(ctx)
}

// leads reports whether this node leads, in a term not below the one given.
func (l *Lane) leads(term uint64) bool {
	return l.raft.State() == raft.Leader && l.raft.CurrentTerm() >= term
}

// pause waits for news of the lead, but not for long.
func (l *Lane) pause(ctx context.Context) {
	timer := time.NewTimer(leadPoll)
	defer timer.Stop()
	select {
	case <-l.raft.LeaderCh():
	case <-timer.C:
	case <-ctx.Done():
	}
}

// begin opens a term: barrier, identity, Begin. The order matters: before the
// barrier is applied the state may lack what earlier leaders committed.
func (l *Lane) begin(ctx context.Context) (*Term, error) {
	number := l.raft.CurrentTerm()
	_, err := l.await(ctx, ctx, func() raft.Future { return l.raft.Barrier(0) }, func() {})
	if err != nil {
		return nil, err
	}
	at := l.cfg.Clock().UnixMilli()
	if _, formed := l.Identity(); !formed {
		form := state.Form{
			Gateway: l.cfg.Gateway, Lane: l.cfg.Lane, Lanes: l.cfg.Lanes,
			Node: l.cfg.NodeID, Incarnation: l.cfg.Incarnation, At: at,
		}
		rand.Read(form.LogID[:])
		if _, err := l.propose(ctx, ctx, state.Encode(form)); err != nil {
			return nil, err
		}
	}
	if id, _ := l.Identity(); id.Gateway != l.cfg.Gateway || id.Lane != l.cfg.Lane || id.Lanes != l.cfg.Lanes {
		return nil, fmt.Errorf("%w: its log was formed for gateway %q, lane %d of %d; the configuration says gateway %q, lane %d of %d",
			ErrForeign, id.Gateway, id.Lane, id.Lanes, l.cfg.Gateway, l.cfg.Lane, l.cfg.Lanes)
	}
	res, err := l.propose(ctx, ctx, state.Encode(state.Begin{Term: number, Node: l.cfg.NodeID, At: at}))
	if errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		return nil, fmt.Errorf("%w: %w", record.ErrLeadLost, err)
	}
	if err != nil {
		return nil, err
	}
	if res.term != number {
		return nil, fmt.Errorf("%w: term %d began while term %d was opened", record.ErrLeadLost, res.term, number)
	}
	return newTerm(ctx, l, number), nil
}

// hold runs fn for a term until the lead is lost or ctx ends.
func (l *Lane) hold(ctx context.Context, t *Term, fn func(context.Context, *Term)) {
	l.cfg.Logger.Info("leading", "term", t.number)
	l.metrics.leading.Set(1)
	defer l.metrics.leading.Set(0)
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		fn(t.ctx, t)
	}()
	for t.ctx.Err() == nil {
		select {
		case <-l.raft.LeaderCh():
			// News of how this term began may still come; lost and won again shows as
			// another term.
			if !l.leads(t.number) || l.raft.CurrentTerm() != t.number {
				t.end(record.ErrLeadLost)
			}
		case <-t.ctx.Done():
		}
	}
	t.finish()
	<-ran
	reason := context.Cause(t.ctx)
	if errors.Is(reason, context.Canceled) {
		reason = errors.New("told to stop")
	}
	l.cfg.Logger.Info("no longer leading", "term", t.number, "reason", reason)
}
