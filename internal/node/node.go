// Package node builds a node from its configuration and runs it: HTTP, data
// directory, log, lane, and for each term of the lead a receiver and a batcher.
// What is built in order is taken down in reverse, each step waiting for the last.
//
// [Run] promises:
//
//   - Nothing is written before the data directory is locked and known to be this
//     node's; a directory or log that is not whole does not start.
//   - Told to stop, it ends the intake and the deliveries together: what was appended
//     is settled and its offsets are committed, what is being delivered is
//     finished, and what is not stays in the log. That takes node.stopTimeout at most,
//     a hung destination or disk included, and then some seconds to close.
//   - A log that fails, a state that cannot be trusted and a destination of
//     somebody else end it with the reason. A destination that is merely dead does not.
//
// DESIGN.md in this folder draws the data directory and argues its crash points.
package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"forebay/internal/config"
	"forebay/replicate"
	"forebay/sinks"
	"forebay/wal"
)

// Version of this program.
const Version = "0.1.0"

// Options of a node. All fields are required.
type Options struct {
	Config *config.File
	// Logger gets the node's first line and its last, with the reason for its end.
	Logger *slog.Logger
	// Stdout is where stdout sinks write.
	Stdout io.Writer
}

// Node is a running node: what HTTP speaks for. Its methods are safe for concurrent use.
type Node struct {
	config *config.File
	logger *slog.Logger
	// parts is the logger of all rooms: what fails there after the node has
	// failed is its consequence, and the reason is said once, at the end.
	parts   *slog.Logger
	failed  atomic.Bool
	stdout  io.Writer
	metrics *prometheus.Registry
	machine machine
	// fatal takes the first reason that ends the process, hung the one that leaves no
	// time to end anything; see fail and stalled.
	fatal, hung chan error
	wires       wires
	// looked says that all destinations have been opened once; for the term's goroutine.
	looked bool

	mu       sync.Mutex
	address  string          // of HTTP, once it listens
	stage    string          // what a start is at, "" afterwards
	stopping bool            // told to stop
	lane     *replicate.Lane // nil until it is open
	lead     *lead           // nil while this node does not lead
}

// machine is what a node takes for granted, and a test replaces.
type machine struct {
	// lockWait and serveWait are how long a start waits for a predecessor that
	// still holds the directory or the port: a killed process keeps both while the
	// kernel waits for its disk.
	lockWait, serveWait time.Duration
	// endGrace is how long the parts have to end after a failure, or after a
	// graceful stop that took too long.
	endGrace time.Duration
	// free is the disk space that may still be written at a path, in bytes.
	free func(path string) (int64, error)
	// files is the log's file layer, nil for the operating system.
	files wal.Files
	// sink makes a sink from its configuration.
	sink func(name string, c config.Sink, out io.Writer, logger *slog.Logger) (sinks.Sink, error)
}

func thisMachine() machine {
	return machine{lockWait: 5 * time.Second, serveWait: 5 * time.Second, endGrace: 3 * time.Second, free: freeBytes, sink: newSink}
}

const (
	// closeTimeout bounds closing the lane once nothing uses it any more.
	closeTimeout = 10 * time.Second
	// shutdownTimeout bounds the answers under way when HTTP goes down.
	shutdownTimeout = 2 * time.Second
)

// Run runs a node until ctx ends, which stops it gracefully and returns nil, or
// until it must end, which returns why; the reason is in the log then, too. After
// an error parts of the node that hang may still be there: end the process.
func Run(ctx context.Context, o Options) error { return newNode(o, thisMachine()).run(ctx) }

func newNode(o Options, m machine) *Node {
	n := &Node{
		config: o.Config, logger: o.Logger, stdout: o.Stdout, machine: m,
		metrics: prometheus.NewRegistry(), fatal: make(chan error, 1), hung: make(chan error, 1),
	}
	n.parts = slog.New(afterFailure{o.Logger.Handler(), &n.failed})
	n.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())
	return n
}

// run says when the node begins and ends, and why.
func (n *Node) run(ctx context.Context) error {
	began := time.Now()
	c := &n.config.Node
	n.logger.Info("forebay starts", "version", Version, "gateway", c.Gateway, "node", c.ID,
		"data_dir", c.DataDir, "config", n.config.Path(), "sinks", n.sinkList())
	n.sayUnread()
	err := n.unlessHung(ctx, n.build)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = fmt.Errorf("%w: free some space where node.dataDir is (%s), then start again", err, c.DataDir)
	}
	ran := time.Since(began).Round(time.Millisecond)
	lastWord(func() {
		if err != nil {
			n.logger.Error("forebay ends", "error", err, "ran", ran)
			return
		}
		n.logger.Info("forebay ends", "reason", "told to stop", "cause", context.Cause(ctx), "ran", ran)
	})
	return err
}

// sayUnread warns of topics that are routed to a sink and that nobody reads. It is
// no error: the log may still hold records of a topic that is read no more.
func (n *Node) sayUnread() {
	for _, name := range slices.Sorted(maps.Keys(n.config.Sinks)) {
		for _, topic := range n.config.Sinks[name].Topics {
			if !slices.Contains(n.config.Receiver.Kafka.Topics, topic) {
				n.logger.Warn("a sink is routed a topic that receiver.kafka.topics does not name; it gets what the log still holds of it, and nothing else",
					"sink", name, "topic", topic)
			}
		}
	}
}

// sinkList names the configured sinks with their kinds.
func (n *Node) sinkList() string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(n.config.Sinks)) {
		c := n.config.Sinks[name]
		list = append(list, fmt.Sprintf("%s (%s)", name, c.Kind()))
	}
	return strings.Join(list, ", ")
}

// build makes what the lane stands on, runs it, and takes all down.
func (n *Node) build(ctx context.Context) error {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(n.config.Node.Memory))
	}
	n.at("waiting for the address of node.http and the data directory")
	// HTTP comes first and goes last, so that whoever asks learns what is going on.
	stopServing, err := n.serve(ctx)
	if err != nil {
		return unlessTold(ctx, err)
	}
	defer stopServing()
	dir, err := openDataDir(ctx, n.config.Node.DataDir, n.config.Node.ID, n.config.Node.Gateway, turn{n.machine.lockWait, func(holder string) {
		n.logger.Warn("waiting: another process has the data directory", "data_dir", n.config.Node.DataDir, "holder", holder, "at_most", n.machine.lockWait)
	}})
	if err != nil {
		return unlessTold(ctx, err)
	}
	n.logger.Info("serving HTTP", "address", n.address)
	n.keepReserve(dir.path)
	err = n.runLane(ctx, dir)
	if !isAbandoned(err) {
		dir.close()
	}
	return err
}

// unlessTold gives no error when a start was only told to stop while it waited.
func unlessTold(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return nil
	}
	return err
}

// keepReserve gives the reserved space back where the disk is nearly full, and
// makes the reserve where there is room.
func (n *Node) keepReserve(dir string) {
	r := newReserve(dir, n.machine.free)
	given, err := r.give()
	if given {
		n.logger.Warn("the disk is nearly full: the reserve was given back so that the node can start; free some space", "dir", dir)
	}
	taken := false
	if err == nil && !given {
		taken, err = r.take()
	}
	switch {
	case err != nil:
		n.logger.Warn("no disk space is reserved for the day the disk is full", "dir", dir, "error", err)
	case !taken && !given:
		n.logger.Warn("no disk space is reserved for the day the disk is full: there is too little left", "dir", dir, "wanted_bytes", 2*reserveBytes)
	}
}

// runLane opens the lane's log, runs the lane, and takes both down.
func (n *Node) runLane(ctx context.Context, dir *dataDir) (err error) {
	const lane = 0
	n.at("the log is being opened")
	path, err := dir.lane(lane)
	if err != nil {
		return err
	}
	log, err := n.openLog(path, fmt.Sprint(lane))
	if err != nil {
		return err
	}
	defer func() {
		if !isAbandoned(err) {
			err = errors.Join(err, log.Close())
		}
	}()
	l, err := replicate.Open(n.laneConfig(lane, path, log, dir.incarnation))
	if err != nil {
		return err
	}
	n.setLane(l)
	defer func() {
		n.setLane(nil)
		if !isAbandoned(err) {
			err = closeLane(l, err)
		}
	}()
	if err := dir.formed(lane); err != nil {
		return err
	}
	n.at("")
	return n.leadUntil(ctx, l)
}

func (n *Node) openLog(path, lane string) (*wal.Log, error) {
	newest, err := replicate.NewestSnapshot(path)
	if err != nil {
		return nil, fmt.Errorf("looking for the newest snapshot in %s: %w", path, err)
	}
	log, err := wal.Open(wal.Config{
		Dir: path, SnapshotIndex: newest.Index, SnapshotTerm: newest.Term, SnapshotTaken: newest.TakenHere,
		KeepStart: replicate.KeepStart,
		RingBytes: int64(n.config.Node.Memory) / 8, StallTimeout: time.Duration(n.config.WAL.StallTimeout),
		OnFailure: n.logFailed, LockWait: cmp.Or(n.machine.lockWait, -1), Files: n.machine.files,
		Logger: n.parts, Registerer: n.metrics, Lane: lane,
	})
	if errors.Is(err, wal.ErrInUse) {
		err = fmt.Errorf("%w: %w", ErrInUse, err)
	}
	return log, err
}

func (n *Node) laneConfig(lane uint32, path string, log *wal.Log, incarnation [16]byte) replicate.Config {
	c := n.config
	return replicate.Config{
		NodeID: c.Node.ID, Gateway: c.Node.Gateway, Lane: lane, Lanes: 1, Dir: path, Store: log, Incarnation: incarnation,
		InFlightBytes: int64(c.WAL.InFlightBytes), SnapshotBytes: int64(c.WAL.SnapshotBytes),
		Retention: time.Duration(c.WAL.Retention), MaxBytes: int64(c.WAL.MaxBytes), MinFree: int64(c.WAL.MinFree),
		HardFree: hardFree(int64(c.WAL.MinFree)), Free: func() (uint64, error) { free, err := n.machine.free(path); return uint64(free), err },
		ParkedMaxBytes: int64(c.Parked.MaxBytes), Logger: n.parts, Registerer: n.metrics, Lost: n.fail,
	}
}

// hardFree is the free space below which no block is written at all: half of
// wal.minFree, so that what is in flight when that is reached still fits, and
// never less than the log needs to give space back.
func hardFree(minFree int64) int64 { return max(minFree/2, 8<<20) }

// closeLane closes the lane after a run that ended with err.
func closeLane(l *replicate.Lane, err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	closing := l.Close(ctx)
	if ctx.Err() != nil {
		return abandoned{errors.Join(err, closing)}
	}
	return errors.Join(err, closing)
}

// abandoned is the end of a node of which parts did not stop in time. They may
// still use what would be closed next, so that is left to the end of the process.
type abandoned struct{ error }

func (a abandoned) Unwrap() error { return a.error }

func isAbandoned(err error) bool {
	var a abandoned
	return errors.As(err, &a)
}

// fail ends the node with a reason, the first one. It never blocks.
func (n *Node) fail(err error) {
	n.failed.Store(true)
	select {
	case n.fatal <- err:
	default:
	}
}

// afterFailure keeps errors out of the log once the node has failed.
type afterFailure struct {
	slog.Handler
	failed *atomic.Bool
}

func (h afterFailure) Enabled(ctx context.Context, level slog.Level) bool {
	return h.Handler.Enabled(ctx, level) && (level < slog.LevelError || !h.failed.Load())
}

func (h afterFailure) WithAttrs(attrs []slog.Attr) slog.Handler {
	return afterFailure{h.Handler.WithAttrs(attrs), h.failed}
}

func (h afterFailure) WithGroup(name string) slog.Handler {
	return afterFailure{h.Handler.WithGroup(name), h.failed}
}

// logFailed ends the node because its log did.
func (n *Node) logFailed(err error) {
	var write *wal.FailedError
	switch {
	case errors.Is(err, wal.ErrStalled):
		n.stalled(err)
		return
	case errors.As(err, &write):
		err = fmt.Errorf("%w; what was acknowledged is on disk: see to the disk and start the node again, which repairs what was being written", err)
	}
	n.fail(err)
}

func (n *Node) setLane(l *replicate.Lane) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lane = l
}

// at notes what a start is at, for /-/ready.
func (n *Node) at(stage string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stage = stage
}

func buildInfo() prometheus.Collector {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "forebay_build_info", Help: "Always 1; the version is in the label.",
		ConstLabels: prometheus.Labels{"version": Version},
	})
	info.Set(1)
	return info
}
