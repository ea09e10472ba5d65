package replicate

import (
	"log/slog"
	"testing"

	"github.com/hashicorp/raft"
)

// TestSnapshotOfAnInstalledStateIsNotTakenHere: a snapshot was due when a
// leader's was installed, and is taken of the state just restored, at the same index,
// over the installed file. The log is empty: a restart must not miss entries that it
// never held.
func TestSnapshotOfAnInstalledStateIsNotTakenHere(t *testing.T) {
	for _, tt := range []struct {
		name  string
		index uint64
		want  bool
	}{
		{"of the installed state", 100, false},
		{"of an entry logged after it", 101, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := openSnapshots(dir, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			s.setBase(101) // as installing entry 100 does
			sink, err := s.Create(raft.SnapshotVersionMax, tt.index, 2, raft.Configuration{}, 1, nil)
			if err != nil {
				t.Fatal(err)
			}
			state := &machineSnapshot{data: make([]byte, payloadHeader)}
			if err := state.Persist(sink); err != nil {
				t.Fatal(err)
			}
			if err := sink.Close(); err != nil {
				t.Fatal(err)
			}
			if got, err := NewestSnapshot(dir); err != nil || got.Index != tt.index || got.TakenHere != tt.want {
				t.Errorf("got %+v, %v; want it taken here: %t", got, err, tt.want)
			}
		})
	}
}
