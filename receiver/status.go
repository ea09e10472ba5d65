package receiver

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// States of a partition.
const (
	StateConsuming  = "consuming"
	StatePaused     = "paused"     // the log holds the intake; HeldBy says why
	StateOutOfRange = "outOfRange" // kept out until Skip, or while that is being checked
	StateNoLeader   = "noLeader"   // no broker leads it now
	StateBlocked    = "blocked"    // waits before a record that the log cannot keep, until Skip
	StateUnassigned = "unassigned" // not claimed at the moment
)

// Status is the receiver at one moment.
type Status struct {
	// Problem says in words what keeps the receiver from its work: no broker
	// reachable, a topic missing, a place in the group taken. "" when all is well.
	Problem string
	// Joined tells whether the receiver is a member of its group now.
	Joined bool
	// RecordsPerSecond and BytesPerSecond are the intake over the last seconds.
	RecordsPerSecond, BytesPerSecond float64
	// Limits are this lane's shares of the caps.
	Limits Limits
	// HeldBy names what holds the intake back now, much of the time: "maxRate", "maxBytesRate",
	// "maxRatePerPartition", "log" (it takes long to append), or the log's own
	// reason, as "wal.maxBytes". "" when nothing does.
	HeldBy string
	// Partitions of this lane, sorted.
	Partitions []PartitionStatus
	// Notes are the newest things that an operator should know of and that
	// are over: topics made again, gaps. At most 100.
	Notes []Note
}

// Note is one of Status.Notes.
type Note struct {
	At   time.Time
	Text string
}

// PartitionStatus is one partition of the lane.
type PartitionStatus struct {
	Topic     string
	Partition int32
	// Next is the log's next offset; End is Kafka's: the last stable offset
	// with read_committed, else the high watermark. -1 when not known.
	Next, End int64
	// Oldest is the first offset that Kafka still has, of a partition that is out
	// of range; else -1.
	Oldest int64
	// Blocking is the offset of the record that a blocked partition waits before; else -1.
	Blocking int64
	State    string
	// Detail says more in words, or is "".
	Detail string
}

// Status tells how things stand. It does not ask Kafka.
func (r *Receiver) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{
		Problem: r.problemText(), Joined: r.session != nil, Limits: r.limits,
		HeldBy: r.limiter.heldBy(r.limiter.now()), Notes: slices.Clone(r.notes),
	}
	s.RecordsPerSecond, s.BytesPerSecond = r.meter.rates(time.Now())
	held := ""
	if r.session != nil {
		held = r.session.heldBy()
	}
	if held != "" {
		s.HeldBy = held
	}
	for _, k := range r.lane {
		s.Partitions = append(s.Partitions, r.partitionStatus(k, held))
	}
	return s
}

// partitionStatus is called with the lock held.
func (r *Receiver) partitionStatus(k key, held string) PartitionStatus {
	p := PartitionStatus{Topic: k.topic, Partition: k.partition, Next: -1, End: -1, Oldest: -1, Blocking: -1, State: StateUnassigned}
	if pos, ok := r.log.Position(k.topic, k.partition); ok {
		p.Next = pos.Next
	}
	if d := r.details[k]; d.next == p.Next {
		p.Detail = d.text
	}
	if end, ok := r.ends[k]; ok {
		p.End = max(end, p.Next) // Next is newer than the last look at the ends
	}
	switch {
	case r.excluded[k] != nil:
		is := r.excluded[k]
		p.State, p.Detail = StateOutOfRange, is.detail(is.certain(r.cfg.TruncationWait))
		p.Oldest, p.End = is.oldest, is.newest
	case r.blockageOf(k) != nil:
		is := r.blocked[k]
		p.State, p.Detail, p.Blocking = StateBlocked, is.detail(k), is.offset
	case r.leaderless[k]:
		p.State, p.Detail = StateNoLeader, "no broker leads this partition"
	case r.session != nil && r.session.claims(k):
		p.State = StateConsuming
		if held != "" {
			p.State, p.Detail = StatePaused, held
		}
	}
	return p
}

// problemText is called with the lock held.
func (r *Receiver) problemText() string {
	var texts []string
	for _, kind := range slices.Sorted(maps.Keys(r.problems)) {
		texts = append(texts, r.problems[kind])
	}
	return strings.Join(texts, "; ")
}

// Kinds of problems, of which each has at most one text at a time.
const (
	problemKafka   = "kafka"   // no broker answers
	problemPrepare = "prepare" // what must be so before the join is not
	problemTopics  = "topics"  // some cannot be read
	problemGroup   = "group"   // joining fails, or another has our place
)

// problem notes what is wrong ("" when it is over) and logs it when that
// changes: not at every retry.
func (r *Receiver) problem(kind, text string) {
	r.mu.Lock()
	before := r.problems[kind]
	if text == "" {
		delete(r.problems, kind)
	} else {
		r.problems[kind] = text
	}
	r.mu.Unlock()
	switch text {
	case before:
	case "":
		r.logger.Info("intake problem is over", "kind", kind, "was", before)
	default:
		r.logger.Warn("intake problem", "kind", kind, "problem", text)
	}
}

// unreachable notes that no broker answers. That there is none left to ask
// says less than why the last one did not answer.
func (r *Receiver) unreachable(err error) {
	var nobody *unreachableError
	if errors.As(err, &nobody) && nobody.last == nil {
		r.mu.Lock()
		noted := r.problems[problemKafka] != ""
		r.mu.Unlock()
		if noted {
			return
		}
	}
	r.problem(problemKafka, fmt.Sprintf("no broker of %v answers: %v", r.cfg.Brokers, err))
}

// note keeps something for the operator to see.
func (r *Receiver) note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, Note{At: time.Now(), Text: text})
	if extra := len(r.notes) - 100; extra > 0 {
		r.notes = slices.Delete(r.notes, 0, extra)
	}
}

// meterSeconds is the window over which rates are told.
const meterSeconds = 5

// meter counts the intake by the second.
type meter struct {
	mu      sync.Mutex
	seconds [meterSeconds + 1]struct{ at, records, bytes int64 }
}

func (m *meter) add(now time.Time, records, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &m.seconds[now.Unix()%int64(len(m.seconds))]
	if s.at != now.Unix() {
		s.at, s.records, s.bytes = now.Unix(), 0, 0
	}
	s.records += int64(records)
	s.bytes += int64(bytes)
}

// rates gives the means over the last whole seconds.
func (m *meter) rates(now time.Time) (records, bytes float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.seconds {
		if s.at < now.Unix() && s.at >= now.Unix()-meterSeconds {
			records += float64(s.records) / meterSeconds
			bytes += float64(s.bytes) / meterSeconds
		}
	}
	return records, bytes
}
