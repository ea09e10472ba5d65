package peer

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// maxNotices bounds what is remembered of who was told what.
const maxNotices = 256

// notices remember what was said already, so that a peer that tries again every
// second is one line in the log and not 86,400. Safe for concurrent use.
type notices struct {
	clock func() time.Time
	mu    sync.Mutex
	said  map[string]*Stranger
}

// Stranger is a connection that did not become a stream: somebody is not a peer, or not
// yet, or is set up amiss.
type Stranger struct {
	// Host is where it came from, Node what it calls itself, if it got that far.
	Host, Node string
	// Reason is why it was refused, or refused us.
	Reason string
	// First and Last are when, Times how often.
	First, Last time.Time
	Times       int
}

func newNotices(clock func() time.Time) *notices {
	return &notices{clock: clock, said: map[string]*Stranger{}}
}

// first tells whether this has not been said of key since the last over.
func (n *notices) first(key, host, node, reason string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.clock()
	if s, ok := n.said[key]; ok && s.Reason == reason {
		s.Last, s.Times = now, s.Times+1
		return false
	}
	if len(n.said) >= maxNotices {
		n.forgetOldest()
	}
	n.said[key] = &Stranger{Host: host, Node: node, Reason: reason, First: now, Last: now, Times: 1}
	return true
}

func (n *notices) forgetOldest() {
	oldest := ""
	for key, s := range n.said {
		if oldest == "" || s.Last.Before(n.said[oldest].Last) {
			oldest = key
		}
	}
	delete(n.said, oldest)
}

// over forgets what was said of key, and tells whether there was something.
func (n *notices) over(key string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.said[key]
	delete(n.said, key)
	return ok
}

// strangers lists who came and was refused, the latest first.
func (n *notices) strangers() []Stranger {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []Stranger
	for _, s := range n.said {
		if s.Host != "" {
			all = append(all, *s)
		}
	}
	slices.SortFunc(all, func(a, b Stranger) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Node, b.Node))
	})
	return all
}
