package replicate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"forebay/internal/record"
	"forebay/replicate/state"
)

// machine owns the replicated state. It implements raft.FSM and
// raft.BatchingFSM; Raft calls it from one goroutine, everyone else reads under the lock.
type machine struct {
	store     Store
	snapshots *snapshotStore
	metrics   *metrics
	// fatal is called once when this node must stop.
	fatal func(error)
	// kick wakes the housekeeping loop; it never blocks.
	kick func()
	// snapshotBytes and snapshotEntries are when a snapshot is due.
	snapshotBytes, snapshotEntries int64

	mu sync.RWMutex
	st *state.State
	// changed is closed and replaced when entries were applied, if anyone asked for it.
	changed chan struct{}
	asked   bool
	broken  error

	// floorMu keeps moves of the floor in order.
	floorMu sync.Mutex
	// bytes and entries count what was applied since the last snapshot; entries counts Raft's own, too.
	bytes, entries atomic.Int64
	// takenBytes and takenEntries are what the last Snapshot covers of them.
	takenBytes, takenEntries int64
	// applied is the last command's index; logFloor what the store was told.
	applied, logFloor atomic.Uint64
	// replayed is what a single voter's start takes in again; nil where there are several.
	replayed *replayedLog
}

// response is the answer of the state machine to one entry.
type response struct {
	state.Outcome
	// term is the one that the entry was proposed in.
	term uint64
}

// payloadFormat is the first byte of a snapshot's data; then come Raft's index
// and term, u64 little endian, and the state as it encodes itself.
const (
	payloadFormat = 1
	payloadHeader = 1 + 2*8
)

func newMachine(store Store, snapshots *snapshotStore, m *metrics) *machine {
	return &machine{store: store, snapshots: snapshots, metrics: m, st: state.New(), changed: make(chan struct{})}
}

// Apply implements raft.FSM.
func (m *machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	responses := make([]response, len(logs))
	out := make([]any, len(logs))
	var size int64
	m.mu.Lock()
	first := m.broken == nil
	for i, l := range logs {
		out[i] = &responses[i]
		if l.Type != raft.LogCommand {
			continue
		}
		responses[i] = m.apply(l)
		size += int64(len(l.Data))
	}
	broken := m.broken
	m.notify()
	m.mu.Unlock()

	if broken != nil {
		if first {
			m.fatal(broken)
		}
		return out
	}
	// Entries that are Raft's own, and not given to us, are replayed too: each start adds some.
	last := logs[len(logs)-1].Index
	count := int64(last - m.applied.Swap(last))
	m.metrics.applied.Set(float64(last))
	m.store.SetApplied(last)
	m.moveFloor()
	if m.bytes.Add(m.replayed.applied(last, size)) >= m.snapshotBytes || m.entries.Add(count) >= m.snapshotEntries {
		m.kick()
	}
	return out
}

// apply gives one entry to the state. After a fatal one nothing is applied any
// more: this node's state is no longer to be trusted.
func (m *machine) apply(l *raft.Log) response {
	if m.broken != nil {
		return response{Outcome: state.Outcome{Err: m.broken}, term: l.Term}
	}
	out := m.st.Apply(l.Index, l.Data)
	var fatal *state.FatalError
	switch {
	case errors.As(out.Err, &fatal):
		m.broken = fmt.Errorf("applying entry %d: %w", l.Index, out.Err)
		out.Err = m.broken
	case errors.Is(out.Err, record.ErrRefused):
		m.metrics.refused.Inc()
	}
	return response{Outcome: out, term: l.Term}
}

// moveFloor tells the store what may go: what lies below the floor's snapshot.
func (m *machine) moveFloor() {
	m.floorMu.Lock()
	defer m.floorMu.Unlock()
	m.mu.Lock() // the state tidies up while it looks
	floor := m.st.Floor()
	m.mu.Unlock()
	keep := m.snapshots.setFloor(floor)
	m.metrics.floor.Set(float64(floor))
	if keep > m.logFloor.Load() {
		m.logFloor.Store(keep)
		m.store.SetFloor(keep)
		m.kick()
	}
}

// notify wakes those who wait for a change; the caller holds the lock.
func (m *machine) notify() {
	if m.asked {
		close(m.changed)
		m.changed = make(chan struct{})
		m.asked = false
	}
}

// wait gives a channel that is closed when entries were applied after this call.
func (m *machine) wait() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = true
	return m.changed
}

// snapshotTaken counts anew from the last Snapshot, which is durable now.
func (m *machine) snapshotTaken() {
	m.bytes.Add(-m.takenBytes)
	m.entries.Add(-m.takenEntries)
}

// Snapshot implements raft.FSM: the state's encoding, made while nothing is applied.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.broken != nil {
		return nil, m.broken
	}
	data := m.st.Marshal(make([]byte, payloadHeader))
	m.takenBytes, m.takenEntries = m.bytes.Load(), m.entries.Load()
	return &machineSnapshot{data: data, installs: m.snapshots.installCount()}, nil
}

// machineSnapshot implements raft.FSMSnapshot. Installs is how many snapshots had been
// installed when it was taken.
type machineSnapshot struct {
	data     []byte
	installs uint64
}

// Persist implements raft.FSMSnapshot.
func (s *machineSnapshot) Persist(sink raft.SnapshotSink) error {
	own, ok := sink.(*snapshotSink)
	if !ok {
		return fmt.Errorf("persisting a snapshot: unexpected sink %T", sink)
	}
	s.data[0] = payloadFormat
	binary.LittleEndian.PutUint64(s.data[1:], own.info.meta.Index)
	binary.LittleEndian.PutUint64(s.data[9:], own.info.meta.Term)
	own.takenAfter(s.installs)
	if err := own.begin(own.store.logged(own.info.meta.Index)); err != nil {
		return err
	}
	_, err := own.Write(s.data)
	return err
}

// Release implements raft.FSMSnapshot.
func (s *machineSnapshot) Release() {}

// Restore implements raft.FSM: it takes the state from a snapshot's data.
func (m *machine) Restore(r io.ReadCloser) error {
	st, index, _, err := decodePayload(r)
	if err == nil {
		m.restored(st, index)
	}
	return err
}

// decodePayload reads a snapshot's data.
func decodePayload(r io.Reader) (st *state.State, index, term uint64, err error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, 0, 0, fmt.Errorf("restoring a snapshot: %w", err)
	}
	if len(data) < payloadHeader || data[0] != payloadFormat {
		return nil, 0, 0, errors.New("restoring a snapshot: its data is of a format that this program does not know")
	}
	index, term = binary.LittleEndian.Uint64(data[1:]), binary.LittleEndian.Uint64(data[9:])
	if st, err = state.Unmarshal(data[payloadHeader:]); err != nil {
		return nil, 0, 0, fmt.Errorf("restoring a snapshot: %w", err)
	}
	return st, index, term, nil
}

// restored takes a snapshot's state in the place of the present one.
func (m *machine) restored(st *state.State, index uint64) {
	m.mu.Lock()
	m.st = st
	m.notify()
	m.mu.Unlock()
	m.bytes.Store(0)
	m.entries.Store(0)
	m.applied.Store(index)
	m.metrics.applied.Set(float64(index))
	m.store.SetApplied(index)
}

// installer is the machine as the running Raft sees it: what Raft restores after
// the start was sent by a leader.
type installer struct{ *machine }

// Restore implements raft.FSM: nothing of the old log is needed any more, not
// even above its own floor. Raft would remove it next, but knows nothing of the floor.
//
// The snapshot may be older than the state: a leader that heard nothing of the entries that
// followed it, and has them no more, sends it and then those entries again. What
// this node has snapshots of beyond it goes first, as its log will not reach there.
func (i installer) Restore(r io.ReadCloser) error {
	st, index, term, err := decodePayload(r)
	if err != nil {
		return err
	}
	i.restored(st, index)
	if err := i.snapshots.installed(index); err != nil {
		return fmt.Errorf("removing snapshots beyond an installed one: %w", err)
	}
	i.floorMu.Lock()
	i.logFloor.Store(index + 1)
	i.floorMu.Unlock()
	return makeWay(i.store, index, term)
}

// makeWay removes the whole log for an installed snapshot.
func makeWay(store Store, index, term uint64) error {
	first, last, err := bounds(store)
	if err != nil {
		return err
	}
	// An empty log must know as well: it begins after the snapshot that it had before.
	store.Installed(index, term)
	if last == 0 {
		return nil
	}
	if err := store.DeleteRange(first, last); err != nil {
		return fmt.Errorf("removing the log below an installed snapshot: %w", err)
	}
	return nil
}
