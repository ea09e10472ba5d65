package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	lib "modernc.org/sqlite/lib"

	"forebay/internal/record"
	"forebay/sinks"
)

// errApplied ends an attempt at a batch that the ledger holds.
var errApplied = errors.New("the batch is in the ledger")

// Deliver applies one batch, unless it is applied already.
func (s *Sink) Deliver(ctx context.Context, b record.Batch, settle sinks.Settle) error {
	if !s.open {
		return sinks.ErrNotOpen
	}
	if err := s.id.CheckBatch(&b); err != nil {
		return err
	}
	if b.ID.Seq < s.oldest {
		return sinks.Permanent(s.pruned(b.ID, s.oldest))
	}
	if b.ID.Seq < s.next {
		return nil
	}
	a := attempt{Sink: s, ctx: ctx, batch: &b}
	err := a.run(settle)
	if err == nil {
		return nil
	}
	if errors.Is(err, errApplied) {
		return a.fail(a.confirm())
	}
	return a.fail(err)
}

func (s *Sink) pruned(id record.BatchID, below uint64) error {
	return fmt.Errorf("batch %v comes again, but the ledger was pruned below %v, because nothing below was to come again: "+
		"it is not applied; deliver into another table, or move the sink's cursor forward",
		id, record.BatchID{Lane: id.Lane, Seq: below})
}

// attempt is one attempt at one batch.
type attempt struct {
	*Sink
	ctx      context.Context
	batch    *record.Batch
	refusals sinks.Refusals
	rows     int64
	settled  error
}

// fail ends an attempt that did not succeed: the transaction is rolled back with its connection.
func (a *attempt) fail(err error) error {
	if err == nil {
		return nil
	}
	a.drop(a.ctx)
	if a.settled != nil {
		return a.settled
	}
	return fmt.Errorf("applying batch %v to %s, table %q: %w", a.batch.ID, a.cfg.Path, a.cfg.Table, explain(err))
}

func (a *attempt) run(settle sinks.Settle) error {
	if err := a.connect(a.ctx); err != nil {
		return err
	}
	if err := a.begin(a.ctx); err != nil {
		return err
	}
	if err := a.look(); err != nil {
		return err
	}
	if err := a.apply(); err != nil {
		return err
	}
	if a.settled = settle(a.ctx, a.refusals.List()); a.settled != nil {
		return a.settled
	}
	return a.commit()
}

// look checks, inside the transaction, that the file is the one claimed, that no higher
// term holds the lane, and that the batch is new.
func (a *attempt) look() error {
	n, id, seq, target, path := a.session, a.id, a.batch.ID.Seq, a.table.name, a.cfg.Path
	table := a.table
	return a.do(a.ctx, "look", func() error {
		if err := n.same(path); err != nil {
			return err
		}
		lane, err := readLane(n, target, &id)
		switch {
		case errors.Is(err, sql.ErrNoRows) || code(err) == lib.SQLITE_ERROR:
			return sinks.Permanent(fmt.Errorf("the lane is no longer in forebay_lanes: the table was given to another, or the file replaced: %w", sinks.ErrForeign))
		case err != nil:
			return err
		case lane.term > id.Term:
			return fenced(lane.term, id.Term)
		case lane.term < id.Term:
			return sinks.Permanent(fmt.Errorf("forebay_lanes was changed by another than the sink: it holds term %d, and this is term %d", lane.term, id.Term))
		case seq < lane.pruned:
			return sinks.Permanent((*Sink)(nil).pruned(record.BatchID{Lane: id.Lane, Seq: seq}, lane.pruned))
		}
		var one int
		err = n.conn.QueryRowContext(never(), `SELECT 1 FROM forebay_ledger WHERE target = ? AND log_id = ? AND lane = ? AND seq = ?`,
			target, id.LogID, id.Lane, int64(seq)).Scan(&one)
		if err == nil {
			return errApplied
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if n.insert == nil { // a connection made after an error
			return n.prepare(table)
		}
		return nil
	})
}

// apply streams the batch into the transaction, chunk by chunk.
func (a *attempt) apply() error {
	var row sinks.Row
	err := a.batch.Read(a.ctx, func(rec *record.Record) error {
		keep, err := sinks.Map(a.cfg.Mapper, rec, &row)
		if err == nil && !keep {
			return nil
		}
		if a.chunk == nil {
			a.chunk = newChunk(len(a.table.cols))
		}
		if more := size(&row); a.chunk.full(more) {
			if err := a.flush(); err != nil {
				return err
			}
			if a.chunk == nil {
				a.chunk = newChunk(len(a.table.cols))
			}
		}
		if err != nil {
			a.chunk.note(rec, err)
			return nil
		}
		a.chunk.add(a.table, &row)
		return nil
	})
	if err != nil {
		if a.chunk != nil {
			a.chunk.reset()
		}
		return err
	}
	return a.flush()
}

// flush hands the chunk to SQLite and collects what was refused, in order.
func (a *attempt) flush() error {
	c, n, t := a.chunk, a.session, a.table
	if c == nil || len(c.rows) == 0 {
		return nil
	}
	a.chunk = nil // its owner is the call, until that is over
	if err := a.do(a.ctx, "rows", func() error { return n.insertAll(t, c) }); err != nil {
		return err
	}
	for i := range c.rows {
		e := &c.rows[i]
		if e.refused == nil {
			a.rows++
			continue
		}
		rec := record.Record{Topic: e.id.Topic, Partition: e.id.Partition, Offset: e.id.Offset}
		if err := a.refusals.Add(&rec, e.refused); err != nil {
			return err
		}
	}
	c.reset()
	a.chunk = c
	return nil
}

// insertAll applies the rows of a chunk and notes which the table refuses.
func (n *session) insertAll(t *table, c *chunk) error {
	return n.raw(func(conn driver.Conn) error {
		stmt, ok := n.insert.(driver.StmtExecContext)
		if !ok {
			return errors.New("the SQLite driver has no StmtExecContext")
		}
		at := 0
		for i := range c.rows {
			if c.rows[i].refused != nil {
				continue
			}
			_, err := stmt.ExecContext(never(), c.args[at:at+c.cols])
			at += c.cols
			if err == nil {
				continue
			}
			if err := judge(conn, t, err); err != nil {
				return err
			}
			c.rows[i].refused = words(err)
		}
		return nil
	})
}

// judge gives nil when err is about the row alone, and an error that ends the attempt otherwise.
func judge(conn driver.Conn, t *table, err error) error {
	switch {
	case code(err) == lib.SQLITE_ERROR: // an expression that fails on this row, or a table that was changed
		again, prepErr := conn.Prepare(t.insertSQL())
		if prepErr != nil {
			return sinks.Permanent(fmt.Errorf("the table no longer fits the sink: %w", words(prepErr)))
		}
		if err := again.Close(); err != nil {
			return err
		}
	case !refusable(err):
		return err
	}
	// A trigger can end the transaction with RAISE(ROLLBACK): every further row would be committed alone.
	// SQLite begins a transaction only where there is none.
	begin, err := conn.Prepare("BEGIN")
	if err != nil {
		return err
	}
	_, inside := begin.(driver.StmtExecContext).ExecContext(never(), nil)
	if err := begin.Close(); err != nil {
		return err
	}
	if inside == nil {
		return sinks.Permanent(errors.New("a trigger of the table rolls the whole transaction back, and a sink cannot deliver into it: use RAISE(ABORT), not RAISE(ROLLBACK)"))
	}
	return nil
}

// commit writes the batch into the ledger, makes all durable, and prunes what will
// not come again. A batch without rows leaves no trace: the transaction is rolled back.
func (a *attempt) commit() error {
	n, id, seq, target, rows, next, oldest := a.session, a.id, a.batch.ID.Seq, a.table.name, a.rows, a.next, a.oldest
	if rows == 0 {
		return a.do(a.ctx, "", func() error { return n.exec("ROLLBACK") })
	}
	err := a.do(a.ctx, "ledger", func() error {
		err := n.exec(`INSERT INTO forebay_ledger (target, log_id, lane, seq, gateway, sink, term, at, rows) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			target, id.LogID, id.Lane, int64(seq), id.Gateway, id.Sink, int64(id.Term), time.Now().UnixMilli(), rows)
		if err != nil {
			return err
		}
		return n.advance(target, &id, next, oldest)
	})
	if err != nil {
		return err
	}
	if err := a.do(a.ctx, "commit", func() error { return n.exec("COMMIT") }); err != nil {
		return err
	}
	return a.do(a.ctx, "committed", func() error { return nil })
}

// confirm makes sure that a batch which is in the ledger is durable: the process that
// committed it may have died before the sync.
func (a *attempt) confirm() error {
	n, id, target, next, oldest := a.session, a.id, a.table.name, a.next, a.oldest
	return a.do(a.ctx, "confirm", func() error {
		if err := n.advance(target, &id, next, oldest); err != nil {
			return err
		}
		return n.settleDown()
	})
}

// settleDown commits, which syncs the log with all commits before this one, and copies
// what readers allow from the log into the database: after a sync that failed, what was written has to be
// written again, since a second sync alone says nothing about it.
func (n *session) settleDown() error {
	if err := n.exec("COMMIT"); err != nil {
		return err
	}
	var busy, log, copied int
	return n.conn.QueryRowContext(never(), "PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &log, &copied)
}

// advance moves the lane's row and prunes the ledger below oldest.
func (n *session) advance(target string, id *sinks.Identity, next, oldest uint64) error {
	err := n.exec(`UPDATE forebay_lanes SET next = max(next, ?), pruned_below = max(pruned_below, ?) WHERE target = ? AND log_id = ? AND lane = ?`,
		int64(next), int64(oldest), target, id.LogID, id.Lane)
	if err != nil {
		return err
	}
	return n.exec(`DELETE FROM forebay_ledger WHERE target = ? AND log_id = ? AND lane = ? AND seq < ?`,
		target, id.LogID, id.Lane, int64(oldest))
}

// Advanced notes the cursor and what may be pruned. Both are written by the
// transaction of the next batch: a transaction of their own would cost a sync per batch and protect nothing,
// since a batch below is refused from now on, and after a crash the ledger still has it.
func (s *Sink) Advanced(_ context.Context, next, oldest record.BatchID) error {
	if !s.open {
		return sinks.ErrNotOpen
	}
	if next.Lane != s.id.Lane || oldest.Lane != s.id.Lane {
		return fmt.Errorf("cursor %v and oldest batch %v came to the sink of lane %d", next, oldest, s.id.Lane)
	}
	s.next = max(s.next, next.Seq)
	s.oldest = max(s.oldest, min(oldest.Seq, s.next))
	return nil
}
