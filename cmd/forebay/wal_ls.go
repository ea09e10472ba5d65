package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	"github.com/spf13/cobra"

	"forebay/replicate"
	"forebay/replicate/state"
	"forebay/wal"
)

func (p *program) walListCommand() *cobra.Command {
	var (
		at      place
		output  output
		entries bool
		list    listing
	)
	c := &cobra.Command{
		Use:   "ls",
		Short: "The log's segments, snapshots and state; its batches, entries, or entries by kind",
		Long: `Shows the segments, the snapshots, what was synced, and the state: the floor, the
first entry that anything still needs; the batches that are kept; and what each
sink needs next. Sizes and names are those of the files; the entries of finished
segments are what the manifest says; the state is the newest snapshot's and
that of the entries behind it, which are read for it. The last segment's end is known by reading only, and is
left open.

--batches lists the batches with the time of their cut. --kinds and --entries
read the whole log.`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			lane, err := at.open()
			if err != nil {
				return err
			}
			if entries {
				return p.listEntries(lane.reader, output)
			}
			return p.list(lane, list, output)
		},
	}
	at.register(c)
	output.register(c)
	c.Flags().BoolVar(&entries, "entries", false, "list every entry, a line each, and nothing else")
	c.Flags().BoolVar(&list.batches, "batches", false, "list the batches that are kept")
	c.Flags().BoolVar(&list.kinds, "kinds", false, "count the entries by kind")
	return c
}

// listing is what wal ls is to show besides what is cheap.
type listing struct{ batches, kinds bool }

// segmentLine is one segment as wal ls -o json prints it; last is 0 when only
// reading the segment would tell.
type segmentLine struct {
	Name   string `json:"name"`
	First  uint64 `json:"first"`
	Last   uint64 `json:"last"`
	Bytes  int64  `json:"bytes"`
	Sealed bool   `json:"sealed"`
}

// logLine is what wal ls -o json prints.
type logLine struct {
	Dir       string         `json:"dir"`
	Segments  []segmentLine  `json:"segments"`
	Bytes     int64          `json:"bytes"`
	Synced    uint64         `json:"synced"`
	Snapshots []snapshotLine `json:"snapshots"`
	State     *stateLine     `json:"state,omitempty"`
	Unknown   string         `json:"stateUnknown,omitempty"`
	Batches   []batchLine    `json:"batches,omitempty"`
	Kinds     []kindLine     `json:"kinds,omitempty"`
}

type snapshotLine struct {
	File  string `json:"file"`
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
	Bytes int64  `json:"bytes"`
	Error string `json:"error,omitempty"`
}

type stateLine struct {
	LogID       string     `json:"logId"`
	Gateway     string     `json:"gateway"`
	Term        uint64     `json:"term"`
	Applied     uint64     `json:"applied"`
	Floor       uint64     `json:"floor"`
	FirstBatch  uint64     `json:"firstBatch"`
	LastBatch   uint64     `json:"lastBatch"`
	OpenRecords int64      `json:"openRecords"`
	Sinks       []sinkLine `json:"sinks"`
	Parked      int        `json:"parked"`
}

type sinkLine struct {
	Name string `json:"name"`
	Next string `json:"next"`
}

type batchLine struct {
	ID         string    `json:"id"`
	CutAt      time.Time `json:"cutAt"`
	Records    int64     `json:"records"`
	Bytes      int64     `json:"bytes"`
	FirstIndex uint64    `json:"firstIndex"`
	LastIndex  uint64    `json:"lastIndex"`
}

type kindLine struct {
	Kind    string `json:"kind"`
	Entries uint64 `json:"entries"`
	Bytes   int64  `json:"bytes"`
}

// list prints the log, and what is wrong with its names and sizes.
func (p *program) list(lane *laneLog, list listing, output output) error {
	l := logLine{Dir: lane.dir, Segments: []segmentLine{}, Synced: lane.reader.Synced(), Snapshots: []snapshotLine{}}
	for _, s := range lane.reader.Segments() {
		l.Segments = append(l.Segments, segmentLine(s))
		l.Bytes += s.Bytes
	}
	snapshots, err := replicate.SnapshotFiles(lane.dir)
	if err != nil {
		return err
	}
	for _, s := range snapshots {
		line := snapshotLine{File: s.Name, Index: s.Index, Term: s.Term, Bytes: s.Bytes}
		if s.Err != nil {
			line.Error = s.Err.Error()
		}
		l.Snapshots = append(l.Snapshots, line)
	}
	st, err := lane.state()
	if err != nil {
		l.Unknown = err.Error()
	} else {
		l.state(st, list.batches)
	}
	if list.kinds {
		if l.Kinds, err = countKinds(lane.reader); err != nil {
			return damageIsFailure(err)
		}
	}
	err = output.show(p.out, l, l.table)
	if damage := lane.reader.Damage(); err == nil && len(damage) > 0 {
		return damage[0]
	}
	return err
}

func (l *logLine) state(st *state.State, batches bool) {
	id, formed := st.Identity()
	if !formed {
		l.Unknown = "the lane is not formed"
		return
	}
	l.State = &stateLine{
		LogID: id.LogID.String(), Gateway: id.Gateway, Term: st.Term(), Applied: st.AppliedIndex(), Floor: st.Floor(),
		FirstBatch: st.FirstSeq(), LastBatch: st.LastSeq(), OpenRecords: st.Open().Records, Sinks: []sinkLine{}, Parked: len(st.Parked()),
	}
	for _, k := range st.Sinks() {
		next := batchID(id, k.Cursor)
		l.State.Sinks = append(l.State.Sinks, sinkLine{k.Name, next})
	}
	if !batches {
		return
	}
	for seq := st.FirstSeq(); seq <= st.LastSeq(); seq++ {
		b, _ := st.Batch(seq)
		l.Batches = append(l.Batches, batchLine{
			b.ID.String(), time.UnixMilli(b.CutAt).UTC(), b.Records, b.Bytes, b.FirstIndex, b.LastIndex,
		})
	}
}

func (l *logLine) table(t *table) {
	t.row("SEGMENT", "FIRST", "LAST", "BYTES", "SEALED")
	for _, s := range l.Segments {
		last := ""
		if s.Last > 0 {
			last = fmt.Sprint(s.Last)
		}
		t.row(s.Name, s.First, last, s.Bytes, s.Sealed)
	}
	for _, s := range l.Snapshots {
		if s.Error != "" {
			t.line("damaged: %s: the next start puts it aside if the log can replace it", s.Error)
			continue
		}
		t.line("snapshot of the state after entry %d, term %d, %s", s.Index, s.Term, bytesText(s.Bytes))
	}
	t.line("%d segments, %s, synced up to entry %d", len(l.Segments), bytesText(l.Bytes), l.Synced)
	if s := l.State; s != nil {
		t.line("log %s of gateway %s; applied up to entry %d, term %d; floor: entry %d", s.LogID, s.Gateway, s.Applied, s.Term, s.Floor)
		if s.FirstBatch > s.LastBatch {
			t.line("no batch kept, the last was %d; %d records not cut yet; %d parked", s.LastBatch, s.OpenRecords, s.Parked)
		} else {
			t.line("batches kept: %s; %d records not cut yet; %d parked", runText(s.FirstBatch, s.LastBatch), s.OpenRecords, s.Parked)
		}
		for _, k := range s.Sinks {
			t.line("sink %s needs batch %s next", k.Name, k.Next)
		}
	} else {
		t.line("the state is not known: %s", l.Unknown)
	}
	if len(l.Batches) > 0 {
		t.line("")
		t.row("BATCH", "CUT AT", "RECORDS", "BYTES", "ENTRIES")
		for _, b := range l.Batches {
			t.row(b.ID, timeText(&b.CutAt), b.Records, b.Bytes, runText(b.FirstIndex, b.LastIndex))
		}
	}
	if len(l.Kinds) > 0 {
		t.line("")
		t.row("KIND", "ENTRIES", "BYTES")
		for _, k := range l.Kinds {
			t.row(k.Kind, k.Entries, k.Bytes)
		}
	}
}

// countKinds reads the log and counts its entries by kind.
func countKinds(reader *wal.Reader) ([]kindLine, error) {
	kinds := map[string]kindLine{}
	for entry, err := range reader.Entries(0) {
		if err != nil {
			return nil, err
		}
		name, _ := describe(&entry)
		k := kinds[name]
		kinds[name] = kindLine{name, k.Entries + 1, k.Bytes + int64(len(entry.Data))}
	}
	var list []kindLine
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		list = append(list, kinds[name])
	}
	return list, nil
}

// entryLine is one entry as wal ls --entries -o json prints it, an object a line.
type entryLine struct {
	Index  uint64 `json:"index"`
	Term   uint64 `json:"term"`
	Kind   string `json:"kind"`
	Bytes  int    `json:"bytes"`
	Detail string `json:"detail"`
}

// listEntries prints a line per entry as it is read: a log may be large.
func (p *program) listEntries(reader *wal.Reader, output output) error {
	encoder := json.NewEncoder(p.out)
	encoder.SetEscapeHTML(false)
	for entry, err := range reader.Entries(0) {
		if err != nil {
			return damageIsFailure(err)
		}
		line := entryLine{Index: entry.Index, Term: entry.Term, Bytes: len(entry.Data)}
		line.Kind, line.Detail = describe(&entry)
		if output == outputJSON {
			err = encoder.Encode(line)
		} else {
			_, err = fmt.Fprintf(p.out, "%d\tterm %d\t%s\t%d bytes\t%s\n", line.Index, line.Term, line.Kind, line.Bytes, line.Detail)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func describe(entry *wal.Entry) (kind, detail string) {
	if entry.Type == raft.LogCommand {
		return state.Describe(entry.Data)
	}
	return "raft", entry.Type.String()
}
