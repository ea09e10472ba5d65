package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"forebay/replicate/state"
	"forebay/wal"
)

func (p *program) walExportCommand() *cobra.Command {
	var (
		at       place
		from, to uint64
		batch    string
	)
	c := &cobra.Command{
		Use:   "export FILE",
		Short: "Copy entries of the log into a file, from which wal import can put them in again",
		Long: `Writes the entries --from to --to, or those of a batch or a range of batches, as they are in the log, with their
checksums, into a new FILE. Also of a damaged log, or of a running node: entries that are not
whole are left out, and told; then it exits 1, and the FILE is good for what it holds.

Without a range it is the whole log. To have the records as text: forebay wal cat.`,
		Args: exactly("FILE"),
		RunE: func(c *cobra.Command, args []string) error {
			if batch != "" && (from > 0 || to > 0) {
				return usageError{errors.New("--from and --to, or --batch: not both")}
			}
			lane, err := at.open()
			if err != nil {
				return err
			}
			st, err := exportState(lane)
			if err != nil && batch != "" {
				return fmt.Errorf("which entries make up a batch is not known: %w; name the entries: --from, --to", err)
			}
			if to == 0 {
				to = math.MaxUint64
			}
			if batch != "" {
				if from, to, err = entriesOf(st, batch, at.lane); err != nil {
					return err
				}
			}
			return p.export(c.Context(), lane, st, args[0], from, to)
		},
	}
	at.register(c)
	c.Flags().Uint64Var(&from, "from", 0, "the first `ENTRY`")
	c.Flags().Uint64Var(&to, "to", 0, "the last `ENTRY` (0: to the end)")
	c.Flags().StringVar(&batch, "batch", "", "all entries of one batch, or a range of them: `ID` or ID..ID")
	return c
}

// exportState is the state of a log that may be damaged, as far as it can be known.
func exportState(lane *laneLog) (*state.State, error) {
	st, err := lane.state()
	if err == nil {
		return st, nil
	}
	if again, _ := stateOf(lane, nil); again != nil {
		if _, formed := again.Identity(); formed {
			return again, nil
		}
	}
	return nil, err
}

// entriesOf are the first and the last entry of batches.
func entriesOf(st *state.State, batch string, lane uint32) (from, to uint64, err error) {
	first, last, err := batchRange(batch, lane)
	if err != nil {
		return 0, 0, err
	}
	from = math.MaxUint64
	for seq := first; seq <= last; seq++ {
		layout, ok := st.Layout(seq)
		if !ok {
			id, _ := st.Identity()
			return 0, 0, fmt.Errorf("batch %s is not kept: %s", batchID(id, seq), keptText(st))
		}
		from, to = min(from, firstOf(layout)), max(to, layout.LastIndex)
	}
	return from, to, nil
}

func (p *program) export(ctx context.Context, lane *laneLog, st *state.State, file string, from, to uint64) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("%w: name a file that is not there yet", err)
	}
	lacking, entries, err := writeExport(ctx, f, lane, st, from, to)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	fmt.Fprintf(p.out, "%d entries written to %s\n", entries, file)
	for _, r := range lacking {
		fmt.Fprintf(p.out, "not whole, and not in it: %s\n", entriesText(r.First, r.Last))
	}
	if len(lacking) > 0 {
		return &exitError{code: exitFailure}
	}
	return nil
}

// writeExport writes the whole entries of a range, and tells which are not.
func writeExport(ctx context.Context, f *os.File, lane *laneLog, st *state.State, from, to uint64) (lacking []wal.Run, entries uint64, err error) {
	var id [16]byte
	if st != nil {
		form, _ := st.Identity()
		id = form.LogID
	}
	x, err := wal.NewExport(f, id)
	if err != nil {
		return nil, 0, err
	}
	from = max(from, lane.first())
	next := from
	report, err := lane.reader.VerifyEntries(func(e *wal.Entry) {
		if err != nil || e.Index < next || e.Index > to {
			return
		}
		if e.Index > next {
			lacking = append(lacking, wal.Run{First: next, Last: e.Index - 1})
		}
		err = x.Add(e)
		next = e.Index + 1
		entries++
	}, func(wal.Progress) error { return errors.Join(err, ctx.Err()) })
	if err != nil {
		return nil, 0, err
	}
	if end := min(to, max(lane.reader.Synced(), report.Last)); next <= end {
		lacking = append(lacking, wal.Run{First: next, Last: end})
	}
	return lacking, entries, x.Close()
}

func (p *program) walImportCommand() *cobra.Command {
	var at place
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Put the entries of an export in the places of those that are damaged or missing (the node stopped)",
		Long: `Checks the whole FILE, finds what is bad or missing in the log, and puts those entries in from the FILE, if
they are the same ones: of the same log, and with the term, checksum and place that the log
still tells. Everything else in the log stays as it is, and nothing is lost. Whole segments are
replaced, by rename; the bad ones lie in quarantine/ under the lane's directory.

The FILE comes from 'forebay wal export' on a copy or backup of the data directory, however old, as long as it holds the
entries. It is no way to move a log: for that, copy the whole data directory.`,
		Args: exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error { return p.imports(&at, args[0]) },
	}
	at.register(c)
	return c
}

func (p *program) imports(at *place, file string) error {
	dir, err := at.dir()
	if err != nil {
		return err
	}
	held, err := holdLog(dir)
	if err != nil {
		return err
	}
	defer func() { _ = held.Close() }()
	export, err := wal.OpenExport(file)
	if err != nil {
		return err
	}
	defer func() { _ = export.Close() }()
	if place, err := held.Finish(); err != nil {
		return err
	} else if place != "" {
		fmt.Fprintf(p.out, "the repair that was interrupted has ended; what it took out lies in %s\n", filepath.Join(dir, place))
	}
	lane, err := openLane(dir)
	if err != nil {
		return fmt.Errorf("%w (an import repairs a log that is there; to move a log, copy the whole data directory)", err)
	}
	if st, _ := exportState(lane); st != nil {
		if id, formed := st.Identity(); formed && export.LogID != [16]byte{} && id.LogID != export.LogID {
			return fmt.Errorf("%s was taken from log %s, and this is log %s: nothing was changed", file, state.LogID(export.LogID), id.LogID)
		}
	}
	done, err := held.Patch(export, time.Now())
	if err != nil {
		return fmt.Errorf("importing %s: %w", file, err)
	}
	switch {
	case done.Quarantine != "":
		fmt.Fprintf(p.out, "%d entries put in, in %d segments; what was replaced lies in %s\n", done.Entries, len(done.Segments), filepath.Join(dir, done.Quarantine))
	case len(done.Lacking) == 0:
		fmt.Fprintln(p.out, "nothing to put in: no entry is bad or missing")
	}
	for _, r := range done.Lacking {
		fmt.Fprintf(p.out, "bad or missing, and not in %s: %s\n", filepath.Base(file), entriesText(r.First, r.Last))
	}
	if len(done.Lacking) > 0 {
		return fmt.Errorf("the log is still damaged: import another export that has those, or see forebay wal repair %s", at.flags())
	}
	fmt.Fprintf(p.out, "next: forebay wal verify %s, then start the node\n", at.flags())
	return nil
}
