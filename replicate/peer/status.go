package peer

import (
	"context"
	"slices"
	"time"
)

// Status is what is known of a peer.
type Status struct {
	Node, Address string
	// Reachable says that the last attempt to speak to it succeeded; Since when it is so
	// or not so. Zero: nobody tried yet.
	Reachable bool
	Since     time.Time
	// Contact is when it last answered.
	Contact time.Time
	// Incarnation is the data directory of who answered last at the address; zero
	// while nobody did.
	Incarnation [16]byte
	// Release and Protocol are its version, and the one of the protocol spoken with it.
	Release  string
	Protocol uint16
	// Lanes is how many it has, 0 while it follows.
	Lanes uint32
	// Skew is how far its clock is ahead of ours.
	Skew time.Duration
	// Refusal is why one of the two refuses the other; LastError why it is not reachable.
	Refusal   *Refusal
	LastError string
	// Twin says that two processes run under its id, with two data directories.
	Twin bool
}

// Peers tells how each node of the address book is, in the order of ids.
func (h *Hub) Peers() []Status { return h.book.statuses() }

// Strangers tells who connected and did not become a peer's stream, the latest first.
func (h *Hub) Strangers() []Stranger { return h.notices.strangers() }

// ClockOffset is how far this node's clock is ahead of the median of all clocks that are
// known, its own among them, and how many that are. Peers that are not reachable do not count.
func (h *Hub) ClockOffset() (ahead time.Duration, clocks int) {
	skews := []time.Duration{0}
	for _, s := range h.book.statuses() {
		if s.Reachable {
			skews = append(skews, s.Skew)
		}
	}
	slices.Sort(skews)
	n := len(skews)
	return -(skews[(n-1)/2] + skews[n/2]) / 2, n
}

// SetPeers makes these the peers: others are forgotten.
func (h *Hub) SetPeers(addresses map[string]string) {
	for _, node := range h.book.nodes() {
		if _, keep := addresses[node]; !keep {
			h.Forget(node)
		}
	}
	for node, address := range addresses {
		h.SetPeer(node, address)
	}
}

// SetPeer adds a peer, or changes its address: the next stream goes there. This node's own id is ignored.
func (h *Hub) SetPeer(node, address string) {
	if node == h.cfg.ID.Node {
		return
	}
	ctx, stop := context.WithCancel(h.ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || !h.book.set(node, address, stop) {
		stop()
		return
	}
	h.loops.Go(func() { h.watch(ctx, node) })
}

// Forget takes a peer out: its streams are closed, and it is refused from now on.
func (h *Hub) Forget(node string) {
	if !h.book.forget(node) {
		return
	}
	h.streams.closeAll(func(s *stream) bool { return s.who.Node == node })
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range h.transports {
		t.forget(node)
	}
}
