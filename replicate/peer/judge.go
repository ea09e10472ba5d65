package peer

import (
	"fmt"
	"time"
)

// Protocol versions that this build speaks: its own, and the one of the minor version
// before. The first release has no version before it.
const (
	oldestProtocol = 1
	newestProtocol = 1
)

// party is what one side knows when it judges a handshake.
type party struct {
	self hello
	// known tells whether a node id is a peer's.
	known func(node string) bool
	// names says whether the certificate at the other end names a node; nil without TLS.
	names func(node string) error
	// open tells, at the acceptor, whether a lane is served; nil at the dialler.
	open func(lane uint32) bool
	// meant is, at the dialler, whom it wants.
	meant string
}

// judge says why the other side is refused; nil is welcome. Pure.
func (p *party) judge(them hello) *Refusal {
	refuse := func(code Code, format string, args ...any) *Refusal {
		return &Refusal{Code: code, Words: fmt.Sprintf(format, args...), By: p.self.id.Node}
	}
	me := p.self
	switch {
	case min(me.newest, them.newest) < max(me.oldest, them.oldest):
		return refuse(CodeVersion, "%s (release %s) speaks peer protocol %s, %s (release %s) speaks %s: upgrade one minor version at a time",
			them.id.Node, them.release, span(them), me.id.Node, me.release, span(me))
	case them.gateway != me.gateway:
		return refuse(CodeGateway, "%s belongs to gateway %q, %s to %q: correct cluster.peers or node.gateway",
			them.id.Node, them.gateway, me.id.Node, me.gateway)
	case them.id == me.id:
		return refuse(CodeSelf, "node %s has connected to itself: in cluster.peers its own address stands under another id", me.id.Node)
	case them.id.Node == me.id.Node:
		return refuse(CodeSelf, "two processes run as node %s, with data directories %s and %s: stop one of them, or give it another node.id",
			me.id.Node, me.id, them.id)
	case !p.known(them.id.Node):
		return refuse(CodeUnknown, "%q is neither in cluster.peers of %s nor a member of the cluster: add it there, or by 'forebay operator add'",
			them.id.Node, me.id.Node)
	}
	if p.names != nil {
		if err := p.names(them.id.Node); err != nil {
			return refuse(CodeName, "%v", err)
		}
	}
	switch {
	case p.meant != "" && them.id.Node != p.meant:
		return refuse(CodeMisdirected, "%s was meant, and %s answers: correct the address of %s", p.meant, them.id.Node, p.meant)
	case them.wants != "" && them.wants != me.id.Node:
		return refuse(CodeMisdirected, "%s was meant, and this is %s: correct the address of %s", them.wants, me.id.Node, them.wants)
	case me.lanes != 0 && them.lanes != 0 && me.lanes != them.lanes:
		return refuse(CodeLanes, "%s has %d lanes, %s has %d: leave cluster.lanes out, or set it to what the cluster was formed with",
			them.id.Node, them.lanes, me.id.Node, me.lanes)
	case p.open == nil || them.purpose == forControl:
		return nil
	case them.purpose != forRaft:
		return refuse(CodeVersion, "streams of kind %d are not known to release %s of %s", them.purpose, me.release, me.id.Node)
	case !p.open(them.lane):
		return refuse(CodeLane, "lane %d is not open on %s", them.lane, me.id.Node)
	}
	return nil
}

func span(h hello) string {
	if h.oldest == h.newest {
		return fmt.Sprint(h.newest)
	}
	return fmt.Sprintf("%d to %d", h.oldest, h.newest)
}

// skewOf estimates how far the other clock is ahead of ours: it was read between
// asked and answered by our clock.
func skewOf(theirs int64, asked, answered time.Time) time.Duration {
	middle := asked.Add(answered.Sub(asked) / 2)
	return time.UnixMilli(theirs).Sub(middle)
}
