package peer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// counter is a state machine: how many entries there were, and their checksum.
type counter struct {
	mu      sync.Mutex
	applied []string
	padding []byte // makes its snapshots large
}

func (c *counter) Apply(l *raft.Log) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := l.Data
	if len(text) > 32 {
		text = text[:32]
	}
	c.applied = append(c.applied, string(text))
	return nil
}

func (c *counter) has(entry string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.applied {
		if e == entry {
			return true
		}
	}
	return false
}

func (c *counter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.applied)
}

func (c *counter) Snapshot() (raft.FSMSnapshot, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out bytes.Buffer
	_ = binary.Write(&out, binary.LittleEndian, uint32(len(c.applied)))
	for _, e := range c.applied {
		_ = binary.Write(&out, binary.LittleEndian, uint32(len(e)))
		out.WriteString(e)
	}
	out.Write(c.padding)
	return frozen(out.Bytes()), nil
}

func (c *counter) Restore(in io.ReadCloser) error {
	raw, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.applied = nil
	n := binary.LittleEndian.Uint32(raw)
	raw = raw[4:]
	for range n {
		size := binary.LittleEndian.Uint32(raw)
		c.applied = append(c.applied, string(raw[4:4+size]))
		raw = raw[4+size:]
	}
	return in.Close()
}

type frozen []byte

func (f frozen) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(f); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (frozen) Release() {}

// disk is what survives a node's process.
type disk struct {
	store     *raft.InmemStore
	snapshots *raft.InmemSnapshotStore
}

func newDisk() *disk { return &disk{raft.NewInmemStore(), raft.NewInmemSnapshotStore()} }

// raftNode is a voter of lane 0 over a hub.
type raftNode struct {
	*testHub
	*raft.Raft
	transport *Transport
	fsm       *counter
	disk      *disk
}

func everybody(Identity, RPC) bool { return true }

// startRaft opens lane 0 on a hub and starts Raft over it; voters bootstrap an empty disk.
func startRaft(t testing.TB, h *testHub, d *disk, allowed Allowed, padding int, voters ...string) *raftNode {
	t.Helper()
	transport, err := h.Transport(0, allowed)
	if err != nil {
		t.Fatal(err)
	}
	rc := raft.DefaultConfig()
	rc.LocalID = raft.ServerID(h.ID().Node)
	rc.HeartbeatTimeout, rc.ElectionTimeout, rc.LeaderLeaseTimeout = 400*time.Millisecond, 400*time.Millisecond, 400*time.Millisecond
	rc.CommitTimeout = 5 * time.Millisecond
	rc.Logger = hclog.New(&hclog.LoggerOptions{Output: h.log, Level: hclog.Debug})
	rc.ShutdownOnRemove = false
	rc.TrailingLogs = 1
	rc.SnapshotThreshold, rc.SnapshotInterval = ^uint64(0), time.Hour
	if len(voters) > 0 {
		var conf raft.Configuration
		for _, v := range voters {
			conf.Servers = append(conf.Servers, raft.Server{ID: raft.ServerID(v), Address: raft.ServerAddress(v)})
		}
		if err := raft.BootstrapCluster(rc, d.store, d.store, d.snapshots, transport, conf); err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
			t.Fatal(err)
		}
	}
	n := &raftNode{testHub: h, transport: transport, fsm: &counter{padding: make([]byte, padding)}, disk: d}
	if n.Raft, err = raft.NewRaft(rc, n.fsm, d.store, d.store, d.snapshots, transport); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.stop(t) })
	return n
}

// stop ends a node's Raft and its lane: the transport first, so that Raft waits for no peer.
func (n *raftNode) stop(t testing.TB) {
	_ = n.transport.Close()
	if err := n.Shutdown().Error(); err != nil {
		t.Error(err)
	}
}

// crash ends a node as a killed process ends.
func (n *raftNode) crash(t testing.TB) {
	n.Cut()
	n.stop(t)
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

func awaitLeader(t testing.TB, nodes ...*raftNode) *raftNode {
	t.Helper()
	var leader *raftNode
	await(t, "one leads", func() bool {
		for _, n := range nodes {
			if n.State() == raft.Leader && n.VerifyLeader().Error() == nil {
				leader = n
				return true
			}
		}
		return false
	})
	return leader
}

func others(of *raftNode, nodes ...*raftNode) []*raftNode {
	var rest []*raftNode
	for _, n := range nodes {
		if n != of {
			rest = append(rest, n)
		}
	}
	return rest
}

func threeNodes(t testing.TB, change func(*Config)) []*raftNode {
	t.Helper()
	hubs := []*testHub{openHub(t, "n1", change), openHub(t, "n2", change), openHub(t, "n3", change)}
	acquaint(hubs...)
	var nodes []*raftNode
	for _, h := range hubs {
		nodes = append(nodes, startRaft(t, h, newDisk(), everybody, 0, "n1", "n2", "n3"))
	}
	return nodes
}

func commit(t testing.TB, leader *raftNode, entry string) {
	t.Helper()
	if err := leader.Apply([]byte(entry), patience).Error(); err != nil {
		t.Fatalf("committing %s on %s: %v\n%s", entry, leader.ID(), err, leader.log)
	}
}

// commitOn commits an entry on whoever leads; on a busy machine the lead may change meanwhile.
func commitOn(t testing.TB, entry string, nodes ...*raftNode) {
	t.Helper()
	for {
		leader := awaitLeader(t, nodes...)
		err := leader.Apply([]byte(entry), patience).Error()
		switch {
		case err == nil:
			return
		case errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrNotLeader):
		default:
			t.Fatalf("committing %s on %s: %v\n%s", entry, leader.ID(), err, leader.log)
		}
	}
}

func TestThreeNodesReplicate(t *testing.T) {
	ca := newAuthority(t)
	for name, change := range map[string]func(*Config){
		"TCP": nil,
		"TLS": func(c *Config) { c.TLS = ca.issue(t, t.TempDir(), named(c.ID.Node)) },
	} {
		t.Run(name, func(t *testing.T) {
			nodes := threeNodes(t, change)
			leader := awaitLeader(t, nodes...)
			for i := range 50 {
				commit(t, leader, fmt.Sprint("e", i))
			}
			for _, n := range nodes {
				await(t, "all have it", func() bool { return n.fsm.count() == 50 })
				if addr, id := n.LeaderWithID(); string(addr) != string(id) || string(id) != leader.ID().Node {
					t.Errorf("%s takes %s at %s for the leader", n.ID().Node, id, addr)
				}
			}
			if err := leader.LeadershipTransferToServer(raft.ServerID(others(leader, nodes...)[0].ID().Node), "").Error(); err != nil {
				t.Errorf("handing over: %v", err)
			}
			next := awaitLeader(t, others(leader, nodes...)...)
			commit(t, next, "after")
		})
	}
}

// The leader's process dies and comes back, on its address and with its disk, again and again:
// streams that others had to it are stale, and cost no election.
func TestLeadersDieAndComeBack(t *testing.T) {
	t.Parallel()
	nodes := threeNodes(t, nil)
	for round := range 5 {
		leader := awaitLeader(t, nodes...)
		commit(t, leader, fmt.Sprint("before", round))
		address := leader.Addr().String()
		leader.crash(t)
		rest := others(leader, nodes...)
		commitOn(t, fmt.Sprint("after", round), rest...)
		h := openHub(t, leader.ID().Node, func(c *Config) { c.Listener = listenAt(t, c.Listener, address) })
		acquaint(h, nodes[0].testHub, nodes[1].testHub, nodes[2].testHub)
		back := startRaft(t, h, leader.disk, everybody, 0)
		for i, n := range nodes {
			if n == leader {
				nodes[i] = back
			}
		}
		await(t, "it has caught up", func() bool { return back.fsm.has(fmt.Sprint("after", round)) })
	}
}

// A connection that nothing passes, without a word from the kernel, is given up for a new one when the
// way is free again.
func TestHalfOpenConnections(t *testing.T) {
	t.Parallel()
	n1, n2 := openHub(t, "n1", quickly), openHub(t, "n2", quickly)
	to2, to1 := newLink(t, n2.Addr().String()), newLink(t, n1.Addr().String())
	n1.SetPeer("n2", to2.Addr().String())
	n2.SetPeer("n1", to1.Addr().String())
	a := startRaft(t, n1, newDisk(), everybody, 0, "n1", "n2")
	b := startRaft(t, n2, newDisk(), everybody, 0, "n1", "n2")
	leader := awaitLeader(t, a, b)
	commit(t, leader, "before")
	to1.stall()
	to2.stall()
	await(t, "nobody leads", func() bool { return a.State() != raft.Leader && b.State() != raft.Leader })
	await(t, "both notice", func() bool { return !n1.status("n2").Reachable && !n2.status("n1").Reachable })
	to1.resume()
	to2.resume()
	commitOn(t, "after", a, b)
	await(t, "both notice", func() bool { return n1.status("n2").Reachable && n2.status("n1").Reachable })
	to1.cut(true)
	to2.cut(true)
	await(t, "nobody leads", func() bool { return a.State() != raft.Leader && b.State() != raft.Leader })
	to1.cut(false)
	to2.cut(false)
	commitOn(t, "at last", a, b)
	await(t, "both have it", func() bool { return a.fsm.has("at last") && b.fsm.has("at last") })
}

func quickly(c *Config) {
	c.QuickTimeout, c.BulkTimeout, c.DialTimeout, c.HandshakeTimeout = 300*time.Millisecond, time.Second, 300*time.Millisecond, 300*time.Millisecond
}

func TestASnapshotIsInstalled(t *testing.T) {
	t.Parallel()
	const padding = 24 << 20
	n1, n2 := openHub(t, "n1", nil), openHub(t, "n2", nil)
	acquaint(n1, n2)
	a := startRaft(t, n1, newDisk(), everybody, padding, "n1")
	awaitLeader(t, a)
	for i := range 20 {
		commit(t, a, fmt.Sprint("e", i))
	}
	if err := a.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	commit(t, a, "tail")
	b := startRaft(t, n2, newDisk(), everybody, 0)
	if err := a.AddNonvoter("n2", "n2", 0, patience).Error(); err != nil {
		t.Fatal(err)
	}
	await(t, "it has all", func() bool { return b.fsm.has("tail") && b.fsm.count() == 21 })
	if snaps, _ := b.disk.snapshots.List(); len(snaps) == 0 || snaps[0].Size < padding {
		t.Errorf("no snapshot came: %+v", snaps)
	}
}

// A lane is closed while others speak to it, and opened again.
func TestALaneIsClosedAndOpened(t *testing.T) {
	t.Parallel()
	nodes := threeNodes(t, nil)
	leader := awaitLeader(t, nodes...)
	follower := others(leader, nodes...)[0]
	if _, err := follower.Transport(0, everybody); err == nil {
		t.Error("a lane is open twice")
	}
	follower.stop(t)
	commit(t, leader, "meanwhile")
	if s := leader.status(follower.ID().Node); s.Refusal != nil {
		t.Errorf("a lane that is not open is taken for a refusal of the peer: %+v", s.Refusal)
	}
	back := startRaft(t, follower.testHub, follower.disk, everybody, 0)
	await(t, "it has caught up", func() bool { return back.fsm.has("meanwhile") })
}

// A peer that is forgotten is cut off at once.
func TestAForgottenPeerIsCutOff(t *testing.T) {
	t.Parallel()
	nodes := threeNodes(t, nil)
	leader := awaitLeader(t, nodes...)
	gone := others(leader, nodes...)[0]
	for _, n := range others(gone, nodes...) {
		n.Forget(gone.ID().Node)
	}
	if n := len(leader.streams.which(func(s *stream) bool { return s.who.Node == gone.ID().Node })); n != 0 {
		t.Errorf("%d streams are left", n)
	}
	commitOn(t, "without it", others(gone, nodes...)...)
	await(t, "it learns why", func() bool {
		r := gone.status(leader.ID().Node).Refusal
		return r != nil && r.Code == CodeUnknown
	})
	if gone.fsm.has("without it") {
		t.Error("it still has what is committed")
	}
}
