package peer

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// maxIncarnations is how many data directories of one node are told apart in a lane at a
// time; one is the rule.
const maxIncarnations = 2

// inbound serves the streams of one node with one data directory in one lane, so that
// of each request it is certain whom it comes from. It is a raft.StreamLayer that only accepts.
type inbound struct {
	of     *Transport
	who    Identity
	inner  *raft.NetworkTransport
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	turn   uint64 // when a stream last came, for who goes first
}

// welcome gives a stream to Raft.
func (t *Transport) welcome(st *stream) {
	in := t.inboundOf(st.who)
	if in == nil || !t.hold() {
		_ = st.Close()
		return
	}
	conn := &held{Conn: &paced{stream: st, hub: t.hub}, release: t.conns.Done}
	select {
	case in.conns <- conn:
	case <-in.closed:
		_ = conn.Close()
	}
}

// inboundOf finds or makes the server for an identity; nil once the transport is closed.
func (t *Transport) inboundOf(who Identity) *inbound {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	in := t.inbounds[who]
	if in == nil {
		t.makeRoom(who.Node)
		in = &inbound{of: t, who: who, conns: make(chan net.Conn), closed: make(chan struct{})}
		in.inner = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: in, MaxRPCsInFlight: 1, Logger: hclog.NewNullLogger(),
		})
		in.inner.SetHeartbeatHandler(in.heartbeat)
		t.inbounds[who] = in
		t.loops.Go(in.forward)
	}
	for _, other := range t.inbounds {
		in.turn = max(in.turn, other.turn+1)
	}
	return in
}

// makeRoom closes the server that was used longest ago when a node has too many. Called with mu.
func (t *Transport) makeRoom(node string) {
	var oldest *inbound
	n := 0
	for who, in := range t.inbounds {
		if who.Node != node {
			continue
		}
		n++
		if oldest == nil || in.turn < oldest.turn {
			oldest = in
		}
	}
	if n >= maxIncarnations {
		delete(t.inbounds, oldest.who)
		oldest.close()
	}
}

// forward gives requests to Raft, one after the other, as Raft takes them.
func (in *inbound) forward() {
	for {
		select {
		case rpc := <-in.inner.Consumer():
			in.deliver(rpc)
		case <-in.closed:
			return
		}
	}
}

func (in *inbound) deliver(rpc raft.RPC) {
	if !in.permitted(rpc) {
		return
	}
	select {
	case in.of.consumer <- rpc:
	case <-in.closed:
	}
}

// heartbeat passes the main loop of Raft by. It is called on the goroutine of the stream.
func (in *inbound) heartbeat(rpc raft.RPC) {
	fn := in.of.heartbeat.Load()
	if fn == nil {
		in.deliver(rpc)
		return
	}
	if in.permitted(rpc) {
		(*fn)(rpc)
	}
}

// permitted tells whether a request may reach Raft; if not, it is answered.
func (in *inbound) permitted(rpc raft.RPC) bool {
	if from, ok := rpc.Command.(raft.WithRPCHeader); ok {
		if id := string(from.GetRPCHeader().ID); id != in.who.Node {
			rpc.Respond(nil, fmt.Errorf("%s speaks for %q", in.who, printable([]byte(id))))
			return false
		}
	}
	kind, asked := kindOf(rpc.Command)
	if !asked {
		return true
	}
	if err := in.of.permits(in.who, kind, "in"); err != nil {
		rpc.Respond(nil, err)
		return false
	}
	return true
}

// kindOf tells what a lane is asked about; a snapshot passes.
func kindOf(command any) (RPC, bool) {
	switch command.(type) {
	case *raft.RequestVoteRequest:
		return RequestVote, true
	case *raft.RequestPreVoteRequest:
		return RequestPreVote, true
	case *raft.TimeoutNowRequest:
		return TimeoutNow, true
	case *raft.InstallSnapshotRequest:
		return "", false
	default:
		return AppendEntries, true
	}
}

// close ends the server and its streams; it does not wait.
func (in *inbound) close() {
	in.once.Do(func() {
		close(in.closed)
		_ = in.inner.Close()
		in.of.hub.streams.closeAll(func(s *stream) bool {
			return s.inbound && s.purpose == forRaft && s.lane == in.of.lane && s.who == in.who
		})
	})
}

// Accept implements net.Listener.
func (in *inbound) Accept() (net.Conn, error) {
	select {
	case conn := <-in.conns:
		return conn, nil
	case <-in.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener; close does it.
func (in *inbound) Close() error { return nil }

// Addr implements net.Listener.
func (in *inbound) Addr() net.Addr { return in.of.hub.Addr() }

// Dial implements raft.StreamLayer: nothing goes out here.
func (in *inbound) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	return nil, net.ErrClosed
}
