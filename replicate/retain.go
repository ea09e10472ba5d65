package replicate

import (
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"forebay/internal/record"
	"forebay/replicate/state"
)

// releaseInterval is how often batches are released because their time is over.
const releaseInterval = time.Minute

// releaseRetry is how long a release that failed is not tried again.
const releaseRetry = 5 * time.Second

// retain is the term's loop that releases batches, and holds and opens intake.
func (t *Term) retain() {
	tick := time.NewTicker(spaceInterval)
	defer tick.Stop()
	var lastByTime, notBefore time.Time
	for {
		moved := false
		if !time.Now().Before(notBefore) {
			byTime := time.Since(lastByTime) >= min(releaseInterval, max(t.lane.cfg.Retention/10, spaceInterval))
			var err error
			moved, err = t.release(byTime)
			switch {
			case t.ctx.Err() != nil:
				return
			case err != nil:
				notBefore = time.Now().Add(releaseRetry)
				t.lane.cfg.Logger.Error("batches not released", "error", err, "retry_in", releaseRetry)
			case byTime:
				lastByTime = time.Now()
			}
		}
		t.lane.space.measure()
		if moved {
			continue
		}
		select {
		case <-tick.C:
		case <-t.lane.space.wake:
		case <-t.ctx.Done():
			return
		}
	}
}

// release lets go what is due, and reports whether the oldest batch changed.
func (t *Term) release(byTime bool) (moved bool, err error) {
	view := t.lane.batchView()
	room := dueByRoom(view, t.lane.space.limits, t.lane.space.usage())
	due := room
	if byTime {
		due = max(due, dueByTime(view, t.lane.cfg.Retention, t.now()))
	}
	if err := t.carryParked(due); err != nil {
		t.lane.space.setStuck(room > 0)
		return false, err
	}
	if due == 0 {
		return false, nil
	}
	err = t.do(t.ctx, state.Release{Term: t.number, Seq: due, At: t.now()})
	moved = t.FirstSeq() != view.first
	t.lane.space.setStuck(room > 0 && !moved)
	if errors.Is(err, record.ErrRefused) && !moved {
		// A sink was added or a record parked meanwhile: the next look sees it.
		return false, nil
	}
	return moved, err
}

const (
	// carryBatch bounds how many parked records are carried between two looks.
	carryBatch = 256
	// carryTogether is how many of them are under way at one time, so that they share syncs; it
	// leaves control slots to everything else. A record over carryAlone bytes goes alone.
	carryTogether = 8
	carryAlone    = 64 << 10
)

// carryParked appends again the parked records that lie in batches up to due,
// so that these can be released; and copies that hold more of the log than
// they are worth.
func (t *Term) carryParked(due uint64) error {
	if t.ParkedBytes() == 0 {
		return nil
	}
	below := t.copiesInTheWay()
	for {
		refs := see(t.views, func(st *state.State) []state.ParkedRef { return st.ToCopy(due, below, carryBatch) })
		if len(refs) == 0 || !t.lane.space.roomForCopies() {
			return nil
		}
		if err := t.carryAll(refs); err != nil {
			return err
		}
	}
}

// carryAll carries records whose copies may stand in the log in any order.
func (t *Term) carryAll(refs []state.ParkedRef) error {
	var group errgroup.Group
	group.SetLimit(carryTogether)
	for _, ref := range refs {
		if ref.Bytes <= carryAlone {
			group.Go(func() error { return t.carry(ref) })
			continue
		}
		if err := errors.Join(group.Wait(), t.carry(ref)); err != nil {
			return err
		}
	}
	return group.Wait()
}

// copiesInTheWay gives the index below which copies of parked records are to be
// made anew, 0 for none: what only they keep of the log is a snapshot's worth, or room
// runs short, and it is more than twice what copying them takes.
func (t *Term) copiesInTheWay() uint64 {
	below := t.lane.needed(t.Released())
	floor := t.Floor()
	if below <= floor {
		return 0
	}
	behind := t.lane.store.BytesBefore(below) - t.lane.store.BytesBefore(floor)
	if behind > 2*t.ParkedBytes() && (behind > t.lane.cfg.SnapshotBytes || t.lane.space.pressed()) {
		return below
	}
	return 0
}

// carry appends one parked record again.
func (t *Term) carry(ref state.ParkedRef) error {
	block, err := t.lane.parkedBlock(t.ctx, ref)
	if errors.Is(err, record.ErrReleased) {
		return nil // discarded meanwhile
	}
	if err != nil {
		return err
	}
	for _, entry := range state.Copies(ref.ID, block) {
		if err := t.doEncoded(t.ctx, entry); err != nil {
			if errors.Is(err, record.ErrRefused) {
				return nil // discarded meanwhile
			}
			return err
		}
	}
	t.lane.metrics.copied.Add(float64(len(block)))
	return nil
}

// batchView tells the retention how the batches stand.
func (l *Lane) batchView() batchView {
	l.machine.mu.RLock()
	defer l.machine.mu.RUnlock()
	st := l.machine.st
	v := batchView{first: st.FirstSeq(), last: st.LastSeq(), cutAt: l.cutAt, freed: l.freed}
	for i, s := range st.Sinks() {
		if i == 0 || s.Cursor-1 < v.delivered {
			v.delivered = s.Cursor - 1
		}
	}
	return v
}

func (l *Lane) cutAt(seq uint64) int64 {
	b, _ := l.Batch(seq)
	return b.CutAt
}

// freed tells how many bytes lie below what the log must keep once batches up to
// seq are released: the entries from the newest snapshot below the next batch on.
func (l *Lane) freed(seq uint64) int64 {
	return l.store.BytesBefore(l.snapshots.indexBelow(l.needed(seq)))
}

// needed gives the first entry that batches after seq, or records that are not
// yet cut, need. Parked records are not asked.
func (l *Lane) needed(seq uint64) uint64 {
	return see(l.views, func(st *state.State) uint64 {
		layout, ok := st.Layout(seq + 1)
		switch {
		case ok && len(layout.Early) > 0:
			return min(layout.Early[0], layout.FirstIndex)
		case ok:
			return layout.FirstIndex
		case st.Open().Records == 0:
			return st.AppliedIndex() + 1
		}
		// Where the open batch begins is not told; not before the last one's end.
		b, _ := st.Batch(seq)
		return b.LastIndex + 1
	})
}

// keptBatches counts the batches that the state keeps.
func (l *Lane) keptBatches() uint64 {
	return see(l.views, func(st *state.State) uint64 { return st.LastSeq() + 1 - st.FirstSeq() })
}
