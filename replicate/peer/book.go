package peer

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// book is the address book, with what is known of each peer. Safe for concurrent use.
type book struct {
	clock func() time.Time
	mu    sync.Mutex
	peers map[string]*entry
}

type entry struct {
	status Status
	met    bool               // Incarnation is somebody's
	tried  bool               // Reachable says something
	stop   context.CancelFunc // ends its watcher
}

func newBook(clock func() time.Time) *book {
	return &book{clock: clock, peers: map[string]*entry{}}
}

// set adds a node or changes its address, and tells whether it is new.
func (b *book) set(node, address string, stop context.CancelFunc) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, ok := b.peers[node]; ok {
		e.status.Address = address
		return false
	}
	b.peers[node] = &entry{status: Status{Node: node, Address: address}, stop: stop}
	return true
}

// forget takes a node out, and tells whether it was there.
func (b *book) forget(node string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.peers[node]
	if ok {
		e.stop()
		delete(b.peers, node)
	}
	return ok
}

func (b *book) nodes() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.peers))
}

func (b *book) known(node string) bool {
	_, ok := b.address(node)
	return ok
}

func (b *book) address(node string) (string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.peers[node]
	if !ok {
		return "", false
	}
	return e.status.Address, true
}

// identity tells who answered last at a node's address.
func (b *book) identity(node string) (Identity, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.peers[node]
	if !ok || !e.met {
		return Identity{}, false
	}
	return Identity{node, e.status.Incarnation}, true
}

// answered records a handshake that we began; it tells whether the node was away before.
func (b *book) answered(them hello, skew time.Duration) (back bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.peers[them.id.Node]
	if !ok {
		return false
	}
	now := b.clock()
	s := &e.status
	back = e.tried && !s.Reachable
	if !s.Reachable {
		s.Since = now
	}
	e.met, e.tried = true, true
	s.Reachable, s.Contact, s.Refusal, s.LastError = true, now, nil, ""
	s.Incarnation, s.Release, s.Lanes, s.Skew = them.id.Incarnation, them.release, them.lanes, skew
	s.Protocol = min(newestProtocol, them.newest)
	return back
}

// failed records an attempt of ours, and tells whether that is news.
func (b *book) failed(node string, err error) (news bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.peers[node]
	if !ok {
		return false
	}
	var refusal *Refusal
	errors.As(err, &refusal)
	s := &e.status
	if s.Reachable || !e.tried {
		s.Since = b.clock()
		news = true
	}
	if refusal != nil && (s.Refusal == nil || s.Refusal.Code != refusal.Code) {
		news = true
	}
	e.tried = true
	s.Reachable, s.Refusal, s.LastError = false, refusal, err.Error()
	return news
}

// twin records that two incarnations of a node are alive, and tells whether that is news.
func (b *book) twin(node string, is bool) (news bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.peers[node]
	if !ok {
		return false
	}
	news = is && !e.status.Twin
	e.status.Twin = is
	return news
}

func (b *book) statuses() []Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]Status, 0, len(b.peers))
	for _, node := range slices.Sorted(maps.Keys(b.peers)) {
		all = append(all, b.peers[node].status)
	}
	return all
}
