package main

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/hashicorp/raft"

	"forebay/internal/record"
	"forebay/replicate"
	"forebay/replicate/state"
	"forebay/wal"
)

// unknownBatches is how many batch numbers are given up besides those that can be counted,
// when the log's end is not known: as after the loss of the mark.
const unknownBatches = 1000

// errNoWay says that a damaged log cannot be repaired in place.
var errNoWay = errors.New("this damage cannot be repaired here")

// repairPlan is what a repair does to a damaged log: one run of entries stays, and a few
// are appended so that what sinks have is neither given again nor mistaken. wal/DESIGN.md, "Repair".
type repairPlan struct {
	dir       string
	lane      *laneLog
	report    *wal.Report
	snapshots []replicate.SnapshotFile
	suffix    *suffix
	// known is the state as far as it can be rebuilt, end the last entry that is known to have been.
	known *state.State
	end   uint64
	// endUnknown: there may have been entries behind end of which nothing tells.
	endUnknown bool
	// told are the batches that sinks say they have, by the operator.
	told map[string]uint64

	// first to last stay; before is the state after last, after the one with what is appended.
	first, last   uint64
	prevTerm      uint64
	before, after *state.State
	appended      []*raft.Log
	remove        []string
	// void is the last batch number that is given up, 0 for none.
	void uint64
}

// planRepair decides how a damaged log can go on. The error wraps errNoWay, with the way out, when it cannot.
func planRepair(lane *laneLog, report *wal.Report, suffix *suffix, told map[string]uint64) (*repairPlan, error) {
	p := &repairPlan{dir: lane.dir, lane: lane, report: report, suffix: suffix, told: told}
	var err error
	if p.snapshots, err = replicate.SnapshotFiles(lane.dir); err != nil {
		return nil, err
	}
	voters := suffix.voters
	for _, s := range p.snapshots {
		voters = max(voters, s.Voters)
	}
	if voters > 1 {
		return nil, fmt.Errorf("%w: %d nodes vote on this log, and each must hold the same: put the entries in from another node (wal export there, wal import here), or empty this node's directory and let it follow the others", errNoWay, voters)
	}
	p.findEnd()
	p.known, err = stateOf(lane, report.Runs)
	if errors.Is(err, replicate.ErrNoBase) || p.known == nil {
		return nil, fmt.Errorf("%w: %w: restore the snapshots, or the whole directory, from a copy; or start over with an empty data directory", errNoWay, err)
	}
	if _, formed := p.known.Identity(); !formed {
		return nil, fmt.Errorf("%w: what is whole ends before the log got its identity: restore the directory from a copy, or start over with an empty one", errNoWay)
	}
	for name, seq := range told {
		if _, ok := p.known.Sink(name); !ok {
			return nil, usageError{fmt.Errorf("--sink-has: the log knows no sink %q", name)}
		}
		if seq > p.known.LastSeq() && len(report.Damage) == 0 {
			return nil, usageError{fmt.Errorf("--sink-has %s: batch %d was never cut, the last one is %d", name, seq, p.known.LastSeq())}
		}
	}
	return p, p.choose()
}

// had is the batch that follows those that a sink is known to have.
func (p *repairPlan) had(sink string) uint64 {
	next := p.suffix.cursors[sink]
	if k, ok := p.known.Sink(sink); ok {
		next = max(next, k.Cursor)
	}
	if told, ok := p.told[sink]; ok {
		next = max(next, told+1)
	}
	return next
}

// uncertain tells that entries behind the state that is known cannot be read: sinks may have more than the log tells.
func (p *repairPlan) uncertain() bool {
	gaps := p.gaps()
	return p.endUnknown || len(gaps) > 0 && gaps[len(gaps)-1].Last > p.known.AppliedIndex()
}

// findEnd finds the last entry that is known to have been.
func (p *repairPlan) findEnd() {
	p.end = max(p.report.Last, p.lane.reader.Synced())
	for _, s := range p.snapshots {
		if s.Err == nil && s.TakenHere {
			p.end = max(p.end, s.Index)
		}
	}
	for _, d := range p.report.Damage {
		if d.Segment == "mark" || d.Segment == "segments" {
			p.endUnknown = true
		}
	}
}

// gaps are the entries that are not whole.
func (p *repairPlan) gaps() []wal.Run {
	var gaps []wal.Run
	next := p.lane.first()
	for _, r := range p.report.Runs {
		if r.First > next {
			gaps = append(gaps, wal.Run{First: next, Last: r.First - 1})
		}
		next = r.Last + 1
	}
	if next <= p.end {
		gaps = append(gaps, wal.Run{First: next, Last: p.end})
	}
	return gaps
}

// choose finds the run that stays: behind the damage that lies below everything that is needed, and in front of the first that
// does not. Where no snapshot fits that, the log is cut further back.
func (p *repairPlan) choose() error {
	delivered := p.known.LastSeq()
	for _, k := range p.known.Sinks() {
		delivered = min(delivered, k.Cursor-1)
	}
	if len(p.known.Sinks()) == 0 {
		delivered = p.known.Released()
	}
	needed := p.known.Needed(max(delivered, p.known.Released()))
	gaps := p.gaps()
	last := p.end
	front := 0
	for front < len(gaps) && gaps[front].Last < needed {
		front++
	}
	if front < len(gaps) {
		last = gaps[front].First - 1
	}
	var why error
	for {
		first := p.lane.first()
		if front > 0 {
			first = gaps[front-1].Last + 1
		}
		err := p.try(first, last)
		if err == nil {
			return nil
		}
		if why == nil {
			why = err
		}
		if front == 0 {
			return fmt.Errorf("%w: %w: put the entries in from a copy (wal import), restore the whole directory from one, or start over with an empty data directory", errNoWay, why)
		}
		front--
		last = gaps[front].First - 1
	}
}

// try plays a repair that keeps first to last.
func (p *repairPlan) try(first, last uint64) error {
	base := p.baseOf(first, last)
	if base == nil && first > 1 {
		return fmt.Errorf("no whole snapshot lies between entry %d and entry %d, so that the state there is not known", first-1, last)
	}
	before, err := p.stateAt(first, last)
	if err != nil {
		return err
	}
	if _, formed := before.Identity(); !formed {
		return fmt.Errorf("up to entry %d the log has no identity", last)
	}
	after, err := p.stateAt(first, last) // one to change
	if err != nil {
		return err
	}
	p.first, p.last, p.before, p.after = first, last, before, after
	p.prevTerm, p.appended, p.remove, p.void = 0, nil, nil, 0
	if base != nil && base.Index == first-1 {
		p.prevTerm = base.Term
	}
	for _, s := range p.snapshots {
		if s.Err != nil || s.Index > last {
			p.remove = append(p.remove, s.Name)
		}
	}
	term := p.suffix.terms.at(last)
	if term == 0 && base != nil {
		term = base.Term
	}
	if err := p.amend(term); err != nil {
		return err
	}
	if needed := p.after.Needed(p.after.Released()); needed < first {
		return fmt.Errorf("entry %d is still needed, and the damage lies behind it", needed)
	}
	return nil
}

// baseOf is the newest whole snapshot that a log of first to last can go on from.
func (p *repairPlan) baseOf(first, last uint64) *replicate.SnapshotFile {
	for i, s := range p.snapshots {
		if s.Err == nil && s.Index+1 >= first && s.Index <= last {
			return &p.snapshots[i]
		}
	}
	return nil
}

func (p *repairPlan) stateAt(first, last uint64) (*state.State, error) {
	if last == 0 {
		return state.New(), nil
	}
	return replicate.Rebuild(p.dir, first, last, resuming(p.lane.reader, p.report.Runs))
}

// amend appends what makes the shorter log a sound one.
func (p *repairPlan) amend(term uint64) error {
	at, mine := p.after.Clock(), p.after.Term()
	add := func(e any) error {
		l := &raft.Log{Index: p.last + uint64(len(p.appended)) + 1, Term: term, Type: raft.LogCommand, Data: state.Encode(e)}
		if out := p.after.Apply(l.Index, l.Data); out.Err != nil {
			return fmt.Errorf("the shorter log would refuse what repairs it: %w", out.Err)
		}
		p.appended = append(p.appended, l)
		return nil
	}
	whole := p.after.LastSeq()
	if p.last < p.end || p.endUnknown {
		p.void = p.highest()
		for seq := p.after.LastSeq(); seq < p.void; seq = p.after.LastSeq() {
			if err := add(state.Void{Term: mine, Seq: min(p.void, seq+state.MaxVoid), At: at}); err != nil {
				return err
			}
		}
	}
	for _, k := range p.after.Sinks() {
		next := max(k.Cursor, p.had(k.Name))
		if next > whole && p.after.LastSeq() > whole { // it has all that is left, so the numbers that are given up are nothing to it
			next = p.after.LastSeq() + 1
		}
		for seq := k.Cursor; seq < next; seq++ {
			done := state.Done{Term: mine, Done: record.Done{Sink: k.Name, Seq: seq, Attempts: 1, StartedAt: at, DoneAt: at}}
			if err := add(done); err != nil {
				return err
			}
		}
	}
	gone := uint64(0)
	for seq := p.after.FirstSeq(); seq <= p.after.LastSeq(); seq++ {
		if l, _ := p.after.Layout(seq); firstOf(l) < p.first {
			gone = seq
		}
	}
	if gone > 0 {
		return add(state.Release{Term: mine, Seq: gone, At: at})
	}
	return nil
}

// highest is the highest number that a batch of the lost entries can have had: the
// highest that is known, and one for each entry behind that which cannot be read.
func (p *repairPlan) highest() uint64 {
	seq, index := p.known.LastSeq(), p.known.AppliedIndex()
	if p.suffix.cut > seq {
		seq, index = p.suffix.cut, p.suffix.cutIndex
	}
	for _, g := range p.gaps() {
		if g.Last > index {
			seq += g.Last - max(g.First, index+1) + 1
		}
	}
	if p.endUnknown {
		seq += unknownBatches
	}
	return seq
}

// dropped are the entries that go.
func (p *repairPlan) dropped() []wal.Run {
	var runs []wal.Run
	if first := p.lane.first(); p.first > first {
		runs = append(runs, wal.Run{First: first, Last: p.first - 1})
	}
	if p.end > p.last {
		runs = append(runs, wal.Run{First: p.last + 1, Last: p.end})
	}
	return runs
}

// suffix is what the whole entries of a damaged log tell, wherever they lie.
type suffix struct {
	terms         termRuns
	cut, cutIndex uint64 // the newest batch that was cut
	cursors       map[string]uint64
	voters        int
	// next are the partitions' next offsets after the last block that is whole.
	next map[partitionName]int64
}

type partitionName struct {
	topic     string
	partition int32
}

func newSuffix() *suffix {
	return &suffix{cursors: map[string]uint64{}, next: map[partitionName]int64{}}
}

// note takes in an entry.
func (s *suffix) note(e *wal.Entry) {
	s.terms.add(e.Index, e.Term)
	if e.Type == raft.LogConfiguration && len(e.Data) > 0 {
		s.voters = 0
		for _, server := range raft.DecodeConfiguration(e.Data).Servers {
			if server.Suffrage == raft.Voter {
				s.voters++
			}
		}
	}
	if e.Type != raft.LogCommand {
		return
	}
	entry, err := state.Decode(e.Data)
	if err != nil {
		return
	}
	switch entry := entry.(type) {
	case state.Cut:
		if entry.Seq >= s.cut {
			s.cut, s.cutIndex = entry.Seq, e.Index
		}
	case state.Done:
		s.cursors[entry.Sink] = max(s.cursors[entry.Sink], entry.Seq+1)
	case state.SinkRemove:
		delete(s.cursors, entry.Name)
	case state.Advance:
		name := partitionName{entry.Topic, entry.Partition}
		s.next[name] = max(s.next[name], entry.Base, entry.Next)
	case record.Summary:
		for _, sp := range entry.Spans {
			name := partitionName{sp.Topic, sp.Partition}
			s.next[name] = max(s.next[name], sp.Last+1)
		}
	}
}

// termRuns tell the term of each entry: one per change.
type termRuns []struct{ first, term uint64 }

func (t *termRuns) add(index, term uint64) {
	if n := len(*t); n == 0 || (*t)[n-1].term != term {
		*t = append(*t, struct{ first, term uint64 }{index, term})
	}
}

// at is the term of an entry that is whole; 0 where none lies before it.
func (t termRuns) at(index uint64) uint64 {
	i, found := slices.BinarySearchFunc(t, index, func(r struct{ first, term uint64 }, n uint64) int {
		switch {
		case r.first < n:
			return -1
		case r.first > n:
			return 1
		}
		return 0
	})
	if found {
		return t[i].term
	}
	if i == 0 {
		return 0
	}
	return t[i-1].term
}

// stateOf is the state of a damaged log, up to the first entry behind the newest snapshot that is not whole.
func stateOf(lane *laneLog, runs []wal.Run) (*state.State, error) {
	return replicate.Rebuild(lane.dir, lane.first(), math.MaxUint64, resuming(lane.reader, runs))
}
