package peer

import (
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// records are the data directories that a lane's state records.
type records struct {
	mu sync.Mutex
	of map[string][16]byte
}

func recordsOf(nodes ...string) *records {
	r := &records{of: map[string][16]byte{}}
	for _, n := range nodes {
		r.of[n] = incarnationOf(n, 1)
	}
	return r
}

func (r *records) allowed(who Identity, _ RPC) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.of[who.Node] == who.Incarnation
}

func (r *records) record(who Identity) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of[who.Node] = who.Incarnation
}

// emptied plays: E is committed on A and B; B is wiped; A dies; C, without E, comes back. It
// gives C, the emptied B, and A's disk.
func emptied(t *testing.T, allowedAtC, allowedAtB Allowed) (c, b *raftNode, diskOfA *disk) {
	t.Helper()
	nodes := threeNodes(t, nil)
	a, old, behind := nodes[0], nodes[1], nodes[2]
	addresses := map[string]string{}
	for _, n := range nodes {
		addresses[n.ID().Node] = n.Addr().String()
	}
	commitOn(t, "before", nodes...)
	await(t, "all have it", func() bool { return a.fsm.has("before") && old.fsm.has("before") && behind.fsm.has("before") })
	behind.crash(t)
	commitOn(t, "E", a, old)
	await(t, "both have it", func() bool { return a.fsm.has("E") && old.fsm.has("E") })
	old.crash(t)
	a.crash(t)
	again := func(node string, n byte) *testHub {
		h := openHub(t, node, func(c *Config) {
			c.ID.Incarnation = incarnationOf(node, n)
			c.Listener = listenAt(t, c.Listener, addresses[node])
			c.Peers = addresses
		})
		return h
	}
	b = startRaft(t, again("n2", 2), newDisk(), allowedAtB, 0)
	c = startRaft(t, again("n3", 1), behind.disk, allowedAtC, 0)
	return c, b, a.disk
}

// Without the gate the emptied node elects C, and E is lost: what the tests below would not
// notice if the sequence were wrong.
func TestWithoutTheGateAnEmptiedNodeElects(t *testing.T) {
	t.Parallel()
	c, _, _ := emptied(t, everybody, everybody)
	leader := awaitLeader(t, c)
	commit(t, leader, "after")
	if leader.fsm.has("E") {
		t.Error("E is there: the sequence is not the one that loses it")
	}
}

// HARD-CASES 11, with the gate on one side only, either of the two.
func TestAnEmptiedNodeDoesNotVote(t *testing.T) {
	recorded := recordsOf("n1", "n2", "n3")
	nobody := func(Identity, RPC) bool { return false }
	for name, tc := range map[string]struct {
		atC, atB Allowed
		kept     func(c, b *raftNode) bool
	}{
		"C refuses to ask it": {recorded.allowed, everybody, func(c, _ *raftNode) bool {
			return c.log.count("node kept out of the lane", "direction=out", "n2/ee02") == 1
		}},
		"it refuses to answer": {everybody, nobody, func(_, b *raftNode) bool {
			return b.log.count("node kept out of the lane", "direction=in", "n3/ee01") == 1
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, b, _ := emptied(t, tc.atC, tc.atB)
			await(t, "C has asked for votes", func() bool { return tc.kept(c, b) })
			// Several rounds of elections, by their effect: each is preceded by looking for its voters.
			asked := time.NewTimer(1500 * time.Millisecond)
			defer asked.Stop()
			tick := time.NewTicker(5 * time.Millisecond)
			defer tick.Stop()
			for done := false; !done; {
				if c.State() == raft.Leader || b.State() == raft.Leader {
					t.Fatal("an emptied node has elected one without E")
				}
				select {
				case <-asked.C:
					done = true
				case <-tick.C:
				}
			}
			if got := b.CurrentTerm(); got != 0 {
				t.Errorf("the emptied node is in term %d", got)
			}
			if !tc.kept(c, b) {
				t.Error("it is said more than once")
			}
		})
	}
}

// … and how it comes back: the leader demotes it, it is caught up, and promoted.
func TestAnEmptiedNodeComesBack(t *testing.T) {
	t.Parallel()
	recorded := recordsOf("n1", "n2", "n3")
	c, b, diskOfA := emptied(t, recorded.allowed, everybody)
	h := openHub(t, "n1", nil)
	acquaint(h, c.testHub, b.testHub)
	a := startRaft(t, h, diskOfA, recorded.allowed, 0)
	leader := awaitLeader(t, a) // C has not got E, so it cannot be C
	await(t, "C has E", func() bool { return c.fsm.has("E") })
	if b.fsm.count() != 0 || b.CurrentTerm() != 0 {
		t.Errorf("the emptied node got %d entries in term %d before it was demoted", b.fsm.count(), b.CurrentTerm())
	}
	if err := leader.DemoteVoter("n2", 0, patience).Error(); err != nil {
		t.Fatal(err)
	}
	recorded.record(b.ID())
	await(t, "it is caught up", func() bool { return b.fsm.has("E") })
	if err := leader.AddVoter("n2", "n2", 0, patience).Error(); err != nil {
		t.Fatal(err)
	}
	commit(t, leader, "F")
	await(t, "it has all", func() bool { return b.fsm.has("F") })
	a.crash(t)
	commitOn(t, "G", b, c)
	if !b.fsm.has("E") || !c.fsm.has("E") {
		t.Error("E is lost")
	}
	if n := a.log.count("node takes part in the lane", "n2/ee02", "direction=out"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// knocker speaks raft's protocol to a hub as any node with any data directory.
func knocker(t *testing.T, to *testHub, who Identity) *raft.NetworkTransport {
	t.Helper()
	h := openHub(t, who.Node, func(c *Config) { c.ID = who; c.PingInterval = time.Hour })
	h.SetPeer(to.ID().Node, to.Addr().String())
	transport, err := h.Transport(0, everybody)
	if err != nil {
		t.Fatal(err)
	}
	return transport.quick
}

func TestTheGateIsAskedOfEveryRequest(t *testing.T) {
	n1 := openHub(t, "n1", nil)
	n1.SetPeer("n2", "127.0.0.1:1")
	recorded := recordsOf("n1", "n2")
	transport, err := n1.Transport(0, recorded.allowed)
	if err != nil {
		t.Fatal(err)
	}
	reached := make(chan any, 8)
	respond := func(rpc raft.RPC) {
		reached <- rpc.Command
		var resp any
		switch rpc.Command.(type) {
		case *raft.RequestVoteRequest:
			resp = &raft.RequestVoteResponse{Granted: true}
		case *raft.RequestPreVoteRequest:
			resp = &raft.RequestPreVoteResponse{Granted: true}
		case *raft.TimeoutNowRequest:
			resp = &raft.TimeoutNowResponse{}
		case *raft.InstallSnapshotRequest:
			_, _ = io.Copy(io.Discard, rpc.Reader)
			resp = &raft.InstallSnapshotResponse{Success: true}
		default:
			resp = &raft.AppendEntriesResponse{Success: true}
		}
		rpc.Respond(resp, nil)
	}
	transport.SetHeartbeatHandler(respond)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case rpc := <-transport.Consumer():
				respond(rpc)
			case <-stop:
				return
			}
		}
	}()
	defer func() { close(stop); <-stopped }()

	header := func(node string) raft.RPCHeader {
		return raft.RPCHeader{ProtocolVersion: 3, ID: []byte(node), Addr: []byte(node)}
	}
	n1Address := addressOf(n1.ID())
	sends := map[string]func(*raft.NetworkTransport, raft.RPCHeader) error{
		"vote": func(c *raft.NetworkTransport, h raft.RPCHeader) error {
			return c.RequestVote("n1", n1Address, &raft.RequestVoteRequest{RPCHeader: h, Term: 1}, &raft.RequestVoteResponse{})
		},
		"pre-vote": func(c *raft.NetworkTransport, h raft.RPCHeader) error {
			return c.RequestPreVote("n1", n1Address, &raft.RequestPreVoteRequest{RPCHeader: h, Term: 1}, &raft.RequestPreVoteResponse{})
		},
		"timeout now": func(c *raft.NetworkTransport, h raft.RPCHeader) error {
			return c.TimeoutNow("n1", n1Address, &raft.TimeoutNowRequest{RPCHeader: h}, &raft.TimeoutNowResponse{})
		},
		"heartbeat": func(c *raft.NetworkTransport, h raft.RPCHeader) error {
			return c.AppendEntries("n1", n1Address, &raft.AppendEntriesRequest{RPCHeader: h, Term: 1}, &raft.AppendEntriesResponse{})
		},
		"entries": func(c *raft.NetworkTransport, h raft.RPCHeader) error {
			return c.AppendEntries("n1", n1Address, &raft.AppendEntriesRequest{RPCHeader: h, Term: 1, PrevLogEntry: 1, Entries: []*raft.Log{{Index: 2}}}, &raft.AppendEntriesResponse{})
		},
		"snapshot": func(c *raft.NetworkTransport, h raft.RPCHeader) error {
			return c.InstallSnapshot("n1", n1Address, &raft.InstallSnapshotRequest{RPCHeader: h, Term: 1, Size: 3}, &raft.InstallSnapshotResponse{}, strings.NewReader("abc"))
		},
	}
	genuine := knocker(t, n1, Identity{"n2", incarnationOf("n2", 1)})
	wiped := knocker(t, n1, Identity{"n2", incarnationOf("n2", 2)})
	for name, send := range sends {
		t.Run(name, func(t *testing.T) {
			if err := send(genuine, header("n2")); err != nil {
				t.Errorf("from the data directory that is recorded: %v", err)
			}
			<-reached
			err := send(wiped, header("n2"))
			if name == "snapshot" {
				if err != nil {
					t.Errorf("a snapshot must pass: %v", err)
				}
				<-reached
				return
			}
			mustFail(t, err, ErrKeptOut.Error(), "n2/ee02")
			if strings.Contains(err.Error(), "unexpected command") {
				t.Errorf("raft takes %q for a vote", err)
			}
			mustFail(t, send(genuine, header("n3")), `speaks for "n3"`)
			if len(reached) > 0 {
				t.Errorf("raft was given %T", <-reached)
			}
		})
	}
}

// A request goes to the data directory that the lane was asked about, and to no other.
func TestRequestsGoToTheDirectoryThatWasAskedAbout(t *testing.T) {
	n1, n2 := openHub(t, "n1", func(c *Config) { c.PingInterval = time.Hour }), openHub(t, "n2", nil)
	acquaint(n1, n2)
	var asked []Identity
	transport, err := n1.Transport(0, func(who Identity, _ RPC) bool { asked = append(asked, who); return who == n2.ID() })
	if err != nil {
		t.Fatal(err)
	}
	inner, err := n2.Transport(0, everybody)
	if err != nil {
		t.Fatal(err)
	}
	inner.SetHeartbeatHandler(func(rpc raft.RPC) { rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil) })
	beat := func() error {
		return transport.AppendEntries("n2", "n2", &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ID: []byte("n1"), Addr: []byte("n1")}, Term: 1}, &raft.AppendEntriesResponse{})
	}
	if err := beat(); err != nil {
		t.Fatal(err)
	}
	address := n2.Addr().String()
	if err := n2.Close(); err != nil {
		t.Fatal(err)
	}
	wiped := openHub(t, "n2", func(c *Config) {
		c.ID.Incarnation, c.Listener = incarnationOf("n2", 2), listenAt(t, c.Listener, address)
	})
	acquaint(wiped, n1)
	again, err := wiped.Transport(0, everybody)
	if err != nil {
		t.Fatal(err)
	}
	again.SetHeartbeatHandler(func(rpc raft.RPC) {
		t.Error("the emptied node was sent a request")
		rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
	})
	mustFail(t, beat(), ErrKeptOut.Error())
	if last := asked[len(asked)-1]; last != wiped.ID() {
		t.Errorf("the lane was asked about %s last, want %s", last, wiped.ID())
	}
	if p, err := transport.AppendEntriesPipeline("n2", "n2"); p != nil || err != raft.ErrPipelineReplicationNotSupported { //nolint:errorlint // raft compares it so
		t.Errorf("a pipeline past the gate: %v, %v", p, err)
	}
}
