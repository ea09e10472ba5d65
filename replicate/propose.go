package replicate

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"

	"forebay/internal/record"
)

// propose appends an encoded entry that is no block and waits for its outcome, or for
// ctx: then the entry may be committed all the same. term is the one that the
// entry is bound to.
func (l *Lane) propose(ctx, term context.Context, entry []byte) (*response, error) {
	if err := over(ctx, term); err != nil {
		return nil, err
	}
	if !l.control.acquire(ctx, term) {
		return nil, over(ctx, term)
	}
	res, err := l.await(ctx, term, func() raft.Future { return l.raft.Apply(entry, 0) }, l.control.release)
	if err != nil {
		return nil, err
	}
	return res, res.Err
}

// await waits for a future or for ctx. A future has no way to be given up, so a
// goroutine waits for it; Close waits for the goroutine. release is called when the future is settled.
func (l *Lane) await(ctx, term context.Context, start func() raft.Future, release func()) (*response, error) {
	if !l.proposals.enter() {
		release()
		return nil, fmt.Errorf("%w: %w", record.ErrLeadLost, ErrClosed)
	}
	future := start()
	type result struct {
		res *response
		err error
	}
	settled := make(chan result, 1)
	go func() {
		defer l.proposals.leave()
		defer release()
		res, err := outcome(future)
		settled <- result{res, err}
	}()
	select {
	case r := <-settled:
		return r.res, r.err
	case <-ctx.Done():
		return nil, over(ctx, term)
	}
}

// outcome waits for a future and translates Raft's errors: none of them says
// that the entry was not, or will not be, committed, but for a refusal during a transfer of the lead.
func outcome(f raft.Future) (*response, error) {
	switch err := f.Error(); {
	case err == nil:
		res := &response{}
		if a, ok := f.(raft.ApplyFuture); ok {
			if r, ok := a.Response().(*response); ok {
				res = r
			}
		}
		return res, nil
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return nil, fmt.Errorf("%w: %w", record.ErrRefused, err)
	default:
		return nil, fmt.Errorf("%w: %w", record.ErrLeadLost, err)
	}
}

// over tells whether a call must not begin: its own context has ended, or its term has.
func over(ctx, term context.Context) error {
	if term.Err() != nil {
		return leadLost(term)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// leadLost says why a term is over.
func leadLost(term context.Context) error {
	cause := context.Cause(term)
	if cause == nil || errors.Is(cause, record.ErrLeadLost) {
		return record.ErrLeadLost
	}
	return fmt.Errorf("%w: %w", record.ErrLeadLost, cause)
}
