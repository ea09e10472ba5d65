package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	lib "modernc.org/sqlite/lib"

	"forebay/internal/record"
	"forebay/sinks"
)

// format is the version of the sink's own tables.
const format = 1

// ownTables makes the tables of the sink's own. Names of tables are compared
// without regard to case, as SQLite does. See DESIGN.md.
func ownTables() []string {
	return []string{
		`CREATE TABLE IF NOT EXISTS forebay_sinks (
			target TEXT NOT NULL COLLATE NOCASE PRIMARY KEY,
			format INTEGER NOT NULL, gateway TEXT NOT NULL, log_id TEXT NOT NULL, sink TEXT NOT NULL, node TEXT
		) STRICT`,
		`CREATE TABLE IF NOT EXISTS forebay_lanes (
			target TEXT NOT NULL COLLATE NOCASE, log_id TEXT NOT NULL, lane INTEGER NOT NULL,
			term INTEGER NOT NULL, next INTEGER NOT NULL, pruned_below INTEGER NOT NULL,
			PRIMARY KEY (target, log_id, lane)
		) STRICT, WITHOUT ROWID`,
		`CREATE TABLE IF NOT EXISTS forebay_ledger (
			target TEXT NOT NULL COLLATE NOCASE, log_id TEXT NOT NULL, lane INTEGER NOT NULL, seq INTEGER NOT NULL,
			gateway TEXT NOT NULL, sink TEXT NOT NULL, term INTEGER NOT NULL, at INTEGER NOT NULL, rows INTEGER NOT NULL,
			PRIMARY KEY (target, log_id, lane, seq)
		) STRICT, WITHOUT ROWID`,
	}
}

// Open claims the table for the lane, and fences lower terms, in one transaction.
func (s *Sink) Open(ctx context.Context, id sinks.Identity) error {
	if s.open {
		return errors.New("the sink is open already")
	}
	if id.Next.Seq == 0 {
		id.Next = record.BatchID{Lane: id.Lane, Seq: 1}
	}
	s.broken = true // what a former term left is not trusted
	err := s.connect(ctx)
	if err == nil {
		err = s.begin(ctx)
	}
	var lane laneRow
	if err == nil {
		n, c := s.session, claim{cfg: &s.cfg, table: s.table, id: id}
		err = s.do(ctx, "claim", func() (err error) {
			lane, err = c.make(n)
			return err
		})
	}
	if err != nil {
		s.drop(ctx)
		return fmt.Errorf("opening %s, table %q: %w", s.cfg.Path, s.cfg.Table, explain(err))
	}
	s.id, s.next, s.oldest, s.open = id, id.Next.Seq, lane.pruned, true
	if lane.isNew && id.Next.Seq > 1 {
		s.cfg.Logger.Warn("sink begins in a database that holds none of its earlier batches",
			"path", s.cfg.Path, "table", s.cfg.Table, "next", id.Next.String())
	}
	return nil
}

// claim is what Open does inside its transaction.
type claim struct {
	cfg   *Config
	table *table
	id    sinks.Identity
}

// laneRow is one row of forebay_lanes.
type laneRow struct {
	term, next, pruned uint64
	isNew              bool
}

func (c *claim) make(n *session) (laneRow, error) {
	for _, q := range ownTables() {
		if err := n.exec(q); err != nil {
			return laneRow{}, err
		}
	}
	mine, err := c.identity(n)
	if err != nil {
		return laneRow{}, err
	}
	if err := c.target(n, mine); err != nil {
		return laneRow{}, err
	}
	lane, err := c.lane(n)
	if err != nil {
		return laneRow{}, err
	}
	if err := n.prepare(c.table); err != nil {
		return laneRow{}, c.unfit(err)
	}
	if err := n.settleDown(); err != nil {
		return laneRow{}, err
	}
	return lane, syncDir(c.cfg.Path)
}

// identity compares whose the table is, or claims it. It tells whether the table
// was claimed before.
func (c *claim) identity(n *session) (bool, error) {
	var (
		version                  int
		gateway, logID, sinkName string
		node                     sql.NullString
		want                     = sql.NullString{String: c.id.Node, Valid: !c.cfg.Shared}
	)
	err := n.conn.QueryRowContext(never(), `SELECT format, gateway, log_id, sink, node FROM forebay_sinks WHERE target = ?`, c.table.name).
		Scan(&version, &gateway, &logID, &sinkName, &node)
	if errors.Is(err, sql.ErrNoRows) {
		return false, n.exec(`INSERT INTO forebay_sinks (target, format, gateway, log_id, sink, node) VALUES (?, ?, ?, ?, ?, ?)`,
			c.table.name, format, c.id.Gateway, c.id.LogID, c.id.Sink, want)
	}
	if err != nil {
		return false, err
	}
	var of string
	switch {
	case version != format:
		return false, sinks.Permanent(fmt.Errorf("the ledger has format %d, which this version does not know: use the version that wrote it", version))
	case gateway != c.id.Gateway:
		of = fmt.Sprintf("gateway %q, and this is gateway %q", gateway, c.id.Gateway)
	case sinkName != c.id.Sink:
		of = fmt.Sprintf("sink %q, and this is sink %q", sinkName, c.id.Sink)
	case logID != c.id.LogID:
		of = fmt.Sprintf("log %s, and this is log %s (either another gateway named %q delivers into it, perhaps now, or this one's data directory was made anew and its batch numbers begin again)", logID, c.id.LogID, gateway)
	case node.Valid && want.Valid && node.String != c.id.Node:
		of = fmt.Sprintf("node %q, and this is node %q (set shared = true when all nodes are on this host and deliver into this one file)", node.String, c.id.Node)
	case node != want: // shared was changed
		return true, n.exec(`UPDATE forebay_sinks SET node = ? WHERE target = ?`, want, c.table.name)
	default:
		return true, nil
	}
	return false, sinks.Permanent(fmt.Errorf("%w: %s: deliver into another table or file; or, if its rows are to be kept and added to, and it is certain that nobody else delivers into it, run in the database: %s",
		sinks.ErrForeign, of, c.release()))
}

// release is the way out that the operator can take: after it the table is nobody's.
func (c *claim) release() string {
	return fmt.Sprintf("DELETE FROM forebay_sinks WHERE target = '%s'", quoteText(c.table.name))
}

// target makes the table when it is missing and may be made.
func (c *claim) target(n *session, mine bool) error {
	var there int
	err := n.conn.QueryRowContext(never(), `SELECT count(*) FROM sqlite_schema WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE`, c.table.name).Scan(&there)
	switch {
	case err != nil:
		return err
	case there > 0:
		return nil
	case mine:
		return sinks.Permanent(fmt.Errorf("the table is gone, and with it the batches that were delivered into it: restore it, or, to begin with an empty one, run: %s; DELETE FROM forebay_lanes WHERE target = '%s'; DELETE FROM forebay_ledger WHERE target = '%s'",
			c.release(), quoteText(c.table.name), quoteText(c.table.name)))
	case !c.cfg.Create:
		return sinks.Permanent(fmt.Errorf("there is no such table, and create = false: make it, as in: %s", c.table.createSQL()))
	}
	if err := n.exec(c.table.createSQL()); err != nil {
		return sinks.Permanent(fmt.Errorf("making the table: %w", words(err)))
	}
	return nil
}

// lane reads and raises the lane's row: from the commit on a lower term applies nothing.
func (c *claim) lane(n *session) (laneRow, error) {
	id := &c.id
	row, err := readLane(n, c.table.name, id)
	if errors.Is(err, sql.ErrNoRows) {
		row = laneRow{term: id.Term, next: id.Next.Seq, isNew: true}
		return row, n.exec(`INSERT INTO forebay_lanes (target, log_id, lane, term, next, pruned_below) VALUES (?, ?, ?, ?, ?, 0)`,
			c.table.name, id.LogID, id.Lane, int64(id.Term), int64(id.Next.Seq))
	}
	if err != nil {
		return row, err
	}
	switch {
	case row.term > id.Term:
		return row, fenced(row.term, id.Term)
	case max(row.next, row.pruned) > id.Next.Seq:
		return row, sinks.Permanent(fmt.Errorf("%w: its next batch is %v, the log's is %v: the data directory is older than what it delivered; deliver into another table",
			sinks.ErrAhead, record.BatchID{Lane: id.Lane, Seq: max(row.next, row.pruned)}, id.Next))
	}
	var held int64
	err = n.conn.QueryRowContext(never(), `SELECT coalesce(max(seq), 0) FROM forebay_ledger WHERE target = ? AND log_id = ? AND lane = ?`,
		c.table.name, id.LogID, id.Lane).Scan(&held)
	if err == nil {
		err = id.CheckHeld(uint64(held), "deliver into another table")
	}
	if err != nil {
		return row, err
	}
	// Written even when nothing changes, so that the commit syncs what a killed process has left unsynced.
	return row, n.exec(`UPDATE forebay_lanes SET term = ?, next = ? WHERE target = ? AND log_id = ? AND lane = ?`,
		int64(id.Term), int64(id.Next.Seq), c.table.name, id.LogID, id.Lane)
}

func readLane(n *session, target string, id *sinks.Identity) (row laneRow, err error) {
	var term, next, pruned int64
	err = n.conn.QueryRowContext(never(), `SELECT term, next, pruned_below FROM forebay_lanes WHERE target = ? AND log_id = ? AND lane = ?`,
		target, id.LogID, id.Lane).Scan(&term, &next, &pruned)
	return laneRow{term: uint64(term), next: uint64(next), pruned: uint64(pruned)}, err
}

func fenced(held, term uint64) error {
	return sinks.Permanent(fmt.Errorf("%w: term %d, and this is term %d", sinks.ErrFenced, held, term))
}

// unfit words a statement that does not compile against the table that is there.
func (c *claim) unfit(err error) error {
	if code(err) != lib.SQLITE_ERROR {
		return err
	}
	return sinks.Permanent(fmt.Errorf("the table does not fit the sink, whose columns are %s: %w", c.table.names(), words(err)))
}

// quoteText doubles the quotes of what stands in an SQL string.
func quoteText(s string) string { return strings.ReplaceAll(s, "'", "''") }
