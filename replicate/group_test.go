package replicate

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"forebay/internal/record"
	"forebay/replicate/state"
)

// group is three voters in one process.
type group struct {
	t      *testing.T
	voters []Voter
	nets   map[string]*raft.InmemTransport
	dirs   map[string]string
	stores map[string]*memStore
	edit   func(*Config)
}

func newGroup(t *testing.T, edit func(*Config)) *group {
	t.Helper()
	g := &group{t: t, nets: map[string]*raft.InmemTransport{}, dirs: map[string]string{}, stores: map[string]*memStore{}, edit: edit}
	for i := range 3 {
		id := fmt.Sprintf("n%d", i+1)
		g.voters = append(g.voters, Voter{ID: id, Address: id})
		g.dirs[id], g.stores[id] = t.TempDir(), newMemStore()
	}
	return g
}

// open starts a node of the group; terms of its lead come on the channel.
func (g *group) open(id string) *lane {
	g.t.Helper()
	_, net := raft.NewInmemTransportWithTimeout(raft.ServerAddress(id), 200*time.Millisecond)
	g.nets[id] = net
	g.heal()
	cfg := testConfig(g.t, g.dirs[id], g.stores[id])
	cfg.NodeID, cfg.Voters, cfg.Transport, cfg.ElectionTimeout = id, g.voters, net, 150*time.Millisecond
	if g.edit != nil {
		g.edit(&cfg)
	}
	return launch(g.t, cfg)
}

// heal connects all nodes with each other.
func (g *group) heal() {
	for a, from := range g.nets {
		for b, to := range g.nets {
			if a != b {
				from.Connect(raft.ServerAddress(b), to)
			}
		}
	}
}

// cut off a node from the others, both ways.
func (g *group) cutOff(id string) {
	g.nets[id].DisconnectAll()
	for other, net := range g.nets {
		if other != id {
			net.Disconnect(raft.ServerAddress(id))
		}
	}
}

// leader waits until one of the nodes leads, and gives it with its term.
func (g *group) leader(nodes ...*lane) *lane {
	g.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		for _, n := range nodes {
			select {
			case n.term = <-n.terms:
				return n
			default:
			}
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			g.t.Fatal("no leader within 10 s")
		}
	}
}

func TestAnotherNodeTakesTheLeadOver(t *testing.T) {
	g := newGroup(t, nil)
	nodes := []*lane{g.open("n1"), g.open("n2"), g.open("n3")}
	old := g.leader(nodes...)
	old.bases("a")
	old.mustAppend(seal(t, "a", 0, 10, 10))

	// Cut off, it may go on proposing, and learns that it lost the lead.
	g.cutOff(old.cfg.NodeID)
	err := old.append(seal(t, "a", 10, 10, 10))
	if !errors.Is(err, record.ErrLeadLost) {
		t.Fatalf("a block without a majority settled with %v", err)
	}
	<-old.term.ctx.Done()
	var others []*lane
	for _, n := range nodes {
		if n != old {
			others = append(others, n)
		}
	}
	now := g.leader(others...)
	if got := now.next("a"); got != 10 {
		t.Fatalf("the new leader starts at %d", got)
	}
	now.mustAppend(seal(t, "a", 10, 3, 10))
	now.cut()

	// Healed, all have the same state.
	g.heal()
	old.eventually("the old leader to catch up", func() bool { return old.LastSeq() == 1 })
	if diff := cmp.Diff(seq(0, 13), old.mustOffsets(1)); diff != "" {
		t.Error(diff)
	}
	if string(marshal(old)) != string(marshal(now)) {
		t.Error("the states differ")
	}
}

// TestInstalledNodeHasTheUndeliveredTail: HARD-CASES 10, FAULTS 26. A node that
// is too far behind gets the floor's snapshot and, entry by entry, all that any sink
// still needs; also after a restart.
func TestInstalledNodeHasTheUndeliveredTail(t *testing.T) {
	g := newGroup(t, func(c *Config) { c.SnapshotEntries, c.MaxBatches = 20, 16 })
	n1, n2 := g.open("n1"), g.open("n2")
	lead := g.leader(n1, n2)
	lead.bases("a")
	lead.addSink("files")
	const batches, delivered = 60, 40
	for i := range int64(batches) {
		if i < delivered {
			lead.mustAppend(seal(t, "a", i, 1, 10))
			lead.done("files", lead.cut())
		} else {
			// Beyond 16 batches intake would be held: these are larger ones.
			lead.mustAppend(seal(t, "a", i, 1, 2000))
		}
		if i%10 == 9 {
			lead.eventually("a snapshot", func() bool { return lead.machine.entries.Load() < 20 })
		}
	}
	last := lead.cut()
	lead.eventually("the log to lose its beginning", func() bool {
		first, _ := g.stores[lead.cfg.NodeID].FirstIndex()
		return first > 10
	})

	n3 := g.open("n3")
	caughtUp := func() bool { return n3.AppliedIndex() >= lead.AppliedIndex() && n3.LastSeq() == last }
	n3.eventually("the third node to catch up", caughtUp)
	installed := false
	n3.snapshots.mu.Lock()
	for _, info := range n3.snapshots.list {
		installed = installed || !info.takenHere
	}
	n3.snapshots.mu.Unlock()
	if !installed {
		t.Error("no snapshot was installed")
	}
	first, _ := g.stores["n3"].FirstIndex()
	if first <= 10 || first > lead.Floor() {
		t.Errorf("the third node's log begins at %d, the floor is %d", first, lead.Floor())
	}
	check := func() {
		t.Helper()
		for s := lead.FirstSeq(); s <= last; s++ {
			if diff := cmp.Diff(lead.mustOffsets(s), n3.mustOffsets(s)); diff != "" {
				t.Errorf("batch %d: %s", s, diff)
			}
		}
	}
	check()
	n3.stop()
	n3 = g.open("n3")
	n3.eventually("the third node to catch up again", caughtUp)
	check()
	same := func() bool { return string(marshal(n3)) == string(marshal(lead)) }
	n3.eventually("equal states", same)
	if see(n3.views, (*state.State).Released) == 0 {
		t.Error("nothing was released")
	}
}

func TestStatusOfAGroup(t *testing.T) {
	g := newGroup(t, nil)
	nodes := []*lane{g.open("n1"), g.open("n2"), g.open("n3")}
	lead := g.leader(nodes...)
	for _, n := range nodes {
		n.eventually("a known leader", func() bool { return n.Status().Leader == lead.cfg.NodeID })
		want := "follower"
		if n == lead {
			want = "leader"
		}
		if got := n.Status().Role; got != want {
			t.Errorf("%s is %s, want %s", n.cfg.NodeID, got, want)
		}
	}
}
