// Package node builds a node from its configuration and runs it: HTTP, data
// directory, log, lane, and for each term of the lead a receiver and a batcher.
// What is built in order is taken down in reverse, each step waiting for the last.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"forebay/internal/admin"
	"forebay/internal/config"
	"forebay/replicate"
	"forebay/wal"
)

// Version of this program.
const Version = "0.1.0"

// Options of a node. All fields are required.
type Options struct {
	Config *config.File
	Logger *slog.Logger
	// Stdout is where stdout sinks write.
	Stdout io.Writer
}

// Node is a running node: what HTTP speaks for. Its methods are safe for concurrent use.
type Node struct {
	config  *config.File
	logger  *slog.Logger
	stdout  io.Writer
	metrics *prometheus.Registry
	// fatal takes the first reason that ends the process; see fail.
	fatal chan error

	mu   sync.Mutex
	lane *replicate.Lane // nil until it is open
	lead *lead           // nil while this node does not lead
	open bool            // destinations have been looked at once
}

// Run runs a node until ctx ends, which stops it gracefully within
// node.stopTimeout and returns nil, or until it must end, which returns why.
func Run(ctx context.Context, o Options) error {
	n := &Node{config: o.Config, logger: o.Logger, stdout: o.Stdout, metrics: prometheus.NewRegistry(), fatal: make(chan error, 1)}
	n.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(o.Config.Node.Memory))
	}
	// HTTP comes first and goes last, so that whoever asks learns what is going on.
	server, err := n.serve(ctx)
	if err != nil {
		return err
	}
	defer n.stopServing(server)
	dir, err := openDataDir(ctx, o.Config.Node.DataDir, o.Config.Node.ID, o.Config.Node.Gateway)
	if err != nil {
		return err
	}
	defer dir.close()
	keep := newReserve(dir.path)
	if given, err := keep.give(); err != nil {
		return fmt.Errorf("giving back reserved disk space: %w", err)
	} else if given {
		n.logger.Warn("the disk is nearly full: the reserve was given back so that the node can start", "dir", dir.path)
	}
	if err := keep.take(); err != nil {
		n.logger.Warn("no disk space could be reserved", "error", err)
	}
	return n.runLane(ctx, dir)
}

// runLane opens the lane's log, runs the lane, and takes both down.
func (n *Node) runLane(ctx context.Context, dir *dataDir) (err error) {
	const lane = 0
	incarnation, err := dir.incarnation()
	if err != nil {
		return err
	}
	path := dir.lane(lane)
	if err := os.MkdirAll(path, 0o750); err != nil {
		return fmt.Errorf("making the lane's directory: %w", err)
	}
	snapshot, err := replicate.NewestSnapshot(path)
	if err != nil {
		return err
	}
	log, err := wal.Open(wal.Config{
		Dir: path, SnapshotIndex: snapshot.Index, SnapshotTerm: snapshot.Term, SnapshotTaken: snapshot.TakenHere, RingBytes: int64(n.config.Node.Memory) / 8,
		StallTimeout: time.Duration(n.config.WAL.StallTimeout), OnFailure: n.fail,
		Logger: n.logger, Registerer: n.metrics, Lane: fmt.Sprint(lane),
	})
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	c := n.config
	l, err := replicate.Open(replicate.Config{
		NodeID: c.Node.ID, Gateway: c.Node.Gateway, Lane: lane, Lanes: 1, Dir: path, Store: log, Incarnation: incarnation,
		InFlightBytes: int64(c.WAL.InFlightBytes), SnapshotBytes: int64(c.WAL.SnapshotBytes),
		Retention: time.Duration(c.WAL.Retention), MaxBytes: int64(c.WAL.MaxBytes), MinFree: int64(c.WAL.MinFree),
		HardFree: hardFree(int64(c.WAL.MinFree)), Free: func() (uint64, error) { free, err := freeBytes(path); return uint64(free), err },
		ParkedMaxBytes: int64(c.Parked.MaxBytes), Logger: n.logger, Registerer: n.metrics, Lost: n.fail,
	})
	if err != nil {
		return err
	}
	n.setLane(l)
	defer func() {
		n.setLane(nil)
		closing, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		err = errors.Join(err, l.Close(closing))
	}()
	return n.leadUntil(ctx, l)
}

const (
	// closeTimeout bounds closing the lane once nothing uses it any more.
	closeTimeout = 10 * time.Second
	// serveWait is how long a start waits for a predecessor that still listens.
	serveWait = 5 * time.Second
	// shutdownTimeout bounds the answers under way when HTTP goes down.
	shutdownTimeout = 2 * time.Second
)

// hardFree is the free space below which no block is written at all: half of
// wal.minFree, so that what is in flight when that is reached still fits, and
// never less than the log needs to give space back.
func hardFree(minFree int64) int64 { return max(minFree/2, 8<<20) }

// fail ends the node with a reason, the first one. It never blocks.
func (n *Node) fail(err error) {
	select {
	case n.fatal <- err:
	default:
	}
}

func (n *Node) setLane(l *replicate.Lane) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lane = l
}

// serve listens, waiting for a predecessor to let go of the port, and serves.
func (n *Node) serve(ctx context.Context) (*http.Server, error) {
	address := n.config.Node.HTTP
	listener, err := listen(ctx, address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("listening on node.http %s: %w", address, ErrInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("listening on node.http: %w", err)
	}
	server := admin.NewServer(n, string(n.config.Node.Token), n.metrics)
	server.ErrorLog = slog.NewLogLogger(n.logger.Handler(), slog.LevelDebug)
	go func() {
		err := http.ErrServerClosed
		if tls := n.config.Node.TLS; tls != nil {
			err = server.ServeTLS(listener, tls.Cert, tls.Key)
		} else {
			err = server.Serve(listener)
		}
		if !errors.Is(err, http.ErrServerClosed) {
			n.fail(fmt.Errorf("serving HTTP: %w", err))
		}
	}()
	n.logger.Info("serving HTTP", "address", listener.Addr().String())
	return server, nil
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	deadline := time.Now().Add(serveWait)
	for {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(deadline) {
			return l, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (n *Node) stopServing(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		_ = server.Close()
	}
}

func buildInfo() prometheus.Collector {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "forebay_build_info", Help: "Always 1; the version is in the label.",
		ConstLabels: prometheus.Labels{"version": Version},
	})
	info.Set(1)
	return info
}
