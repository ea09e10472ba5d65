package wal

import (
	"encoding/binary"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// countFSM counts the commands that were applied, and sums them up.
type countFSM struct{ N, Sum uint64 }

func (f *countFSM) Apply(l *raft.Log) any {
	f.N++
	f.Sum += binary.LittleEndian.Uint64(l.Data)
	return nil
}

func (f *countFSM) Snapshot() (raft.FSMSnapshot, error) { c := *f; return &c, nil }

func (f *countFSM) Restore(r io.ReadCloser) error { return binary.Read(r, binary.LittleEndian, f) }

func (f *countFSM) Persist(s raft.SnapshotSink) error {
	if err := binary.Write(s, binary.LittleEndian, [2]uint64{f.N, f.Sum}); err != nil {
		return err
	}
	return s.Close()
}

func (f *countFSM) Release() {}

// TestRaftRunsOnIt drives a single voter through applies, snapshots with
// compaction, and restarts.
func TestRaftRunsOnIt(t *testing.T) {
	dir, stable := t.TempDir(), raft.NewInmemStore()
	snaps, err := raft.NewFileSnapshotStoreWithLogger(t.TempDir(), 3, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	var n, sum uint64
	for round := range 4 {
		cfg := testConfig(dir)
		if list, err := snaps.List(); err == nil && len(list) > 0 {
			cfg.SnapshotIndex, cfg.SnapshotTerm = list[0].Index, list[0].Term
		}
		l := mustOpen(t, cfg)
		fsm := &countFSM{}
		r := startRaft(t, l, stable, snaps, fsm, round == 0)
		for range 100 {
			n++
			sum += n * n
			data := binary.LittleEndian.AppendUint64(nil, n*n)
			if err := r.Apply(append(data, make([]byte, 200)...), testWait).Error(); err != nil {
				t.Fatal(err)
			}
		}
		l.SetApplied(r.AppliedIndex())
		l.SetFloor(r.AppliedIndex() - 20)
		if err := r.Barrier(testWait).Error(); err != nil {
			t.Fatal(err)
		}
		if fsm.N != n || fsm.Sum != sum {
			t.Fatalf("round %d: state is %+v, want %d, %d", round, *fsm, n, sum)
		}
		if round%2 == 0 {
			if err := r.Snapshot().Error(); err != nil {
				t.Fatal(err)
			}
			if first, _ := l.FirstIndex(); first != l.Stats().Floor {
				t.Fatalf("compacted to %d, the floor is %d", first, l.Stats().Floor)
			}
		}
		if err := r.Shutdown().Error(); err != nil {
			t.Fatal(err)
		}
		mustClose(t, l)
	}
}

func startRaft(t *testing.T, l raft.LogStore, stable raft.StableStore, snaps raft.SnapshotStore, fsm raft.FSM, first bool) *raft.Raft {
	t.Helper()
	c := raft.DefaultConfig()
	c.LocalID, c.Logger, c.TrailingLogs = "n1", hclog.NewNullLogger(), 0
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	address, transport := raft.NewInmemTransport("")
	if first {
		servers := raft.Configuration{Servers: []raft.Server{{ID: c.LocalID, Address: address}}}
		if err := raft.BootstrapCluster(c, l, stable, snaps, transport, servers); err != nil {
			t.Fatal(err)
		}
	}
	r, err := raft.NewRaft(c, fsm, l, stable, snaps, transport)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.LeaderCh():
	case <-time.After(testWait):
		t.Fatal(fmt.Errorf("no leader within %v", testWait))
	}
	return r
}
