package peer

import (
	"context"
	"math/rand/v2"
	"time"
)

// watch looks after one peer until ctx ends: whether it is there, who it is, what its
// clock says. Each look is a call of its own, so it finds out about certificates as well.
func (h *Hub) watch(ctx context.Context, node string) {
	for ctx.Err() == nil {
		_, err := h.ask(ctx, node)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			h.lookForTwins(node)
		}
		// Not in step with the others.
		wait := h.cfg.PingInterval*3/4 + rand.N(h.cfg.PingInterval/2)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// lookForTwins says so when a node answers with one data directory and calls with another.
func (h *Hub) lookForTwins(node string) {
	answers, ok := h.book.identity(node)
	if !ok {
		return
	}
	calls := h.streams.which(func(s *stream) bool { return s.inbound && s.who.Node == node && s.who != answers })
	if h.book.twin(node, len(calls) > 0) {
		h.cfg.Logger.Error("two processes run under one node id: stop one of them, or give it another node.id",
			"peer", node, "answers", answers.String(), "calls", calls[0].who.String(), "calls_from", calls[0].RemoteAddr().String())
	}
}
