package replicate

import (
	"errors"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// houseInterval is how often the size of the log is looked at without a kick.
	houseInterval = 500 * time.Millisecond
	// pressedSnapshotBytes is how much the log may keep from shrinking, for want of
	// a snapshot, while room runs short.
	pressedSnapshotBytes = 1 << 20
	// snapshotRetry is how long a failed snapshot is not tried again.
	snapshotRetry = 10 * time.Second
)

// keepHouse takes snapshots, deletes old ones, and lets go what lies below the
// floor, on every node, until the lane is closed.
func (l *Lane) keepHouse() {
	tick := time.NewTicker(houseInterval)
	defer tick.Stop()
	var notBefore time.Time
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.kicks:
		case <-tick.C:
		}
		if l.snapshotDue() && time.Now().After(notBefore) {
			if err := l.snapshot(); err != nil {
				notBefore = time.Now().Add(snapshotRetry)
				l.cfg.Logger.Error("snapshot failed", "error", err, "retry_in", snapshotRetry)
			}
		}
		if err := l.letGo(); err != nil {
			l.cfg.Logger.Error("old entries not removed", "error", err)
		}
	}
}

// snapshotDue decides whether a snapshot is to be taken now.
func (l *Lane) snapshotDue() bool {
	bytes, entries := l.machine.bytes.Load(), l.machine.entries.Load()
	if bytes >= l.cfg.SnapshotBytes || entries >= l.cfg.SnapshotEntries {
		return true
	}
	// Without room the log must shrink to the newest snapshot below the floor, and no
	// block comes in that would make a snapshot due.
	return bytes >= min(l.cfg.SnapshotBytes/16, pressedSnapshotBytes) && l.space.pressed()
}

func (l *Lane) snapshot() error {
	err := l.raft.Snapshot().Error()
	switch {
	case err == nil:
		l.metrics.snapshots.WithLabelValues("ok").Inc()
		l.machine.snapshotTaken()
		l.machine.moveFloor()
		return nil
	case errors.Is(err, raft.ErrNothingNewToSnapshot), errors.Is(err, raft.ErrRaftShutdown):
		return nil
	default:
		l.metrics.snapshots.WithLabelValues("error").Inc()
		return err
	}
}

// letGo deletes what lies below the floor: entries, then snapshots.
func (l *Lane) letGo() error {
	keep := l.machine.logFloor.Load()
	first, err := l.store.FirstIndex()
	if err != nil {
		return err
	}
	if first > 0 && first < keep {
		err = l.store.DeleteRange(first, keep-1)
	}
	return errors.Join(err, l.snapshots.thin())
}
