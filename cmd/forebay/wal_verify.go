package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"github.com/spf13/cobra"

	"forebay/internal/record"
	"forebay/replicate"
	"forebay/replicate/state"
	"forebay/wal"
)

// verification is what wal verify -o json prints.
type verification struct {
	Dir      string  `json:"dir"`
	First    uint64  `json:"first"`
	Last     uint64  `json:"last"`
	Entries  uint64  `json:"entries"`
	Bytes    int64   `json:"bytes"`
	Segments int     `json:"segments"`
	Seconds  float64 `json:"seconds"`
	// Snapshots are whole; Batches agree with the state.
	Snapshots int      `json:"snapshots"`
	Batches   int      `json:"batches"`
	Torn      string   `json:"torn,omitempty"`
	Damage    []string `json:"damage"`
	// Unread says what could not be looked at, and why.
	Unread []string `json:"unread,omitempty"`

	report *wal.Report
	st     *state.State
}

func (p *program) walVerifyCommand() *cobra.Command {
	var (
		at       place
		output   output
		progress bool
	)
	c := &cobra.Command{
		Use:   "verify",
		Short: "Read and check the whole log: exits 0 whole, 1 damaged, 3 with a torn tail and nothing else",
		Long: `Reads every segment, the manifest and the mark, the snapshots, and Raft's term and vote, and
checks that each batch that is kept is in the log as the state says. Changes nothing, and may be
used while the node runs: then Raft's term and vote cannot be read, and what
was written since it began is not looked at.

Exits 0 when all is whole, 1 with damage, 3 with a torn tail and nothing else: bytes that were
never acknowledged, which the next start cuts off.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := at.dir()
			if err != nil {
				return err
			}
			m := &meter{out: p.err, on: progress || isTerminal(p.err), begun: time.Now()}
			v, err := verify(c.Context(), dir, m)
			if err != nil {
				return err
			}
			if err := output.show(p.out, v, func(t *table) { v.table(t, at.flags()) }); err != nil {
				return err
			}
			switch {
			case len(v.Damage) > 0:
				return &exitError{code: exitFailure}
			case v.Torn != "":
				return &exitError{code: exitTorn}
			}
			return nil
		},
	}
	at.register(c)
	output.register(c)
	c.Flags().BoolVar(&progress, "progress", false, "say on stderr how far it is, also when that is no terminal")
	return c
}

// verify checks all of a lane's directory.
func verify(ctx context.Context, dir string, m *meter) (*verification, error) {
	// The snapshots first: a running node's log then reaches at least as far.
	snapshots, err := replicate.SnapshotFiles(dir)
	if err != nil {
		return nil, err
	}
	lane, err := openLane(dir)
	if err != nil {
		return nil, err
	}
	v := &verification{Dir: dir, Damage: []string{}}
	blocks := blockNotes{}
	v.report, err = lane.reader.VerifyEntries(blocks.note, func(p wal.Progress) error {
		m.show(p.Bytes, p.Total)
		return ctx.Err()
	})
	m.end()
	if err != nil {
		return nil, err
	}
	r := v.report
	v.First, v.Last, v.Entries, v.Bytes, v.Segments = r.First, r.Last, r.Entries, r.Bytes, r.Segments
	for _, damage := range r.Damage {
		v.Damage = append(v.Damage, damageText(damage))
	}
	if r.Torn != nil {
		v.Torn = r.Torn.Error()
	}
	v.snapshots(snapshots)
	v.stable()
	v.batches(lane, blocks)
	v.Seconds = time.Since(m.begun).Seconds()
	return v, nil
}

func (v *verification) snapshots(files []replicate.SnapshotFile) {
	for _, s := range files {
		if s.Err != nil {
			v.Damage = append(v.Damage, s.Err.Error())
			continue
		}
		v.Snapshots++
	}
	if len(files) > 0 && files[0].Err == nil && files[0].TakenHere && files[0].Index > v.Last {
		v.Damage = append(v.Damage, fmt.Sprintf("the log ends with entry %d, and snapshot %s was taken here from a log that held entry %d",
			v.Last, files[0].Name, files[0].Index))
	}
}

func (v *verification) stable() {
	_, err := replicate.CheckStable(v.Dir)
	switch {
	case errors.Is(err, replicate.ErrInUse):
		v.Unread = append(v.Unread, "Raft's term and vote: a node runs on the directory")
	case errors.Is(err, fs.ErrNotExist):
		v.Unread = append(v.Unread, "Raft's term and vote: there is no stable.db")
	case err != nil:
		v.Damage = append(v.Damage, err.Error())
	}
}

// batches holds the batches that are kept against the state. Where the log is damaged it tells
// which of them cannot be read.
func (v *verification) batches(lane *laneLog, blocks blockNotes) {
	entries := lane.entries
	if len(v.report.Damage) > 0 {
		entries = resuming(lane.reader, v.report.Runs)
	}
	st, err := replicate.Rebuild(lane.dir, lane.first(), v.Last, entries)
	var torn *wal.Torn
	if err != nil && !errors.As(err, &torn) {
		v.Unread = append(v.Unread, "the state, and so the batches: "+err.Error())
		return
	}
	v.st = st
	for seq := st.FirstSeq(); seq <= st.LastSeq(); seq++ {
		info, _ := st.Batch(seq)
		layout, _ := st.Layout(seq)
		if firstOf(layout) < v.First && len(v.report.Damage) == 0 {
			continue // released by a node that runs, or on its way
		}
		what := blocks.compare(layout, info, v.report.Runs)
		if what == "" {
			v.Batches++
			continue
		}
		if who := needing(st, seq); who != "" {
			what += ", which " + who + " still needs"
		} else {
			what += ", which every sink has"
		}
		v.Damage = append(v.Damage, fmt.Sprintf("batch %s: %s", info.ID, what))
	}
}

// firstOf is the first entry of a batch.
func firstOf(l state.Layout) uint64 {
	if len(l.Early) > 0 {
		return min(l.Early[0], l.FirstIndex)
	}
	return l.FirstIndex
}

// needing names the sinks that a batch has not gone to.
func needing(st *state.State, seq uint64) string {
	text := ""
	for _, k := range st.Sinks() {
		if k.Cursor > seq {
			continue
		}
		if text != "" {
			text += ", "
		}
		text += k.Name
	}
	if text == "" && len(st.Sinks()) == 0 {
		return "a sink that is yet to come"
	}
	return text
}

// blockNotes are what the blocks of the log hold, by the entry that completes each.
type blockNotes map[uint64]blockNote

type blockNote struct{ records, bytes int64 }

func (n blockNotes) note(e *wal.Entry) {
	if e.Type != raft.LogCommand || len(e.Data) == 0 || e.Data[0] != record.TagBlock && e.Data[0] != record.TagPart {
		return
	}
	sum, err := record.ParseSummary(e.Data)
	if err != nil {
		n[e.Index] = blockNote{-1, -1}
		return
	}
	if sum.Parts == 0 || sum.Part == sum.Parts-1 {
		n[e.Index] = blockNote{sum.Records, sum.Bytes}
	}
}

// compare says in words where the log does not hold a batch as the state says; "" where it does.
func (n blockNotes) compare(l state.Layout, info record.BatchInfo, runs []wal.Run) string {
	for _, i := range l.Early {
		if !within(runs, i, i) {
			return fmt.Sprintf("entry %d cannot be read", i)
		}
	}
	var sum blockNote
	for i := l.FirstIndex; i <= l.LastIndex; i++ {
		if _, skip := slices.BinarySearch(l.Skip, i); skip {
			continue
		}
		if !within(runs, i, i) {
			return fmt.Sprintf("entry %d cannot be read", i)
		}
		b := n[i]
		if b.records < 0 {
			return fmt.Sprintf("entry %d is not the block that it was", i)
		}
		sum = blockNote{sum.records + b.records, sum.bytes + b.bytes}
	}
	if sum != (blockNote{info.Records, info.Bytes}) {
		return fmt.Sprintf("its entries %s hold %d records of %d bytes, and the state says %d of %d",
			runText(l.FirstIndex, l.LastIndex), sum.records, sum.bytes, info.Records, info.Bytes)
	}
	return ""
}

// within tells whether all entries from first to last are in one of the runs.
func within(runs []wal.Run, first, last uint64) bool {
	i, found := slices.BinarySearchFunc(runs, first, func(r wal.Run, n uint64) int {
		switch {
		case r.Last < n:
			return -1
		case r.First > n:
			return 1
		}
		return 0
	})
	return found && last <= runs[i].Last
}

func (v *verification) table(t *table, flags string) {
	t.line("%s: entries %d to %d, %d segments, %s", v.Dir, v.First, v.Last, v.Segments, bytesText(v.Bytes))
	for _, damage := range v.Damage {
		t.line("damaged: %s", damage)
	}
	for _, what := range v.Unread {
		t.line("not read: %s", what)
	}
	switch {
	case len(v.Damage) > 0:
		t.line("nothing was changed; what to do next, the node stopped:")
		t.line("  forebay wal import %s FILE    with an export of a copy or backup of this log: puts the bad entries in again", flags)
		t.line("  forebay wal repair %s    says what else can be done", flags)
	case v.Torn != "":
		t.line("%s", v.Torn)
	default:
		t.line("whole: every entry was read and its checksum agrees; so do %d snapshots and %d batches", v.Snapshots, v.Batches)
	}
}

// meter shows progress on stderr.
type meter struct {
	out   io.Writer
	on    bool
	begun time.Time
	shown time.Time
}

func (m *meter) show(done, total int64) {
	if !m.on || time.Since(m.shown) < 200*time.Millisecond && done < total {
		return
	}
	m.shown = time.Now()
	rate := float64(done) / 1e6 / max(time.Since(m.begun).Seconds(), 1e-6)
	fmt.Fprintf(m.out, "\r%s of %s read, %.0f MB/s ", bytesText(done), bytesText(total), rate)
}

func (m *meter) end() {
	if m.on {
		fmt.Fprintln(m.out)
	}
}
