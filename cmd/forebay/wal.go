package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/record"
	"forebay/replicate/state"
	"forebay/wal"
)

func (p *program) walCommand() *cobra.Command {
	return group("wal", "Look at the log on this machine's disk (read-only; the node may run or not)",
		p.walListCommand(), p.walCatCommand(), p.walVerifyCommand())
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

func (w *place) open() (*wal.Reader, string, error) {
	if (w.config == "") == (w.dataDir == "") {
		return nil, "", usageError{errors.New("say where the log is: --config FILE or --data-dir DIR, one of them")}
	}
	dir := w.dataDir
	if dir == "" {
		file, err := readConfig(w.config)
		if err != nil {
			return nil, "", err
		}
		dir = file.Node.DataDir
	}
	dir = filepath.Join(dir, "lanes", fmt.Sprint(w.lane))
	reader, err := wal.Inspect(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("there is no log in %s: name the data directory of a node that has run, and a lane that it hosts", dir)
	}
	return reader, dir, err
}

func (p *program) walListCommand() *cobra.Command {
	var (
		at      place
		output  output
		entries bool
	)
	c := &cobra.Command{
		Use:   "ls",
		Short: "The log's segments, or with --entries every entry in a line",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			reader, _, err := at.open()
			if err != nil {
				return err
			}
			if entries {
				return p.listEntries(reader, output)
			}
			return p.listSegments(reader, output)
		},
	}
	at.register(c)
	output.register(c)
	c.Flags().BoolVar(&entries, "entries", false, "list every entry")
	return c
}

// segmentLine is one segment as wal ls -o json prints it; last is 0 when only
// reading the segment would tell.
type segmentLine struct {
	Name   string `json:"name"`
	First  uint64 `json:"first"`
	Last   uint64 `json:"last"`
	Bytes  int64  `json:"bytes"`
	Sealed bool   `json:"sealed"`
}

// listSegments prints the segments, and what is wrong with their names and sizes.
func (p *program) listSegments(reader *wal.Reader, output output) error {
	segments := []segmentLine{}
	for _, s := range reader.Segments() {
		segments = append(segments, segmentLine(s))
	}
	err := output.show(p.out, segments, func(t *table) {
		t.row("SEGMENT", "FIRST", "LAST", "BYTES", "SEALED")
		for _, s := range segments {
			last := ""
			if s.Last > 0 {
				last = fmt.Sprint(s.Last)
			}
			t.row(s.Name, s.First, last, s.Bytes, s.Sealed)
		}
		t.line("synced up to entry %d", reader.Synced())
	})
	if damage := reader.Damage(); err == nil && len(damage) > 0 {
		return damage[0]
	}
	return err
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
		line.Kind, line.Detail = describe(entry)
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

func describe(entry wal.Entry) (kind, detail string) {
	if entry.Type == raft.LogCommand {
		return state.Describe(entry.Data)
	}
	return "raft", entry.Type.String()
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

func (p *program) walCatCommand() *cobra.Command {
	var (
		at       place
		from, to uint64
	)
	c := &cobra.Command{
		Use:   "cat",
		Short: "The records of the log's blocks, one JSON object per line",
		Long: `Prints every record of the log, one JSON object per line, with the entry that
holds it. Keys, values and headers are base64, null is nil. Blocks that the state
machine refused are in the log too, and so are printed as well: their records
come again in a later entry.`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			reader, _, err := at.open()
			if err != nil {
				return err
			}
			cat := &cat{encoder: json.NewEncoder(p.out)}
			cat.encoder.SetEscapeHTML(false)
			for entry, err := range reader.Entries(from) {
				if err != nil {
					return damageIsFailure(err)
				}
				if to > 0 && entry.Index > to {
					return nil
				}
				if err := cat.entry(entry); err != nil {
					return err
				}
			}
			return nil
		},
	}
	at.register(c)
	c.Flags().Uint64Var(&from, "from", 0, "the first `ENTRY`")
	c.Flags().Uint64Var(&to, "to", 0, "the last `ENTRY` (0: to the end)")
	return c
}

// cat prints the records of entries that come in order.
type cat struct {
	encoder *json.Encoder
	decoder record.Decoder
	joiner  record.Joiner
}

func (c *cat) entry(entry wal.Entry) error {
	if entry.Type != raft.LogCommand || len(entry.Data) == 0 {
		return nil
	}
	block := entry.Data
	switch block[0] {
	case record.TagBlock:
	case record.TagPart:
		whole, done, err := c.joiner.Add(block)
		if !done || err != nil {
			return nil // parts that were begun anew, or whose beginning lies before --from
		}
		block = whole
	default:
		return nil
	}
	if err := c.decoder.Open(block, nil); err != nil {
		return fmt.Errorf("entry %d: %w", entry.Index, err)
	}
	var r record.Record
	for {
		ok, err := c.decoder.Next(&r)
		if err != nil {
			return fmt.Errorf("entry %d: %w", entry.Index, err)
		}
		if !ok {
			return nil
		}
		line := struct {
			Index uint64 `json:"index"`
			admin.Record
		}{entry.Index, admin.ShowRecord(r)}
		if err := c.encoder.Encode(line); err != nil {
			return err
		}
	}
}

// verification is what wal verify -o json prints.
type verification struct {
	Dir      string   `json:"dir"`
	First    uint64   `json:"first"`
	Last     uint64   `json:"last"`
	Entries  uint64   `json:"entries"`
	Bytes    int64    `json:"bytes"`
	Segments int      `json:"segments"`
	Seconds  float64  `json:"seconds"`
	Torn     string   `json:"torn,omitempty"`
	Damage   []string `json:"damage"`
}

func (p *program) walVerifyCommand() *cobra.Command {
	var (
		at     place
		output output
	)
	c := &cobra.Command{
		Use:   "verify",
		Short: "Read and check the whole log: exits 0 whole, 1 damaged, 3 with a torn tail and nothing else",
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			reader, dir, err := at.open()
			if err != nil {
				return err
			}
			start := time.Now()
			report, err := reader.Verify(func(wal.Progress) error { return c.Context().Err() })
			if err != nil {
				return err
			}
			v := verification{
				Dir: dir, First: report.First, Last: report.Last, Entries: report.Entries, Bytes: report.Bytes,
				Segments: report.Segments, Seconds: time.Since(start).Seconds(), Damage: []string{},
			}
			if report.Torn != nil {
				v.Torn = report.Torn.Error()
			}
			for _, damage := range report.Damage {
				v.Damage = append(v.Damage, damageText(damage))
			}
			if err := output.show(p.out, v, func(t *table) { verificationTable(t, &v) }); err != nil {
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
	return c
}

func verificationTable(t *table, v *verification) {
	t.line("%s: entries %d to %d, %d segments, %s", v.Dir, v.First, v.Last, v.Segments, bytesText(v.Bytes))
	for _, damage := range v.Damage {
		t.line("damaged: %s", damage)
	}
	switch {
	case len(v.Damage) > 0:
		t.line("nothing was changed: restore the directory from a copy, or rebuild the node")
	case v.Torn != "":
		t.line("%s", v.Torn)
	default:
		t.line("whole: every entry was read and its checksum agrees")
	}
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
