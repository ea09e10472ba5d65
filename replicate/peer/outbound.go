package peer

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

var (
	// ErrKeptOut says that a node's data directory is not the one that a lane records. Its
	// words go to Raft on the other node, which must not find "unexpected command" in them.
	ErrKeptOut = errors.New("the data directory is not the one that the lane records")

	errAnother = errors.New("another incarnation answers at the node's address")
)

// AppendEntriesPipeline implements raft.Transport: there is none, so every request passes AppendEntries.
func (t *Transport) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// AppendEntries implements raft.Transport.
func (t *Transport) AppendEntries(id raft.ServerID, _ raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	client := t.bulk
	if isHeartbeat(args) {
		client = t.quick
	}
	return t.call(id, AppendEntries, resends, func(to raft.ServerAddress) error { return client.AppendEntries(id, to, args, resp) })
}

// isHeartbeat knows a heartbeat as raft's own transport does.
func isHeartbeat(a *raft.AppendEntriesRequest) bool {
	return a.PrevLogEntry == 0 && a.PrevLogTerm == 0 && len(a.Entries) == 0 && a.LeaderCommitIndex == 0
}

// RequestVote implements raft.Transport.
func (t *Transport) RequestVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.call(id, RequestVote, resends, func(to raft.ServerAddress) error { return t.quick.RequestVote(id, to, args, resp) })
}

// RequestPreVote implements raft.WithPreVote.
func (t *Transport) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.call(id, RequestPreVote, resends, func(to raft.ServerAddress) error { return t.quick.RequestPreVote(id, to, args, resp) })
}

// TimeoutNow implements raft.Transport. It is the one request that does not go twice.
func (t *Transport) TimeoutNow(id raft.ServerID, _ raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.call(id, TimeoutNow, 0, func(to raft.ServerAddress) error { return t.quick.TimeoutNow(id, to, args, resp) })
}

// InstallSnapshot implements raft.Transport. The data can be read once, so it is not sent again.
func (t *Transport) InstallSnapshot(id raft.ServerID, _ raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	who, err := t.identify(string(id))
	if err != nil {
		return err
	}
	return t.snapshots.InstallSnapshot(id, addressOf(who), args, resp, data)
}

// call sends a request to the data directory that is at the node's address now, if the lane allows it.
func (t *Transport) call(id raft.ServerID, rpc RPC, again int, send func(raft.ServerAddress) error) error {
	for {
		who, err := t.identify(string(id))
		if err != nil {
			return err
		}
		if err := t.permits(who, rpc, "out"); err != nil {
			return err
		}
		err = send(addressOf(who))
		another := errors.Is(err, errAnother) // nothing was sent
		if err == nil || t.ctx.Err() != nil || again <= 0 || !another && !isStale(err) {
			return err
		}
		again--
	}
}

// isStale tells whether a stream was closed by the other side, as all of a process are that ended.
func isStale(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}

// identify tells who is at a node's address: the last handshake there, or one that it makes.
func (t *Transport) identify(node string) (Identity, error) {
	if who, ok := t.hub.book.identity(node); ok {
		return who, nil
	}
	ctx, cancel := context.WithTimeout(t.ctx, t.hub.cfg.QuickTimeout)
	defer cancel()
	if _, err := t.hub.ask(ctx, node); err != nil {
		return Identity{}, err
	}
	who, ok := t.hub.book.identity(node)
	if !ok {
		return Identity{}, &Error{Node: node, Doing: "looking up its address", Err: ErrUnknownNode}
	}
	return who, nil
}

// addressOf is what the clients pool their streams by: node and data directory.
func addressOf(who Identity) raft.ServerAddress {
	return raft.ServerAddress(who.Node + "|" + hex.EncodeToString(who.Incarnation[:]))
}

func identityOf(address raft.ServerAddress) (Identity, error) {
	at := strings.LastIndexByte(string(address), '|')
	if at < 0 {
		return Identity{}, fmt.Errorf("%q is not an address of a peer", address)
	}
	var x Hex16
	err := x.UnmarshalText([]byte(address[at+1:]))
	return Identity{string(address[:at]), x}, err
}

// dialLayer is a raft.StreamLayer that only dials.
type dialLayer struct {
	of     *Transport
	wrap   func(*stream) net.Conn
	closed chan struct{}
}

// Dial implements raft.StreamLayer: to exactly the node and data directory that the address names.
func (l *dialLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	who, err := identityOf(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(l.of.ctx, timeout)
	defer cancel()
	st, them, err := l.of.hub.dial(ctx, who.Node, forRaft, l.of.lane)
	if err != nil {
		return nil, err
	}
	if them.id != who {
		_ = st.Close()
		return nil, fmt.Errorf("%w: %s, not %s", errAnother, them.id, who)
	}
	if !l.of.hold() {
		_ = st.Close()
		return nil, ErrClosed
	}
	return &held{Conn: l.wrap(st), release: l.of.conns.Done}, nil
}

// Accept implements net.Listener: nothing comes in here.
func (l *dialLayer) Accept() (net.Conn, error) {
	<-l.closed
	return nil, net.ErrClosed
}

// Close implements net.Listener. It is called once.
func (l *dialLayer) Close() error {
	close(l.closed)
	return nil
}

// Addr implements net.Listener.
func (l *dialLayer) Addr() net.Addr { return l.of.hub.Addr() }
