package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config says who this node is and how patient it is. Fields without a default are required.
type Config struct {
	// ID is this node and its data directory; Gateway names the whole cluster.
	ID      Identity
	Gateway string
	// Lanes is the number of lanes; 0 follows what the cluster was formed with
	// ([Hub.SetLanes]).
	Lanes uint32
	// Release is the program's version, for people.
	Release string
	// Listener takes the streams of all peers. The hub closes it.
	Listener net.Listener
	// Peers are the addresses, host:port, by node id; this node's own is left out.
	Peers map[string]string
	// TLS is mutual when given; nil is plain TCP.
	TLS *TLSFiles
	// Describe says what this node has and was told, to those who ask
	// ([Hub.Survey]). It is called concurrently, and must not wait for a disk or a peer.
	Describe func() Description

	// DialTimeout bounds a connection attempt, HandshakeTimeout all that follows
	// until a stream serves. Defaults 2 s and 5 s.
	DialTimeout, HandshakeTimeout time.Duration
	// QuickTimeout bounds heartbeats, votes and TimeoutNow, BulkTimeout an RPC
	// with entries. Defaults 2 s and 10 s.
	QuickTimeout, BulkTimeout time.Duration
	// FlowTimeout is how long one part of a call's answer may take, to be made and
	// to be sent, and how long the answer to a snapshot may take is twice that. Default 30 s.
	FlowTimeout time.Duration
	// IdleTimeout is when a Raft stream on which nothing comes is closed by who
	// accepted it. Default 2 min.
	IdleTimeout time.Duration
	// PingInterval is how often each peer is looked at. Default 5 s.
	PingInterval time.Duration

	// Logger gets one line per event that an operator acts on; nil is none.
	Logger *slog.Logger
	// Registerer takes the metrics; nil is none.
	Registerer prometheus.Registerer
	// Clock is the wall clock; nil is time.Now.
	Clock func() time.Time
}

func (c Config) withDefaults() (Config, error) {
	var errs []error
	require := func(ok bool, what string) {
		if !ok {
			errs = append(errs, fmt.Errorf("peer hub: %s is missing", what))
		}
	}
	require(c.ID.Node != "", "the node's id")
	require(c.ID.Incarnation != [16]byte{}, "the incarnation of its data directory")
	require(c.Gateway != "", "the gateway's name")
	require(c.Listener != nil, "the listener")
	require(c.Describe != nil, "the node's description")
	set := func(d *time.Duration, def time.Duration) {
		if *d <= 0 {
			*d = def
		}
	}
	set(&c.DialTimeout, 2*time.Second)
	set(&c.HandshakeTimeout, 5*time.Second)
	set(&c.QuickTimeout, 2*time.Second)
	set(&c.BulkTimeout, 10*time.Second)
	set(&c.FlowTimeout, 30*time.Second)
	set(&c.IdleTimeout, 2*time.Minute)
	set(&c.PingInterval, 5*time.Second)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	return c, errors.Join(errs...)
}

// Hub is this node's side of everything that is said between nodes.
type Hub struct {
	cfg     Config
	keys    *keyring // nil without TLS
	lanes   atomic.Uint32
	book    *book
	notices *notices
	streams *streams
	metrics *metrics

	ctx    context.Context
	cancel context.CancelFunc
	loops  sync.WaitGroup

	mu         sync.Mutex
	transports map[uint32]*Transport
	handlers   map[string]Handler
	calls      map[string]int // under way here, by who asks
	closed     bool
}

// Open starts listening and looking after peers. It reads the certificates, and fails when
// they cannot be used.
func Open(cfg Config) (*Hub, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	h := &Hub{
		cfg: cfg, streams: newStreams(), notices: newNotices(cfg.Clock),
		transports: map[uint32]*Transport{}, handlers: map[string]Handler{}, calls: map[string]int{},
	}
	h.book = newBook(cfg.Clock)
	h.lanes.Store(cfg.Lanes)
	if h.metrics, err = newMetrics(cfg.Registerer, h); err != nil {
		return nil, err
	}
	if cfg.TLS != nil {
		if h.keys, err = openKeyring(*cfg.TLS, cfg.Logger, h.metrics.certificate); err != nil {
			h.metrics.unregister()
			return nil, err
		}
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.Handle(helloKind, h.answerHello)
	h.SetPeers(cfg.Peers)
	h.loops.Go(h.accept)
	return h, nil
}

// ID is this node.
func (h *Hub) ID() Identity { return h.cfg.ID }

// Addr is where the hub listens.
func (h *Hub) Addr() net.Addr { return h.cfg.Listener.Addr() }

// SetLanes says how many lanes there are, once a node that followed knows.
func (h *Hub) SetLanes(lanes uint32) { h.lanes.Store(lanes) }

// Handle declares a kind of call; kinds are unique, and at most 64 bytes long. Peers that
// call before it is declared are told so.
func (h *Hub) Handle(kind string, fn Handler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handlers[kind] = fn
}

// Cut closes the listener and every socket, and waits for nothing: not for a peer, not for
// a disk. The process is about to end. Safe at any time, from any goroutine.
func (h *Hub) Cut() {
	h.cancel()
	_ = h.cfg.Listener.Close()
	h.streams.cut()
}

// Close ends everything and waits for it: streams, handlers, transports.
func (h *Hub) Close() error {
	h.mu.Lock()
	h.closed = true
	transports := make([]*Transport, 0, len(h.transports))
	for _, t := range h.transports {
		transports = append(transports, t)
	}
	h.mu.Unlock()
	h.Cut()
	for _, t := range transports {
		_ = t.Close()
	}
	h.loops.Wait()
	h.metrics.unregister()
	return nil
}

// greeting is the hello of this moment.
func (h *Hub) greeting() hello {
	return hello{
		oldest: oldestProtocol, newest: newestProtocol, gateway: h.cfg.Gateway, id: h.cfg.ID,
		lanes: h.lanes.Load(), clock: h.cfg.Clock().UnixMilli(), release: h.cfg.Release,
	}
}

// transport gives a lane's, nil when it is not open.
func (h *Hub) transport(lane uint32) *Transport {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.transports[lane]
}

// handler gives a kind's, nil when it is not declared.
func (h *Hub) handler(kind string) Handler {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.handlers[kind]
}
