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

	what string // the reason without what changes each time
}

func newNotices(clock func() time.Time) *notices {
	return &notices{clock: clock, said: map[string]*Stranger{}}
}

// first tells whether what has not been said of key since the last over. The reason is what a person reads of
// it, and may be another each time.
func (n *notices) first(key, what string, s Stranger) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.clock()
	if was, ok := n.said[key]; ok && was.what == what {
		was.Last, was.Times, was.Reason = now, was.Times+1, s.Reason
		return false
	}
	if len(n.said) >= maxNotices {
		n.forgetOldest()
	}
	s.First, s.Last, s.Times, s.what = now, now, 1, what
	n.said[key] = &s
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
