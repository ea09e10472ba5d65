package replicate

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// Store is the log on this node's disk. All methods are safe for concurrent use.
//
// StoreLogs returns when the entries are synced. IsMonotonic is true: the log
// has no holes, but may begin anywhere. DeleteRange from the front deletes only
// what lies below the floor, whatever the range says; from the back it deletes at once.
type Store interface {
	raft.LogStore
	raft.MonotonicLogStore
	// ReadLog is GetLog, but may read into *buf, which it makes larger where need be: out is
	// valid until *buf is used again. For who reads many entries one after the other.
	ReadLog(index uint64, out *raft.Log, buf *[]byte) error
	// ReadStart is GetLog, but a command that was there when the log was opened may come with
	// no more of its data than KeepStart wants, until ForgetStarts.
	ReadStart(index uint64, out *raft.Log) error
	ForgetStarts()
	// SetFloor names the first entry that must be kept. It is called while entries
	// are applied, so it does nothing slow, and ignores an index below an earlier one.
	SetFloor(index uint64)
	// SetApplied names the last entry that the state machine has applied; called
	// as SetFloor is.
	SetApplied(index uint64)
	// Installed says that a leader's snapshot up to index, of term, replaced the
	// state: the next deletion of the whole log is obeyed whatever the floor is,
	// and the log, which may be empty, then begins at index+1.
	Installed(index, term uint64)
	// Bytes is the size of the log.
	Bytes() int64
	// BytesBefore is how many of them belong to entries below index; an
	// estimate to within a segment.
	BytesBefore(index uint64) int64
}

// Voter is a member of the group.
type Voter struct {
	ID, Address string
}

// Config says what a lane is and where its limits are. Fields without a default are
// required.
type Config struct {
	// NodeID names this node, Gateway the whole cluster. The lane's directory
	// remembers both, and refuses others.
	NodeID, Gateway string
	// Lane is the number of this lane, from 0, of Lanes.
	Lane, Lanes uint32
	// Dir is the lane's directory; it must exist.
	Dir string
	// Store is the lane's log, open. The lane does not close it.
	Store Store
	// Incarnation tells this data directory from one that was wiped.
	Incarnation [16]byte
	// Voters form the lane when its directory is empty; empty means this node alone.
	Voters []Voter
	// Transport reaches the other voters; nil is in memory, for a single voter. Closed by Close.
	Transport raft.Transport

	// ElectionTimeout is how long a follower waits for a leader, and a leader for a
	// majority. Default 1 s; 50 ms for a single voter, who has nobody to wait for.
	ElectionTimeout time.Duration

	// InFlightBytes bounds the blocks that are proposed and not yet settled; a
	// single larger block still goes. Default 2 MiB: beyond that only latency grows.
	InFlightBytes int64
	// SnapshotBytes and SnapshotEntries are how much is logged between two
	// snapshots, whichever comes first, and so how much a start replays.
	// Defaults 256 MiB (at most 1/32 of MaxBytes) and 50,000.
	SnapshotBytes   int64
	SnapshotEntries int64
	// Retention is how long a delivered batch stays in the log, from its cut.
	Retention time.Duration
	// MaxBytes is the size of the log at which intake is held, in bytes; 0 is no limit.
	MaxBytes int64
	// MinFree is the free disk space, in bytes, below which intake is held;
	// HardFree the one below which nothing but cuts, dones and what frees space is
	// written. Both need Free.
	MinFree, HardFree int64
	// MaxBatches is how many cut batches the state keeps before intake is held.
	// Default 200,000.
	MaxBatches uint64
	// Free tells the free space of the log's disk in bytes; nil is not to look.
	Free func() (uint64, error)
	// ParkedMaxBytes bounds the records that are parked and not discarded.
	ParkedMaxBytes int64

	// Logger gets one line per event that an operator acts on; nil is none.
	Logger *slog.Logger
	// Registerer takes the metrics; nil is none.
	Registerer prometheus.Registerer
	// Clock is the wall clock; nil is time.Now.
	Clock func() time.Time
	// Lost is called at most once, when this node must end: it would diverge from
	// the others. It must not block nor call the lane. nil is not to tell.
	Lost func(err error)
}

const (
	defaultInFlightBytes   = 2 << 20
	defaultSnapshotBytes   = 256 << 20
	defaultSnapshotEntries = 50_000
	defaultMaxBatches      = 200_000
	minSnapshotBytes       = 256 << 10
)

// withDefaults checks the configuration and fills in what was left out.
func (c Config) withDefaults() (Config, error) {
	var errs []error
	require := func(ok bool, what string) {
		if !ok {
			errs = append(errs, fmt.Errorf("lane %d: %s is missing", c.Lane, what))
		}
	}
	require(c.NodeID != "", "the node's id")
	require(c.Gateway != "", "the gateway's name")
	require(c.Dir != "", "the directory")
	require(c.Store != nil, "the log")
	require(c.Lanes > c.Lane, "the number of lanes")
	require(len(c.Voters) < 2 || c.Transport != nil, "the transport to the other voters")
	if len(c.Voters) == 0 {
		c.Voters = []Voter{{ID: c.NodeID, Address: c.NodeID}}
	}
	if c.ElectionTimeout <= 0 {
		c.ElectionTimeout = electionTimeout
		if len(c.Voters) < 2 {
			c.ElectionTimeout = singleVoterTimeout
		}
	}
	c.InFlightBytes = orDefault(c.InFlightBytes, defaultInFlightBytes)
	c.SnapshotBytes = orDefault(c.SnapshotBytes, defaultSnapshotBytes)
	c.SnapshotEntries = orDefault(c.SnapshotEntries, defaultSnapshotEntries)
	c.MaxBatches = orDefault(c.MaxBatches, defaultMaxBatches)
	if c.MaxBytes > 0 {
		c.SnapshotBytes = min(c.SnapshotBytes, max(c.MaxBytes/32, minSnapshotBytes))
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Logger = c.Logger.With("lane", c.Lane)
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Lost == nil {
		c.Lost = func(error) {}
	}
	return c, errors.Join(errs...)
}

func orDefault[T int64 | uint64](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// raftConfig sets Raft up: our own snapshots only, everything below a snapshot
// offered to the store, which keeps what lies above its floor.
func (c *Config) raftConfig() *raft.Config {
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(c.NodeID)
	rc.SnapshotThreshold = noAutomaticSnapshots
	rc.SnapshotInterval = snapshotPollInterval
	rc.TrailingLogs = 0
	rc.ShutdownOnRemove = false
	rc.NoLegacyTelemetry = true
	rc.MaxAppendEntries = maxAppendEntries
	// Without a buffer the main loop finds at most one block waiting when it comes
	// back from a sync, and pipelining is lost. The buffer is as long as the
	// number of proposals that we allow, so that Apply never blocks.
	rc.BatchApplyCh = true
	rc.Logger = newRaftLogger(c.Logger, len(c.Voters) < 2)
	rc.HeartbeatTimeout = c.ElectionTimeout
	rc.ElectionTimeout = c.ElectionTimeout
	rc.LeaderLeaseTimeout = c.ElectionTimeout / 2
	return rc
}

const (
	noAutomaticSnapshots = ^uint64(0)
	snapshotPollInterval = 24 * time.Hour
	electionTimeout      = time.Second
	singleVoterTimeout   = 50 * time.Millisecond
	// maxAppendEntries bounds Raft's group commit, the length of its apply
	// channel, and with it our proposals: blockSlots for blocks, controlSlots for
	// everything else.
	maxAppendEntries = 64
	controlSlots     = 16
	blockSlots       = maxAppendEntries - controlSlots
)
