package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"forebay/internal/record"
	"forebay/sinks"
)

// Deliver writes the batch's file, unless there is one already.
func (s *Sink) Deliver(ctx context.Context, b record.Batch, settle sinks.Settle) error {
	if !s.open {
		return sinks.ErrNotOpen
	}
	if err := s.id.CheckBatch(&b); err != nil {
		return err
	}
	if s.unsure {
		if err := s.scan(ctx, func(string) {}); err != nil {
			return explain(err)
		}
	}
	if b.ID.Seq < s.next {
		return nil
	}
	if _, ok := s.there[b.ID.Seq]; ok {
		// The attempt that made it may have died before it was durable.
		return s.syncDir(ctx)
	}
	out := &output{ctx: ctx, sink: s, path: s.path(tmpBatchName(&s.id, b.ID.Seq)), through: s.through}
	s.takeBuffers(out)
	defer s.giveBuffers(out)
	return s.attempt(out, &b, settle)
}

// attempt writes, settles and publishes one batch.
func (s *Sink) attempt(out *output, b *record.Batch, settle sinks.Settle) error {
	refusals, err := s.write(out, b)
	if err == nil && out.begun {
		err = out.finish()
	}
	if err != nil {
		out.discard()
		return fmt.Errorf("writing batch %v: %w", b.ID, explain(err))
	}
	if err := settle(out.ctx, refusals); err != nil {
		out.discard()
		return err
	}
	if !out.begun {
		return nil
	}
	if err := s.publish(out, b.ID); err != nil {
		out.discard()
		return fmt.Errorf("publishing batch %v: %w", b.ID, explain(err))
	}
	return s.syncDir(out.ctx)
}

// write streams the batch into the temporary file, which it makes for the first line.
func (s *Sink) write(out *output, b *record.Batch) ([]record.Refusal, error) {
	var (
		refusals sinks.Refusals
		row      sinks.Row
	)
	err := b.Read(out.ctx, func(rec *record.Record) error {
		keep, err := sinks.Map(s.cfg.Mapper, rec, &row)
		if err != nil {
			return refusals.Add(rec, err)
		}
		if !keep {
			return nil
		}
		buf := out.lines
		if !out.begun {
			buf = s.encoder.Header(buf)
		}
		buf, err = s.encoder.Append(buf, &row)
		if err != nil {
			return refusals.Add(rec, err)
		}
		if !out.begun {
			if err := out.create(); err != nil {
				return err
			}
		}
		return out.wrote(buf)
	})
	return refusals.List(), err
}

// publish gives the file its final name, unless a higher term holds the lane.
func (s *Sink) publish(out *output, id record.BatchID) error {
	fsys, lane, term := s.fs, s.lane, s.id.Term
	tmp, final := out.path, s.path(finalName(id, s.suffix))
	// Until it is known how this ends, the directory has to be asked.
	s.unsure = true
	err := s.locked(out.ctx, func() error {
		if err := unfenced(lane, term); err != nil {
			return err
		}
		return fsys.Publish(tmp, final)
	})
	if err != nil {
		return err
	}
	s.unsure = false
	s.there[id.Seq] = struct{}{}
	return nil
}

func (s *Sink) syncDir(ctx context.Context) error {
	if err := s.do(ctx, func() error { return s.fs.SyncDir(s.cfg.Dir) }); err != nil {
		return fmt.Errorf("syncing %s: %w", s.cfg.Dir, explain(err))
	}
	return nil
}

// Advanced tells consumers that they may take what is below next.
func (s *Sink) Advanced(ctx context.Context, next, _ record.BatchID) error {
	if !s.open {
		return sinks.ErrNotOpen
	}
	if next.Lane != s.id.Lane {
		return fmt.Errorf("cursor %v came to the sink of lane %d", next, s.id.Lane)
	}
	if err := s.advance(ctx, next); err != nil {
		return fmt.Errorf("moving the cursor of lane %d to %v: %w", next.Lane, next, explain(err))
	}
	return nil
}

func (s *Sink) advance(ctx context.Context, next record.BatchID) error {
	if next.Seq <= s.next {
		return nil
	}
	lane, term := s.lane, s.id.Term
	err := s.writeSmall(ctx, tmpName(&s.id, tmpCursor), fmt.Sprintf("%s%d", cursorPrefix, next.Lane),
		[]byte(next.String()+"\n"), func(tmp, final string) error {
			if err := unfenced(lane, term); err != nil {
				return err
			}
			return s.fs.Replace(tmp, final)
		})
	if err != nil {
		return err
	}
	s.next = next.Seq
	for seq := range s.there {
		if seq < s.next {
			delete(s.there, seq)
		}
	}
	return nil
}

// writeSmall writes a small file whole: temporary name, sync, its final name by
// place (under the lane's lock once that is open), directory synced.
func (s *Sink) writeSmall(ctx context.Context, tmp, final string, content []byte, place func(tmp, final string) error) error {
	fsys := s.fs
	tmp, final = s.path(tmp), s.path(final)
	err := s.do(ctx, func() error {
		if err := removeIfThere(fsys, tmp); err != nil {
			return err
		}
		f, err := fsys.Create(tmp)
		if err != nil {
			return err
		}
		_, err = f.Write(content)
		return errors.Join(err, f.Sync(), f.Close())
	})
	if err == nil {
		under := s.do
		if s.lane != nil {
			under = s.locked
		}
		err = under(ctx, func() error { return place(tmp, final) })
	}
	if err != nil {
		s.undo(ctx, func() error { return removeIfThere(fsys, tmp) })
		return err
	}
	return s.do(ctx, func() error { return fsys.SyncDir(s.cfg.Dir) })
}

// undo tries to take back what a failed call did, also when its context has
// ended. It fails in silence: the error that led here is the one to tell, and
// what stays is in nobody's way.
func (s *Sink) undo(ctx context.Context, op func() error) {
	if s.stubborn.Hung() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	_ = s.do(ctx, op)
}

func removeIfThere(fsys fsys, path string) error {
	if err := fsys.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// explain puts into words what an operator can cure while the gateway runs.
func explain(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("the disk is full, and the batch is tried again until there is room: %w", err)
	case errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("the disk quota is used up, and the batch is tried again until there is room: %w", err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the gateway's user may not write there: %w", err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("the file system is read-only: %w", err)
	}
	return err
}
