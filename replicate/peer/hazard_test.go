package peer

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// TestRaftHazard3OneErrorOfAStoreEndsReplication: raft's pipeline, two requests in flight. A follower that
// cannot store says so; raft's decoder goes away, the transport's waits for it with the next answer, and the
// sender, who alone would close the pipeline, waits for the transport's. Heartbeats go on: the peer seems well.
// Ours has no pipeline: raft waits for each answer, and tries again.
func TestRaftHazard3OneErrorOfAStoreEndsReplication(t *testing.T) {
	t.Run("raft's transport", func(t *testing.T) {
		t.Parallel()
		own := bareTransport(t)
		g := startPair(t, own, bareTransport(t))
		t.Cleanup(own.closePipeline) // nothing else ends a sender that waits
		wedged := false
		for round := 0; round < 40 && !wedged; round++ { // each has about an even chance
			wedged = g.wedge(t, own, round)
		}
		if !wedged {
			t.Fatal("raft's pipeline has survived all errors of a store: hazard 3 of wal/DESIGN.md is gone")
		}
		since := time.Now()
		g.commit(t, "behind it")
		await(t, "heartbeats go on", func() bool { return g.follower.LastContact().After(since.Add(500 * time.Millisecond)) })
		if g.applied.has("behind it") {
			t.Fatal("the follower caught up by itself: hazard 3 of wal/DESIGN.md is gone")
		}
		own.closePipeline()
		await(t, "it catches up, once somebody closes the pipeline", func() bool { return g.applied.has("behind it") })
	})
	t.Run("ours", func(t *testing.T) {
		t.Parallel()
		n1, n2 := openHub(t, "n1", nil), openHub(t, "n2", nil)
		acquaint(n1, n2)
		to, from := lane0(t, n1), lane0(t, n2)
		g := startPair(t, to, from)
		t.Cleanup(func() { _, _ = to.Close(), from.Close() })
		for round := range 8 {
			fail := g.store.failNext(t)
			g.commit(t, fmt.Sprint("refused", round))
			await(t, "the store is asked", fail.reached.Load)
			g.commit(t, fmt.Sprint("next", round))
			g.commit(t, fmt.Sprint("last", round))
			fail.answer()
			await(t, "it catches up", func() bool { return g.applied.has(fmt.Sprint("last", round)) })
		}
		if want := 1 + 3*8; g.applied.count() != want {
			t.Errorf("%d entries were applied, want %d", g.applied.count(), want)
		}
	})
}

// pair is a leader, the only voter, and a follower without a vote: nothing but replication between them.
type pair struct {
	leader, follower *raft.Raft
	store            *failingStore // the follower's
	applied          *counter      // by the follower
}

func startPair(t testing.TB, to, from raft.Transport) *pair {
	t.Helper()
	p := &pair{store: &failingStore{InmemStore: raft.NewInmemStore()}, applied: &counter{}}
	start := func(id string, transport raft.Transport, logs raft.LogStore, fsm raft.FSM, first bool) *raft.Raft {
		rc := raft.DefaultConfig()
		rc.LocalID, rc.Logger = raft.ServerID(id), hclog.NewNullLogger()
		rc.HeartbeatTimeout, rc.ElectionTimeout, rc.LeaderLeaseTimeout = 400*time.Millisecond, 400*time.Millisecond, 400*time.Millisecond
		rc.CommitTimeout = 5 * time.Millisecond
		stable, snapshots := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
		if first {
			conf := raft.Configuration{Servers: []raft.Server{{ID: rc.LocalID, Address: transport.LocalAddr()}}}
			if err := raft.BootstrapCluster(rc, logs, stable, snapshots, transport, conf); err != nil {
				t.Fatal(err)
			}
		}
		r, err := raft.NewRaft(rc, fsm, logs, stable, snapshots, transport)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := r.Shutdown().Error(); err != nil {
				t.Error(err)
			}
		})
		return r
	}
	p.follower = start("n2", from, p.store, p.applied, false)
	p.leader = start("n1", to, raft.NewInmemStore(), &counter{}, true)
	await(t, "one leads", func() bool { return p.leader.State() == raft.Leader })
	if err := p.leader.AddNonvoter("n2", from.LocalAddr(), 0, patience).Error(); err != nil {
		t.Fatal(err)
	}
	p.commit(t, "first")
	await(t, "it is replicated", func() bool { return p.applied.has("first") })
	return p
}

// commit gives the index of an entry that the leader has committed: its own vote is enough.
func (p *pair) commit(t testing.TB, entry string) uint64 {
	t.Helper()
	f := p.leader.Apply([]byte(entry), patience)
	if err := f.Error(); err != nil {
		t.Fatal(err)
	}
	return f.Index()
}

// wedge lets the follower's store fail once while the pipeline is full, and tells whether the sender went on
// afterwards, into a pipeline nobody empties, rather than notice that its decoder is gone.
func (p *pair) wedge(t testing.TB, own *watchedTransport, round int) bool {
	t.Helper()
	var pipe *watchedPipeline
	await(t, "there is a pipeline", func() bool {
		pipe = own.current.Load()
		return pipe != nil && !pipe.state().closed
	})
	fail := p.store.failNext(t)
	refused := p.commit(t, fmt.Sprint("refused", round))
	await(t, "the store is asked", fail.reached.Load)
	await(t, "the next request waits", func() bool { return pipe.state().after >= refused })
	calls := pipe.state().calls
	p.commit(t, fmt.Sprint("last", round))
	fail.answer()
	await(t, "the sender goes on, or gives up", func() bool { s := pipe.state(); return s.calls > calls || s.closed })
	return pipe.state().calls > calls && !pipe.state().closed
}

// failingStore is a log store whose next append fails when the test says so.
type failingStore struct {
	*raft.InmemStore
	next atomic.Pointer[failure]
}

type failure struct {
	reached atomic.Bool
	goOn    chan struct{}
	answer  func()
}

func (s *failingStore) failNext(t testing.TB) *failure {
	f := &failure{goOn: make(chan struct{})}
	f.answer = sync.OnceFunc(func() { close(f.goOn) })
	t.Cleanup(f.answer)
	s.next.Store(f)
	return f
}

// StoreLogs implements raft.LogStore.
func (s *failingStore) StoreLogs(logs []*raft.Log) error {
	if f := s.next.Swap(nil); f != nil {
		f.reached.Store(true)
		<-f.goOn
		return errors.New("the disk failed once")
	}
	return s.InmemStore.StoreLogs(logs)
}

func lane0(t testing.TB, h *testHub) *Transport {
	t.Helper()
	transport, err := h.Transport(0, everybody)
	if err != nil {
		t.Fatal(err)
	}
	return transport
}

// watchedTransport is raft's own, as it comes, with an eye on its newest pipeline.
type watchedTransport struct {
	*raft.NetworkTransport
	current atomic.Pointer[watchedPipeline]
}

func bareTransport(t testing.TB) *watchedTransport {
	t.Helper()
	own, err := raft.NewTCPTransport("127.0.0.1:0", nil, 3, patience, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		own.CloseStreams() // closing leaves the pooled ones open
		_ = own.Close()
	})
	return &watchedTransport{NetworkTransport: own}
}

// AppendEntriesPipeline implements raft.Transport.
func (w *watchedTransport) AppendEntriesPipeline(id raft.ServerID, at raft.ServerAddress) (raft.AppendPipeline, error) {
	p, err := w.NetworkTransport.AppendEntriesPipeline(id, at)
	if err != nil {
		return nil, err
	}
	seen := &watchedPipeline{AppendPipeline: p}
	w.current.Store(seen)
	return seen, nil
}

func (w *watchedTransport) closePipeline() {
	if p := w.current.Load(); p != nil {
		_ = p.Close()
	}
}

// pipelineState is what was asked of a pipeline: how many requests, the last one after which entry.
type pipelineState struct {
	calls  int
	after  uint64
	closed bool
}

type watchedPipeline struct {
	raft.AppendPipeline
	mu   sync.Mutex
	seen pipelineState
}

func (p *watchedPipeline) state() pipelineState {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

// AppendEntries implements raft.AppendPipeline.
func (p *watchedPipeline) AppendEntries(req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	p.mu.Lock()
	p.seen.calls++
	p.seen.after = req.PrevLogEntry
	p.mu.Unlock()
	return p.AppendPipeline.AppendEntries(req, resp)
}

// Close implements raft.AppendPipeline.
func (p *watchedPipeline) Close() error {
	p.mu.Lock()
	p.seen.closed = true
	p.mu.Unlock()
	return p.AppendPipeline.Close()
}
