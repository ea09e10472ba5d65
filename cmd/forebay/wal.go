package main

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"
	"github.com/spf13/cobra"

	"forebay/internal/record"
	"forebay/replicate"
	"forebay/replicate/state"
	"forebay/wal"
)

func (p *program) walCommand() *cobra.Command {
	c := group("wal", "The log on this machine's disk: look at it, check it, repair it",
		p.walListCommand(), p.walCatCommand(), p.walVerifyCommand(),
		p.walRepairCommand(), p.walExportCommand(), p.walImportCommand())
	c.Long = `Works on the files of one lane, without asking a node. ls, cat, verify and export
change nothing, and may be used while the node runs: they show what was synced
when they began. repair and import need the node stopped.

What to do when a log is damaged: ops/RUNBOOK.md.`
	return c
}

// place is where a log lies: a configuration or a data directory, and the lane.
type place struct {
	config, dataDir string
	lane            uint32
}

func (w *place) register(c *cobra.Command) {
	c.Flags().StringVarP(&w.config, "config", "c", "", "the node's configuration `FILE`, for its data directory")
	c.Flags().StringVar(&w.dataDir, "data-dir", "", "the data directory itself, a `DIR`")
	c.Flags().Uint32Var(&w.lane, "lane", 0, "the lane")
}

// dir is the lane's directory.
func (w *place) dir() (string, error) {
	if (w.config == "") == (w.dataDir == "") {
		return "", usageError{errors.New("say where the log is: --config FILE or --data-dir DIR, one of them")}
	}
	dir := w.dataDir
	if dir == "" {
		file, err := readConfig(w.config)
		if err != nil {
			return "", err
		}
		dir = file.Node.DataDir
	}
	return filepath.Join(dir, "lanes", fmt.Sprint(w.lane)), nil
}

// flags are the words that lead another command to the same log.
func (w *place) flags() string {
	words := "--data-dir " + w.dataDir
	if w.config != "" {
		words = "-c " + w.config
	}
	if w.lane != 0 {
		words += fmt.Sprintf(" --lane %d", w.lane)
	}
	return words
}

// laneLog is a lane's log and, where it can be told, its state.
type laneLog struct {
	dir    string
	reader *wal.Reader
}

func (w *place) open() (*laneLog, error) {
	dir, err := w.dir()
	if err != nil {
		return nil, err
	}
	return openLane(dir)
}

func openLane(dir string) (*laneLog, error) {
	reader, err := wal.Inspect(dir)
	if err != nil {
		return nil, noLog(dir, err)
	}
	return &laneLog{dir: dir, reader: reader}, nil
}

func noLog(dir string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no log in %s: name the data directory of a node that has run, and a lane that it hosts", dir)
	}
	return err
}

// first is the log's first entry.
func (l *laneLog) first() uint64 {
	first := l.reader.First()
	if segments := l.reader.Segments(); first == 0 && len(segments) > 0 { // the manifest is gone
		first = segments[0].First
	}
	return first
}

// entries walks over the log's entries, for the state.
func (l *laneLog) entries(from uint64) iter.Seq2[*raft.Log, error] {
	return func(yield func(*raft.Log, error) bool) {
		for e, err := range l.reader.Entries(from) {
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(raftLog(&e), nil) {
				return
			}
		}
	}
}

func raftLog(e *wal.Entry) *raft.Log {
	return &raft.Log{Index: e.Index, Term: e.Term, Type: e.Type, Data: e.Data, Extensions: e.Extensions}
}

// state rebuilds the lane's state, as it was at the log's end. A torn tail is no part of it.
func (l *laneLog) state() (*state.State, error) {
	st, err := replicate.Rebuild(l.dir, l.first(), math.MaxUint64, l.entries)
	var torn *wal.Torn
	if errors.As(err, &torn) {
		err = nil
	}
	return st, err
}

// isTerminal tells whether somebody watches this stream.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// damageIsFailure lets a torn tail pass: it was never acknowledged, and the next
// start cuts it off.
func damageIsFailure(err error) error {
	var torn *wal.Torn
	if errors.As(err, &torn) {
		return &exitError{code: exitTorn, err: err}
	}
	return err
}

// damageText says where damage is and what it is; what to do is said once, below.
func damageText(d *wal.CorruptError) string {
	where := filepath.Join(d.Dir, d.Segment)
	if d.Offset >= 0 {
		where += fmt.Sprintf(" at byte %d", d.Offset)
	}
	if d.Index > 0 {
		where += fmt.Sprintf(", entry %d", d.Index)
	}
	return fmt.Sprintf("%s: expected %s, found %s", where, d.Expected, d.Found)
}

// batchRange reads a batch's name, or two with ".." between.
func batchRange(text string, lane uint32) (from, to uint64, err error) {
	a, b, two := strings.Cut(text, "..")
	if !two {
		b = a
	}
	first, err := record.ParseBatchID(a)
	if err != nil {
		return 0, 0, usageError{err}
	}
	last, err := record.ParseBatchID(b)
	if err != nil {
		return 0, 0, usageError{err}
	}
	if first.Lane != lane || last.Lane != lane {
		return 0, 0, usageError{fmt.Errorf("batch %s is not of lane %d: --lane names another", text, lane)}
	}
	if last.Seq < first.Seq {
		return 0, 0, usageError{fmt.Errorf("batches %s end before they begin", text)}
	}
	return first.Seq, last.Seq, nil
}

// runText writes entries, or offsets, from one to another.
func runText[T int64 | uint64](first, last T) string {
	if first == last {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d–%d", first, last)
}
