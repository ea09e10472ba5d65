package replicate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft"
)

// ErrClosed ends operations on a lane that is closed.
var ErrClosed = errors.New("the lane is closed")

// Lane is one Raft group on this node: its log, its state, and the lead while
// this node has it.
type Lane struct {
	views
	cfg       Config
	store     Store
	stable    *stableStore
	snapshots *snapshotStore
	machine   *machine
	metrics   *metrics
	raft      *raft.Raft
	decoders  decoderPool

	// ctx ends with Close; proposals counts those that wait for an outcome.
	ctx       context.Context
	cancel    context.CancelFunc
	proposals gate
	control   slots
	leading   gate
	loops     sync.WaitGroup
	kicks     chan struct{}
	space     space
	lost      sync.Once
	closing   sync.Once
	closed    chan struct{}
	closeErr  error // once closed is
}

// Open starts the lane: it checks whose directory it is, that snapshots and log
// fit together, restores the state, and forms the lane when there is none. It
// returns before a leader is known. Everything is released again on an error.
func Open(cfg Config) (*Lane, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Lane{cfg: cfg, store: cfg.Store, kicks: make(chan struct{}, 1), closed: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.control = newSlots(controlSlots)
	if err := l.open(); err != nil {
		l.cancel()
		return nil, errors.Join(fmt.Errorf("opening lane %d: %w", cfg.Lane, err), l.release())
	}
	l.loops.Go(l.keepHouse)
	return l, nil
}

func (l *Lane) open() error {
	var err error
	if l.metrics, err = newMetrics(l.cfg.Registerer, l.cfg.Lane, l.store); err != nil {
		return err
	}
	if err := l.stableLost(); err != nil {
		return err
	}
	if l.stable, err = openStable(l.cfg.Dir, owner{l.cfg.NodeID, l.cfg.Gateway, l.cfg.Lane}); err != nil {
		return err
	}
	if l.snapshots, err = openSnapshots(l.cfg.Dir, l.cfg.Logger); err != nil {
		return err
	}
	l.machine = newMachine(l.store, l.snapshots, l.metrics)
	l.machine.fatal, l.machine.kick = l.fail, l.kick
	l.machine.snapshotBytes, l.machine.snapshotEntries = l.cfg.SnapshotBytes, l.cfg.SnapshotEntries
	l.views = views{l.machine}
	l.space.init(l)
	if err := l.checkLog(); err != nil {
		return err
	}
	if err := l.restoreNewest(); err != nil {
		return err
	}
	if err := l.checkTerm(); err != nil {
		return err
	}
	return l.startRaft()
}

// stableLost refuses a log whose term and vote are gone: the file was durable before the
// first entry was written, and a new one would begin with term 0.
func (l *Lane) stableLost() error {
	path := filepath.Join(l.cfg.Dir, stableName)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil // what else is wrong is said by whoever opens it
	}
	_, last, err := bounds(l.store)
	if err == nil && last > 0 {
		err = &StableError{path, fmt.Sprintf("there is no such file, and the log holds entries up to %d", last), nil}
	}
	return err
}

// checkTerm compares Raft's term with the log and the snapshots: each term is stored before any
// entry of it.
func (l *Lane) checkTerm() error {
	term, err := l.stable.GetUint64(currentTermKey)
	if err != nil {
		return err
	}
	_, last, err := bounds(l.store)
	if err != nil {
		return err
	}
	var newest raft.Log
	if last > 0 {
		if err := l.store.ReadStart(last, &newest); err != nil {
			return fmt.Errorf("reading the log's last entry: %w", err)
		}
	}
	if s, ok := l.snapshots.newest(); ok && s.meta.Term > newest.Term {
		newest.Index, newest.Term = s.meta.Index, s.meta.Term
	}
	if newest.Term > term {
		return &StableError{filepath.Join(l.cfg.Dir, stableName), fmt.Sprintf("it has seen term %d, and entry %d is of term %d", term, newest.Index, newest.Term), nil}
	}
	return nil
}

// checkLog compares the log with the snapshots, and empties it where a crash
// interrupted the installation of a snapshot.
func (l *Lane) checkLog() error {
	first, last, err := bounds(l.store)
	if err != nil {
		return err
	}
	after, err := l.snapshots.check(first, last)
	if err != nil || after.Index == 0 {
		l.snapshots.setBase(first)
		return err
	}
	l.cfg.Logger.Info("log begun anew after an installed snapshot", "last", last, "snapshot", after.Index)
	l.store.SetApplied(after.Index)
	l.snapshots.setBase(after.Index + 1)
	return makeWay(l.store, after.Index, after.Term)
}

func bounds(store Store) (first, last uint64, err error) {
	if first, err = store.FirstIndex(); err != nil {
		return 0, 0, fmt.Errorf("reading the log's bounds: %w", err)
	}
	if last, err = store.LastIndex(); err != nil {
		return 0, 0, fmt.Errorf("reading the log's bounds: %w", err)
	}
	return first, last, nil
}

// restoreNewest gives the newest snapshot to the state machine. Raft would pass
// over one that cannot be restored in silence.
func (l *Lane) restoreNewest() error {
	newest, ok := l.snapshots.newest()
	if !ok {
		return nil
	}
	_, data, err := l.snapshots.Open(newest.meta.ID)
	if err != nil {
		return err
	}
	defer data.Close()
	if err := l.machine.Restore(data); err != nil {
		return fmt.Errorf("snapshot %s: %w", newest.path, err)
	}
	l.snapshots.setFloor(l.Floor())
	return nil
}

func (l *Lane) startRaft() error {
	transport, logs := l.cfg.Transport, raft.LogStore(l.store)
	if transport == nil {
		replayed, err := newReplayed(l.store, l.machine.applied.Load())
		if err != nil {
			return err
		}
		l.machine.replayed = replayed
		logs = replayed
		_, transport = raft.NewInmemTransport(raft.ServerAddress(l.cfg.NodeID))
	}
	rc := l.cfg.raftConfig()
	rc.NoSnapshotRestoreOnStart = true
	if err := l.form(); err != nil {
		return err
	}
	r, err := raft.NewRaft(rc, installer{l.machine}, logs, raftStable{l.stable, l.unstable}, l.snapshots, transport)
	if err != nil {
		return fmt.Errorf("starting raft: %w", err)
	}
	l.raft = r
	l.snapshots.serve()
	return nil
}

// currentTermKey is where Raft keeps its term in the stable store.
var currentTermKey = []byte("CurrentTerm")

// form writes the first entry of an empty log: who votes. It does what
// raft.BootstrapCluster does, but is not stopped by the term of an earlier
// attempt that a crash interrupted. A later term means that a log was here.
func (l *Lane) form() error {
	_, last, err := bounds(l.store)
	if err != nil {
		return err
	}
	if _, ok := l.snapshots.newest(); ok || last > 0 {
		return nil
	}
	term, err := l.stable.GetUint64(currentTermKey)
	if err != nil {
		return err
	}
	if term > 1 {
		return fmt.Errorf("the log is empty, but %s in %s has seen term %d: the log of this directory is lost. Restore it from a copy, or rebuild this node's directory from its peers", stableName, l.cfg.Dir, term)
	}
	var conf raft.Configuration
	for _, v := range l.cfg.Voters {
		conf.Servers = append(conf.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(v.ID), Address: raft.ServerAddress(v.Address),
		})
	}
	if err := l.stable.SetUint64(currentTermKey, 1); err != nil {
		return fmt.Errorf("forming the lane: %w", err)
	}
	entry := &raft.Log{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(conf)}
	if err := l.store.StoreLog(entry); err != nil {
		return fmt.Errorf("forming the lane: %w", err)
	}
	l.cfg.Logger.Info("lane formed", "voters", len(conf.Servers))
	return nil
}

// fail stops the state machine's user: this node's state is not to be trusted.
func (l *Lane) fail(err error) {
	l.lost.Do(func() {
		l.cfg.Lost(fmt.Errorf("the state machine stopped: %w", err))
	})
}

// kick wakes the housekeeping loop.
func (l *Lane) kick() {
	select {
	case l.kicks <- struct{}{}:
	default:
	}
}

// Close ends the lead, waits for what is outstanding, and stops Raft. It
// returns early with ctx's error when the disk hangs: end the process then, or
// call it again to wait on. The Store stays open.
func (l *Lane) Close(ctx context.Context) error {
	l.closing.Do(func() {
		l.cancel()
		go func() {
			defer close(l.closed)
			// The lead first: its receiver and batcher use all that follows. Then what was
			// proposed: Raft answers none of it once it is told to stop.
			l.leading.drain()
			l.proposals.drain()
			l.loops.Wait()
			l.closeErr = l.release()
		}()
	})
	select {
	case <-l.closed:
		return l.closeErr
	case <-ctx.Done():
		return fmt.Errorf("closing lane %d: %w", l.cfg.Lane, context.Cause(ctx))
	}
}

// release takes down what open built, in reverse.
func (l *Lane) release() error {
	var errs []error
	if l.raft != nil {
		errs = append(errs, l.raft.Shutdown().Error())
	}
	if l.stable != nil {
		errs = append(errs, l.stable.Close())
	}
	if l.metrics != nil {
		l.metrics.unregister()
	}
	return errors.Join(errs...)
}
