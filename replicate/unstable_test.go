package replicate

import (
	"errors"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// brokenStable takes so many writes and fails then.
type brokenStable struct {
	*raft.InmemStore
	left int
}

func (s *brokenStable) Set(key, val []byte) error {
	if s.left--; s.left < 0 {
		return errDisk
	}
	return s.InmemStore.Set(key, val)
}

func (s *brokenStable) SetUint64(key []byte, val uint64) error {
	if s.left--; s.left < 0 {
		return errDisk
	}
	return s.InmemStore.SetUint64(key, val)
}

// TestATermOrVoteThatCannotBeWritten is reported once, at whichever write it comes, and
// neither panics nor makes a leader. (Raft panics: "failed to save current term".)
func TestATermOrVoteThatCannotBeWritten(t *testing.T) {
	for writes := range 3 { // the term, the vote's term, the vote
		stable := &brokenStable{raft.NewInmemStore(), writes}
		logs := raft.NewInmemStore()
		address, transport := raft.NewInmemTransport("")
		conf := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "n1", Address: address}}})
		if err := logs.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: conf}); err != nil {
			t.Fatal(err)
		}
		rc := raft.DefaultConfig()
		rc.LocalID, rc.Logger = "n1", hclog.NewNullLogger()
		rc.HeartbeatTimeout, rc.ElectionTimeout, rc.LeaderLeaseTimeout = singleVoterTimeout, singleVoterTimeout, singleVoterTimeout/2
		reported := make(chan error, 2)
		r, err := raft.NewRaft(rc, &raft.MockFSM{}, logs, raftStable{stable, func(err error) { reported <- err }}, raft.NewInmemSnapshotStore(), transport)
		if err != nil {
			t.Fatal(err)
		}
		if err := <-reported; !errors.Is(err, errDisk) {
			t.Errorf("after %d writes: reported %v", writes, err)
		}
		if err := r.Shutdown().Error(); err != nil {
			t.Errorf("after %d writes: shutting down: %v", writes, err)
		}
		if r.State() == raft.Leader {
			t.Errorf("after %d writes: it leads", writes)
		}
		if len(reported) > 0 {
			t.Errorf("after %d writes: reported again: %v", writes, <-reported)
		}
	}
}
