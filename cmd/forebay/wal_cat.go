package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/record"
	"forebay/replicate/state"
	"forebay/wal"
)

func (p *program) walCatCommand() *cobra.Command {
	var (
		at   place
		what selection
		raw  bool
	)
	c := &cobra.Command{
		Use:   "cat",
		Short: "The records of the log, one JSON object per line; by entry, batch, time, topic, offset",
		Long: `Prints records, one JSON object per line, with the entry that holds them. Keys,
values and headers are base64, null is nil. With --raw nothing but the values,
each followed by a newline; records whose value is null are left out.

By --batch or time it prints exactly the records of batches that were cut, in
the order in which sinks get them (a sink gets those of its topics, and without what it
refused). --since and --until choose batches by the time of their cut: a time such as
2026-01-31T12:00:00Z, or a duration before now, such as 90m. Batches must still be kept (wal ls --batches).

Else it prints the blocks of the log, from entry --from to entry --to. Blocks that
the state machine refused are in the log too, and are printed as well: their
records come again in a later entry.

--topic, --partition and --offset A..B (also A.., ..B, A) leave out all other records.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			what.ranges = c.Flags().Changed("from") || c.Flags().Changed("to")
			what.onePartition = c.Flags().Changed("partition")
			if err := what.parse(at.lane, time.Now()); err != nil {
				return err
			}
			lane, err := at.open()
			if err != nil {
				return err
			}
			out := bufio.NewWriterSize(p.out, 64<<10)
			cat := &cat{out: out, what: &what, raw: raw, encoder: json.NewEncoder(out)}
			cat.encoder.SetEscapeHTML(false)
			if what.byBatch() {
				err = cat.batches(lane)
			} else {
				err = cat.entries(lane.reader)
			}
			return errors.Join(out.Flush(), damageIsFailure(err))
		},
	}
	at.register(c)
	what.register(c)
	c.Flags().BoolVar(&raw, "raw", false, "print the values only, each followed by a newline")
	return c
}

// selection says which records are wanted.
type selection struct {
	from, to         uint64
	ranges           bool
	batch            string
	since, until     string
	topic            string
	partition        int32
	onePartition     bool
	offset           string
	first, last      uint64 // batches
	after, before    int64  // cut times, Unix milliseconds
	offsets, offsetE int64
}

func (s *selection) register(c *cobra.Command) {
	c.Flags().Uint64Var(&s.from, "from", 0, "the first `ENTRY`")
	c.Flags().Uint64Var(&s.to, "to", 0, "the last `ENTRY` (0: to the end)")
	c.Flags().StringVar(&s.batch, "batch", "", "one batch, or a range of them: `ID` or ID..ID")
	c.Flags().StringVar(&s.since, "since", "", "batches cut at this `TIME` or later")
	c.Flags().StringVar(&s.until, "until", "", "batches cut before this `TIME`")
	c.Flags().StringVar(&s.topic, "topic", "", "only records of this `TOPIC`")
	c.Flags().Int32Var(&s.partition, "partition", 0, "only records of this `PARTITION`")
	c.Flags().StringVar(&s.offset, "offset", "", "only records with offsets in this `RANGE`, both ends included")
}

func (s *selection) byBatch() bool { return s.batch != "" || s.since != "" || s.until != "" }

// parse reads the flags.
func (s *selection) parse(lane uint32, now time.Time) error {
	if s.byBatch() && s.ranges {
		return usageError{errors.New("--from and --to choose entries, --batch, --since and --until choose batches: not both")}
	}
	s.first, s.last, s.after, s.before = 0, math.MaxUint64, math.MinInt64, math.MaxInt64
	var err error
	if s.batch != "" {
		if s.first, s.last, err = batchRange(s.batch, lane); err != nil {
			return err
		}
	}
	if s.since != "" {
		if s.after, err = momentOf(s.since, now); err != nil {
			return err
		}
	}
	if s.until != "" {
		if s.before, err = momentOf(s.until, now); err != nil {
			return err
		}
	}
	s.offsets, s.offsetE, err = offsetRange(s.offset)
	return err
}

// momentOf reads a time, or a duration before now, as Unix milliseconds.
func momentOf(text string, now time.Time) (int64, error) {
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago).UnixMilli(), nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return 0, usageError{fmt.Errorf("%q is neither a time such as 2026-01-31T12:00:00Z nor a duration such as 90m", text)}
	}
	return at.UnixMilli(), nil
}

// offsetRange reads A..B, A.., ..B or A; nothing is everything.
func offsetRange(text string) (first, last int64, err error) {
	first, last = 0, math.MaxInt64
	if text == "" {
		return first, last, nil
	}
	a, b, two := strings.Cut(text, "..")
	if !two {
		b = a
	}
	if a != "" {
		first, err = strconv.ParseInt(a, 10, 64)
	}
	if b != "" && err == nil {
		last, err = strconv.ParseInt(b, 10, 64)
	}
	if err != nil || first > last || a+b == "" {
		return 0, 0, usageError{fmt.Errorf("offsets %q: want A..B, A.., ..B or A", text)}
	}
	return first, last, nil
}

func (s *selection) wants(r *record.Record) bool {
	return (!s.onePartition || r.Partition == s.partition) && s.offsets <= r.Offset && r.Offset <= s.offsetE
}

// topics chooses the topics to decode; nil is all.
func (s *selection) topics() func(string) bool {
	if s.topic == "" {
		return nil
	}
	return func(topic string) bool { return topic == s.topic }
}

// cat prints the records of blocks that come in order.
type cat struct {
	out     io.Writer
	what    *selection
	raw     bool
	encoder *json.Encoder
	decoder record.Decoder
	joiner  record.Joiner
}

// entries prints the blocks of the log.
func (c *cat) entries(reader *wal.Reader) error {
	for entry, err := range reader.Entries(c.what.from) {
		if err != nil {
			return err
		}
		if c.what.to > 0 && entry.Index > c.what.to {
			return nil
		}
		if err := c.entry(&entry); err != nil {
			return err
		}
	}
	return nil
}

func (c *cat) entry(entry *wal.Entry) error {
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
	return c.block(entry.Index, "", block)
}

// batches prints the batches that are wanted.
func (c *cat) batches(lane *laneLog) error {
	st, err := lane.state()
	if err != nil {
		return fmt.Errorf("which entries make up a batch is not known: %w", err)
	}
	id, _ := st.Identity()
	if c.what.batch != "" {
		for _, seq := range []uint64{c.what.first, c.what.last} {
			if _, ok := st.Layout(seq); !ok {
				return fmt.Errorf("batch %s is not kept: %s", batchID(id, seq), keptText(st))
			}
		}
	}
	walk := newWalk(lane.reader)
	defer walk.close()
	for seq := max(c.what.first, st.FirstSeq()); seq <= min(c.what.last, st.LastSeq()); seq++ {
		info, _ := st.Batch(seq)
		if info.CutAt < c.what.after || info.CutAt >= c.what.before {
			continue
		}
		if err := c.batchOf(walk, st, info); err != nil {
			return fmt.Errorf("batch %s: %w", info.ID, err)
		}
	}
	return nil
}

func keptText(st *state.State) string {
	if st.FirstSeq() > st.LastSeq() {
		return fmt.Sprintf("none is, and the last one was %d", st.LastSeq())
	}
	return fmt.Sprintf("the log has %s", runText(st.FirstSeq(), st.LastSeq()))
}

func (c *cat) batchOf(walk *walk, st *state.State, info record.BatchInfo) error {
	layout, _ := st.Layout(info.ID.Seq)
	var records int64
	err := layout.Blocks(walk.fetch, func(indexes []uint64, block []byte) error {
		sum, err := record.ParseSummary(block)
		if err != nil {
			return err
		}
		records += sum.Records
		return c.block(indexes[len(indexes)-1], info.ID.String(), block)
	})
	if err == nil && records != info.Records {
		err = fmt.Errorf("its entries hold %d records, and the state says %d", records, info.Records)
	}
	return err
}

// block prints the wanted records of one block.
func (c *cat) block(index uint64, batch string, block []byte) error {
	if err := c.decoder.Open(block, c.what.topics()); err != nil {
		return fmt.Errorf("entry %d: %w", index, err)
	}
	var r record.Record
	for {
		ok, err := c.decoder.Next(&r)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		if !ok {
			return nil
		}
		if !c.what.wants(&r) {
			continue
		}
		if c.raw {
			if r.Value == nil {
				continue
			}
			if _, err := c.out.Write(r.Value); err != nil {
				return err
			}
			_, err = c.out.Write([]byte{'\n'})
		} else {
			err = c.encoder.Encode(struct {
				Index uint64 `json:"index"`
				Batch string `json:"batch,omitempty"`
				admin.Record
			}{index, batch, admin.ShowRecord(r)})
		}
		if err != nil {
			return err
		}
	}
}

func batchID(id state.Form, seq uint64) string {
	return record.BatchID{Lane: id.Lane, Seq: seq}.String()
}
