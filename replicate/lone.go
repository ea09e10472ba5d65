package replicate

import (
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// newLone gives the transport of a single voter, in memory, and the log as Raft sees it: while
// Raft looks for configurations, which is the first thing that it does, commands come without
// their data. Otherwise a start would read everything after the newest snapshot once more than it must.
func newLone(node string, store Store) (raft.Transport, raft.LogStore) {
	logs := &scannedLog{Store: store}
	_, transport := raft.NewInmemTransport(raft.ServerAddress(node))
	return &loneTransport{InmemTransport: transport, logs: logs}, logs
}

// scannedLog gives heads until whole is set.
type scannedLog struct {
	Store
	whole atomic.Bool
}

// GetLog implements raft.LogStore.
func (s *scannedLog) GetLog(index uint64, out *raft.Log) error {
	if s.whole.Load() {
		return s.Store.GetLog(index, out)
	}
	return s.ReadHead(index, out)
}

// loneTransport tells when Raft has looked for configurations: it then sets the handler of heartbeats, before
// anything of it runs (raft 1.8.0, api.go:633). A Raft that applied an entry before that would not do so in
// silence: a command without data is fatal to the state machine.
type loneTransport struct {
	*raft.InmemTransport
	logs *scannedLog
}

// SetHeartbeatHandler implements raft.Transport.
func (t *loneTransport) SetHeartbeatHandler(handler func(raft.RPC)) {
	t.logs.whole.Store(true)
	t.InmemTransport.SetHeartbeatHandler(handler)
}
