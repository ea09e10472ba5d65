package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"forebay/replicate"
	"forebay/wal"
)

func (p *program) walRepairCommand() *cobra.Command {
	var r repair
	c := &cobra.Command{
		Use:   "repair",
		Short: "Cut off a torn tail; with --lose-acknowledged, go on without what is damaged (the node stopped)",
		Long: `Without flags: cuts off a torn tail, as the next start would, and ends a repair that was
interrupted. Damage is told, and nothing is changed.

With --lose-acknowledged: works out how the log can go on, prints exactly what that costs, writes
it to a file beside the log, and asks. Nothing is deleted: all that is taken out of the log lies in
quarantine/ under the lane's directory. There are two ways, and it takes the one that costs least:

  - damage below everything that a sink still needs: the log then begins behind it. What goes
    is history; nothing is lost and nothing comes twice.
  - else the log is cut off in front of the damage, and Kafka is read again from there. What
    Kafka has not any more is lost, and 'forebay gaps list' shows it. Sinks that had
    batches from behind the cut get their records again, under new numbers: the old numbers are
    given up, so that no sink takes a new batch for one that it has.

Where the end of the log cannot be read, a sink may have more batches than the log can tell. It then refuses
to start, "ahead of the log", and names the batch. --sink-has NAME=BATCH tells the log that the sink has all up to BATCH:
with --lose-acknowledged, or alone on a log that is whole. A BATCH that the sink does not have is lost to it.

A repair from a copy costs nothing: try 'forebay wal import' first.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error { return p.repair(c.Context(), &r) },
	}
	r.at.register(c)
	r.output.register(c)
	c.Flags().BoolVar(&r.lose, "lose-acknowledged", false, "go on without what is damaged, after a question")
	c.Flags().StringToStringVar(&r.has, "sink-has", nil, "the sink has all batches up to this one: `NAME=BATCH`")
	c.Flags().StringVar(&r.yes, "yes-lose", "", "answer the question with the `GATEWAY`'s name, for scripts")
	return c
}

type repair struct {
	at     place
	output output
	lose   bool
	yes    string
	has    map[string]string
}

// told reads what the operator says that sinks have.
func (r *repair) told() (map[string]uint64, error) {
	told := map[string]uint64{}
	for name, text := range r.has {
		_, seq, err := batchRange(text, r.at.lane)
		if err != nil {
			return nil, err
		}
		told[name] = seq
	}
	return told, nil
}

// errNotConfirmed ends a repair at its question.
var errNotConfirmed = errors.New("not confirmed: nothing was changed")

// repairWait is how long repair and import wait for the log of a node that is ending.
const repairWait = time.Second

func (p *program) repair(ctx context.Context, r *repair) error {
	dir, err := r.at.dir()
	if err != nil {
		return err
	}
	told, err := r.told()
	if err != nil {
		return err
	}
	held, err := holdLog(dir)
	if err != nil {
		return err
	}
	defer func() { _ = held.Close() }()
	place, err := held.Finish()
	if err != nil {
		return err
	}
	if place != "" {
		fmt.Fprintf(p.out, "the repair that was interrupted has ended; what it took out lies in %s\n", filepath.Join(dir, place))
	}
	lane, err := openLane(dir)
	if err != nil {
		return err
	}
	report, err := lane.reader.Verify(func(wal.Progress) error { return ctx.Err() })
	if err != nil {
		return err
	}
	if len(report.Damage) == 0 && len(told) == 0 {
		_ = held.Close() // it takes the lock itself
		return p.cutTorn(dir, report)
	}
	seen := newSuffix()
	if _, err := lane.reader.VerifyEntries(func(e *wal.Entry) {
		if within(report.Runs, e.Index, e.Index) {
			seen.note(e)
		}
	}, func(wal.Progress) error { return ctx.Err() }); err != nil {
		return err
	}
	plan, planErr := planRepair(lane, report, seen, told)
	if !r.lose && len(report.Damage) > 0 {
		for _, d := range report.Damage {
			fmt.Fprintf(p.out, "damaged: %s\n", damageText(d))
		}
		if planErr != nil {
			return planErr
		}
		return fmt.Errorf("acknowledged entries are damaged, and nothing was changed: put them in from a copy (forebay wal import %s FILE); "+
			"or see what it costs to go on without them, and decide: forebay wal repair %s --lose-acknowledged", r.at.flags(), r.at.flags())
	}
	if planErr != nil {
		return planErr
	}
	return p.lose(r, held, plan)
}

// lose carries a plan out, after it was printed, written to a file, and confirmed.
func (p *program) lose(r *repair, held *wal.Held, plan *repairPlan) error {
	now := time.Now()
	loss := plan.loss(now)
	file := filepath.Join(plan.dir, "repair-"+now.UTC().Format("20060102T150405.000Z")+".txt")
	var text bytes.Buffer
	if err := r.output.show(&text, loss, loss.table); err != nil {
		return err
	}
	if err := writeSynced(file, text.Bytes()); err != nil {
		return fmt.Errorf("writing what goes to a file: %w: nothing was changed", err)
	}
	if _, err := p.out.Write(text.Bytes()); err != nil {
		return err
	}
	fmt.Fprintf(p.err, "this is written to %s\n", file)
	if err := p.confirm(r, loss.Gateway); err != nil {
		return err
	}
	place, err := held.Amend(wal.Amendment{
		First: plan.first, Last: plan.last, PrevTerm: plan.prevTerm, Append: plan.appended, Remove: plan.remove, At: now,
	})
	if err != nil {
		return fmt.Errorf("repairing the log: %w (if it was begun, forebay wal repair %s ends it)", err, r.at.flags())
	}
	fmt.Fprintf(p.err, "repaired; what was taken out lies in %s\nnext: forebay wal verify %s, then start the node\n", filepath.Join(plan.dir, place), r.at.flags())
	return nil
}

// confirm asks for the gateway's name.
func (p *program) confirm(r *repair, gateway string) error {
	answer := r.yes
	if answer == "" {
		fmt.Fprintf(p.err, "type the gateway's name, %s, to go on: ", gateway)
		line, _ := bufio.NewReader(p.in).ReadString('\n')
		answer = strings.TrimSpace(line)
	}
	if answer != gateway {
		return fmt.Errorf("%w: the gateway is %q, not %q", errNotConfirmed, gateway, answer)
	}
	return nil
}

// cutTorn opens and closes a log that is whole but for its tail, which repairs that as a start does.
func (p *program) cutTorn(dir string, report *wal.Report) error {
	newest, err := replicate.NewestSnapshot(dir)
	if err != nil {
		return err
	}
	log, err := wal.Open(wal.Config{
		Dir: dir, SnapshotIndex: newest.Index, SnapshotTerm: newest.Term, SnapshotTaken: newest.TakenHere,
		LockWait: repairWait, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return fmt.Errorf("%w: forebay wal repair mends the log only; restore the directory from a copy", err)
	}
	if err := log.Close(); err != nil {
		return err
	}
	if t := report.Torn; t != nil {
		fmt.Fprintf(p.out, "cut off a torn tail of %d bytes in %s at byte %d; it was never acknowledged. The log is whole up to entry %d\n",
			t.Bytes, t.Segment, t.Offset, report.Last)
		return nil
	}
	fmt.Fprintf(p.out, "nothing to repair: the log is whole, entries %s\n", runText(report.First, report.Last))
	return nil
}

// holdLog takes a stopped node's log.
func holdLog(dir string) (*wal.Held, error) {
	held, err := wal.Hold(dir, repairWait)
	switch {
	case errors.Is(err, wal.ErrInUse):
		return nil, &exitError{code: exitTryAgain, err: fmt.Errorf("%w: stop the node first", err)}
	case err != nil:
		return nil, noLog(dir, err)
	}
	return held, nil
}

// writeSynced writes a new file, durably.
func writeSynced(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
