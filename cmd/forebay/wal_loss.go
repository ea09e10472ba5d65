package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"forebay/internal/record"
	"forebay/wal"
)

// lossReport is what a repair costs: what wal repair prints and writes to a file.
type lossReport struct {
	Dir     string    `json:"dir"`
	Gateway string    `json:"gateway"`
	LogID   string    `json:"logId"`
	At      time.Time `json:"at"`
	Damage  []string  `json:"damage"`
	// Keeps to KeepsLast are the entries that stay; Drops those that go, Unreadable those of them that nobody can read.
	Keeps      uint64     `json:"keepsFirst"`
	KeepsLast  uint64     `json:"keepsLast"`
	Drops      []entryRun `json:"drops"`
	Unreadable []entryRun `json:"unreadable"`
	// EndUnknown: entries may have followed of which nothing tells.
	EndUnknown bool           `json:"endUnknown"`
	Partitions []partitionRun `json:"partitions"`
	Batches    []lostBatch    `json:"batches"`
	VoidFrom   string         `json:"voidFrom,omitempty"`
	VoidTo     string         `json:"voidTo,omitempty"`
	Sinks      []sinkLoss     `json:"sinks"`
	Snapshots  []string       `json:"snapshots"`
	Parked     int            `json:"parkedForgotten"`
}

type entryRun struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// partitionRun are offsets that the log had, and that are read from Kafka again. Last is First-1 when none is
// known; OrMore: there may have been later ones, in entries that cannot be read.
type partitionRun struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	First     int64  `json:"first"`
	Last      int64  `json:"last"`
	OrMore    bool   `json:"orMore"`
}

// lostBatch is a batch whose entries go. History is true when every sink has it.
type lostBatch struct {
	ID      string         `json:"id"`
	CutAt   time.Time      `json:"cutAt"`
	Records int64          `json:"records"`
	Had     []string       `json:"deliveredTo"`
	Lacked  []string       `json:"undeliveredTo"`
	History bool           `json:"historyOnly"`
	Ranges  []record.Range `json:"ranges"`
}

// sinkLoss is what a sink has of the batches that are cut off: it gets their records again.
type sinkLoss struct {
	Name  string `json:"name"`
	Next  string `json:"next"`
	Again string `json:"again,omitempty"`
	// MayHaveMore: it may have batches that the log cannot tell any more.
	MayHaveMore bool `json:"mayHaveMore"`
}

// loss tells what a plan costs.
func (p *repairPlan) loss(at time.Time) *lossReport {
	id, _ := p.known.Identity()
	r := &lossReport{
		Dir: p.dir, Gateway: id.Gateway, LogID: id.LogID.String(), At: at.UTC(), Damage: []string{},
		Keeps: p.first, KeepsLast: p.last, EndUnknown: p.endUnknown, Drops: []entryRun{}, Unreadable: []entryRun{},
		Partitions: []partitionRun{}, Batches: []lostBatch{}, Sinks: []sinkLoss{}, Snapshots: append([]string{}, p.remove...),
	}
	for _, d := range p.report.Damage {
		r.Damage = append(r.Damage, damageText(d))
	}
	for _, run := range p.dropped() {
		r.Drops = append(r.Drops, entryRun(run))
	}
	for _, run := range p.gaps() {
		r.Unreadable = append(r.Unreadable, entryRun(run))
	}
	r.Partitions = p.goBack()
	r.Batches = p.lostBatches()
	whole := p.before.LastSeq()
	if p.void > whole {
		r.VoidFrom, r.VoidTo = batchID(id, whole+1), batchID(id, p.void)
	}
	for _, k := range p.after.Sinks() {
		s := sinkLoss{Name: k.Name, Next: batchID(id, k.Cursor)}
		had := p.had(k.Name)
		if _, told := p.told[k.Name]; !told {
			s.MayHaveMore = p.uncertain()
		}
		if p.last < p.end && had > whole+1 {
			s.Again = batchesText(batchID(id, whole+1), batchID(id, had-1))
		}
		r.Sinks = append(r.Sinks, s)
	}
	for _, ref := range p.known.Parked() {
		if _, kept := p.after.ParkedRecord(ref.ID); !kept {
			r.Parked++
		}
	}
	return r
}

// goBack are the offsets that lie behind where the shorter log ends.
func (p *repairPlan) goBack() []partitionRun {
	if p.last >= p.end {
		return []partitionRun{}
	}
	next := map[partitionName]int64{}
	for name, n := range p.suffix.next {
		next[name] = n
	}
	for _, pos := range p.known.Positions() {
		name := partitionName{pos.Topic, pos.Partition}
		next[name] = max(next[name], pos.Next)
	}
	runs := []partitionRun{}
	for name, n := range next {
		// One that the shorter log does not know begins anew, as if it had never been seen.
		pos, _ := p.after.Position(name.topic, name.partition)
		if pos.Next < n || p.uncertain() {
			runs = append(runs, partitionRun{name.topic, name.partition, pos.Next, max(n, pos.Next) - 1, p.uncertain()})
		}
	}
	slices.SortFunc(runs, func(a, b partitionRun) int {
		if c := strings.Compare(a.Topic, b.Topic); c != 0 {
			return c
		}
		return int(a.Partition) - int(b.Partition)
	})
	return runs
}

// lostBatches are the kept batches of which entries go.
func (p *repairPlan) lostBatches() []lostBatch {
	lost := []lostBatch{}
	keeps := []wal.Run{{First: p.first, Last: p.last}}
	for seq := p.known.FirstSeq(); seq <= p.known.LastSeq(); seq++ {
		layout, _ := p.known.Layout(seq)
		if within(keeps, firstOf(layout), layout.LastIndex) && seq <= p.before.LastSeq() {
			continue
		}
		info, _ := p.known.Batch(seq)
		b := lostBatch{
			ID: info.ID.String(), CutAt: time.UnixMilli(info.CutAt).UTC(), Records: info.Records,
			Had: []string{}, Lacked: []string{}, Ranges: info.Ranges,
		}
		for _, k := range p.known.Sinks() {
			if max(k.Cursor, p.suffix.cursors[k.Name]) > seq {
				b.Had = append(b.Had, k.Name)
			} else {
				b.Lacked = append(b.Lacked, k.Name)
			}
		}
		b.History = len(b.Lacked) == 0 && len(b.Had) > 0 && firstOf(layout) < p.first
		lost = append(lost, b)
	}
	return lost
}

func (r *lossReport) table(t *table) {
	t.line("Repair of %s (log %s of gateway %s)", r.Dir, r.LogID, r.Gateway)
	for _, d := range r.Damage {
		t.line("damaged: %s", d)
	}
	for _, d := range r.Unreadable {
		t.line("not whole: %s", entriesText(d.First, d.Last))
	}
	if r.KeepsLast < r.Keeps {
		t.line("stays: no entry; the log goes on behind the snapshot of entry %d", r.KeepsLast)
	} else {
		t.line("stays: %s", entriesText(r.Keeps, r.KeepsLast))
	}
	for _, d := range r.Drops {
		t.line("goes: %s", entriesText(d.First, d.Last))
	}
	if r.EndUnknown {
		t.line("what came behind entry %d, if anything, nobody can tell", r.KeepsLast)
	}
	r.history(t)
	for _, b := range r.Batches {
		what := "goes"
		switch {
		case b.History:
			continue
		case len(b.Had) > 0 && len(b.Lacked) > 0:
			what = fmt.Sprintf("goes; %s have it, %s do not", strings.Join(b.Had, ", "), strings.Join(b.Lacked, ", "))
		case len(b.Had) > 0:
			what = fmt.Sprintf("goes; %s have it", strings.Join(b.Had, ", "))
		case len(b.Lacked) > 0:
			what = fmt.Sprintf("goes; %s do not have it", strings.Join(b.Lacked, ", "))
		}
		t.line("batch %s of %d records %s%s", b.ID, b.Records, what, rangesText(b.Ranges))
	}
	for _, run := range r.Partitions {
		t.line("%s", run)
	}
	if len(r.Partitions) > 0 {
		t.line("what of these Kafka has not any more is lost: 'forebay gaps list' shows it once the node runs")
	}
	if r.VoidFrom != "" {
		t.line("given up, and not used again: %s", batchesText(r.VoidFrom, r.VoidTo))
	}
	for _, s := range r.Sinks {
		text := fmt.Sprintf("sink %s goes on with batch %s", s.Name, s.Next)
		if s.Again != "" {
			text += fmt.Sprintf("; it has %s, whose records come to it AGAIN under later numbers", s.Again)
		}
		if s.MayHaveMore {
			text += "; it may have more than the log can tell: records of that come AGAIN, " +
				"and if it then says that it is ahead of the log, --sink-has tells the log what it has"
		}
		t.line("%s", text)
	}
	if r.Parked > 0 {
		t.line("%d parked records are parked no more: their sinks get and refuse them again", r.Parked)
	}
	for _, s := range r.Snapshots {
		t.line("snapshot %s goes", s)
	}
}

// String says what is read again.
func (r partitionRun) String() string {
	text := fmt.Sprintf("%s/%d is read from Kafka again from offset %d on", r.Topic, r.Partition, r.First)
	switch {
	case r.Last < r.First:
		return text + "; whether the log had more cannot be told"
	case r.OrMore:
		return text + fmt.Sprintf("; the log had %s, or more", runText(r.First, r.Last))
	}
	return text + fmt.Sprintf("; the log had %s", runText(r.First, r.Last))
}

func batchesText(first, last string) string {
	if first == last {
		return "batch " + first
	}
	return "batches " + first + " to " + last
}

// history sums up the batches that go and that every sink has: the oldest ones.
func (r *lossReport) history(t *table) {
	var first, last string
	var n, records int64
	for _, b := range r.Batches {
		if !b.History {
			continue
		}
		if n == 0 {
			first = b.ID
		}
		last, n, records = b.ID, n+1, records+b.Records
	}
	if n > 0 {
		t.line("%d batches of %d records, %s to %s, go; every sink has them", n, records, first, last)
	}
}

func entriesText(first, last uint64) string {
	if first == last {
		return fmt.Sprintf("entry %d", first)
	}
	return "entries " + runText(first, last)
}

func rangesText(ranges []record.Range) string {
	var b strings.Builder
	for i, r := range ranges {
		sep := " "
		if i == 0 {
			sep = ": "
		}
		fmt.Fprintf(&b, "%s%s/%d %s", sep, r.Topic, r.Partition, runText(r.First, r.Last))
	}
	return b.String()
}
