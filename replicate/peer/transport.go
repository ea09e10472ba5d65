package peer

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// RPC is a kind of Raft request that an emptied data directory must have no part in.
type RPC string

// The kinds that a lane is asked about. Snapshots pass: they are how such a node comes back.
const (
	RequestVote    RPC = "request_vote"
	RequestPreVote RPC = "request_pre_vote"
	TimeoutNow     RPC = "timeout_now"
	AppendEntries  RPC = "append_entries"
)

// Allowed tells whether a node with that data directory may be sent, or may send, that kind of request
// in a lane: whether it is the one that the lane's state records, or is being caught up as a non-voter. A node whose
// own directory is not the one recorded, or that does not know, answers false for everybody that asks
// for its vote. It is asked for each request, concurrently, and must not wait.
type Allowed func(who Identity, rpc RPC) bool

// Transport is raft.Transport of one lane over a hub's streams. The addresses that Raft
// knows are node ids. Raft's Shutdown closes it; closing it before ends what Raft waits for.
type Transport struct {
	hub     *Hub
	lane    uint32
	allowed Allowed

	quick, bulk, snapshots *raft.NetworkTransport

	consumer  chan raft.RPC
	heartbeat atomic.Pointer[func(raft.RPC)]
	kept      atomic.Bool // somebody was kept out

	ctx    context.Context
	cancel context.CancelFunc
	loops  sync.WaitGroup
	conns  sync.WaitGroup // streams that Raft holds

	mu       sync.Mutex
	closed   bool
	inbounds map[Identity]*inbound
	closing  sync.Once
}

var (
	_ raft.Transport   = (*Transport)(nil)
	_ raft.WithPreVote = (*Transport)(nil)
	_ raft.WithClose   = (*Transport)(nil)
)

const (
	// pooledStreams is how many streams to a node each of the three clients keeps: heartbeat,
	// vote and pre-vote may be under way at once.
	pooledStreams = 3
	// resends bounds how often a request is sent again because its stream was closed meanwhile:
	// each pooled one may be, and the node may turn out to be another incarnation.
	resends = pooledStreams + 1
)

// Transport opens a lane for the streams of peers: until then they are told that it is not open
// here. A lane is open once at a time.
func (h *Hub) Transport(lane uint32, allowed Allowed) (*Transport, error) {
	t := &Transport{
		hub: h, lane: lane, allowed: allowed, consumer: make(chan raft.RPC), inbounds: map[Identity]*inbound{},
	}
	t.ctx, t.cancel = context.WithCancel(h.ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		t.cancel()
		return nil, ErrClosed
	}
	if h.transports[lane] != nil {
		t.cancel()
		return nil, fmt.Errorf("lane %d is open already", lane)
	}
	plain := func(s *stream) net.Conn { return s }
	flowing := func(s *stream) net.Conn { return &flowing{stream: s, patience: h.cfg.FlowTimeout} }
	t.quick = t.client(h.cfg.QuickTimeout, pooledStreams, plain)
	t.bulk = t.client(h.cfg.BulkTimeout, pooledStreams, plain)
	t.snapshots = t.client(h.cfg.BulkTimeout, 0, flowing)
	h.transports[lane] = t
	return t, nil
}

func (t *Transport) client(timeout time.Duration, pool int, wrap func(*stream) net.Conn) *raft.NetworkTransport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  &dialLayer{of: t, wrap: wrap, closed: make(chan struct{})},
		MaxPool: pool, MaxRPCsInFlight: 1, Timeout: timeout, Logger: hclog.NewNullLogger(),
	})
}

// Consumer implements raft.Transport.
func (t *Transport) Consumer() <-chan raft.RPC { return t.consumer }

// LocalAddr implements raft.Transport: the node's id.
func (t *Transport) LocalAddr() raft.ServerAddress { return raft.ServerAddress(t.hub.cfg.ID.Node) }

// EncodePeer implements raft.Transport.
func (t *Transport) EncodePeer(id raft.ServerID, _ raft.ServerAddress) []byte { return []byte(id) }

// DecodePeer implements raft.Transport.
func (t *Transport) DecodePeer(id []byte) raft.ServerAddress { return raft.ServerAddress(id) }

// SetHeartbeatHandler implements raft.Transport.
func (t *Transport) SetHeartbeatHandler(fn func(raft.RPC)) { t.heartbeat.Store(&fn) }

// Close ends all streams of the lane and waits until Raft's side of them is gone. Requests under way end
// with an error.
func (t *Transport) Close() error {
	t.closing.Do(func() {
		t.mu.Lock()
		t.closed = true
		inbounds := t.inbounds
		t.inbounds = nil
		t.mu.Unlock()
		t.cancel()
		for _, in := range inbounds {
			in.close()
		}
		for _, client := range []*raft.NetworkTransport{t.quick, t.bulk, t.snapshots} {
			_ = client.Close()
			client.CloseStreams() // after Close, which leaves them in the pool
		}
		t.hub.streams.closeAll(func(s *stream) bool { return s.purpose == forRaft && s.lane == t.lane })
		t.conns.Wait()
		t.loops.Wait()
		t.hub.mu.Lock()
		defer t.hub.mu.Unlock()
		delete(t.hub.transports, t.lane)
	})
	return nil
}

// forget lets go of what was kept for a node that is no peer any more.
func (t *Transport) forget(node string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for who, in := range t.inbounds {
		if who.Node == node {
			delete(t.inbounds, who)
			in.close()
		}
	}
}

// hold counts a stream that Raft is given. False once the transport is closed.
func (t *Transport) hold() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.conns.Add(1)
	return true
}

// permits asks the lane, and says once of each data directory that it is kept out, and once
// that it no longer is.
func (t *Transport) permits(who Identity, rpc RPC, direction string) error {
	key := func() string { return fmt.Sprintf("lane %d %s %s", t.lane, direction, who) }
	if t.allowed(who, rpc) {
		if t.kept.Load() && t.hub.notices.over(key()) {
			t.hub.cfg.Logger.Info("node takes part in the lane", "lane", t.lane, "peer", who.String(), "direction", direction)
		}
		return nil
	}
	t.kept.Store(true)
	t.hub.metrics.rpcs.WithLabelValues(strconv.FormatUint(uint64(t.lane), 10), direction, string(rpc)).Inc()
	err := fmt.Errorf("lane %d: %w: %s is to be caught up before it takes part (%s)", t.lane, ErrKeptOut, who, rpc)
	if t.hub.notices.first(key(), "kept out", Stranger{Node: who.Node}) {
		t.hub.cfg.Logger.Warn("node kept out of the lane: its data directory is not the one that the lane records",
			"lane", t.lane, "peer", who.String(), "direction", direction)
	}
	return err
}
