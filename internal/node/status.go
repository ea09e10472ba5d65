package node

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"forebay/batcher"
	"forebay/internal/admin"
	"forebay/internal/record"
	"forebay/receiver"
	"forebay/replicate"
)

// view is the node's parts at one moment; nil where there is none.
func (n *Node) view() (*replicate.Lane, *lead) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lane, n.lead
}

// Ready lists what keeps the node from being ready.
func (n *Node) Ready() []string {
	n.mu.Lock()
	stage, stopping, lead := n.stage, n.stopping, n.lead
	n.mu.Unlock()
	switch {
	case stopping:
		return []string{"the node is stopping"}
	case lead == nil && stage != "":
		return []string{stage}
	case lead == nil:
		return []string{"lane 0 has no leader yet"}
	}
	return lead.ready(lead.receiver.Status())
}

// ready tells what keeps a leader from receiving. A rebalance is no reason: who
// was a member once in this term will be one again.
func (l *lead) ready(s receiver.Status) []string {
	if s.Joined {
		l.joined.Store(true)
	}
	out, blocked := 0, 0
	for _, p := range s.Partitions {
		switch p.State {
		case receiver.StateOutOfRange:
			out++
		case receiver.StateBlocked:
			blocked++
		}
	}
	switch {
	case s.Problem != "":
		return []string{s.Problem}
	case out > 0 && out == len(s.Partitions):
		return []string{"Kafka has no partition's next offset any more, so all of them wait: see `forebay gaps list`"}
	case blocked > 0 && out+blocked == len(s.Partitions):
		return []string{"every partition waits for an operator: see `forebay gaps list`"}
	case !l.joined.Load():
		return []string{"the consumer group is being joined"}
	}
	return nil
}

// Status tells what the node is doing.
func (n *Node) Status() admin.Status {
	reasons := n.Ready()
	s := admin.Status{
		Gateway: n.config.Node.Gateway, Node: n.config.Node.ID, Version: Version,
		Ready: len(reasons) == 0, Reasons: append([]string{}, reasons...), Lanes: []admin.Lane{},
	}
	lane, lead := n.view()
	if lane == nil {
		return s
	}
	if identity, formed := lane.Identity(); formed {
		s.LogID = identity.LogID.String()
	}
	s.Lanes = append(s.Lanes, n.laneStatus(lane, lead))
	return s
}

func (n *Node) laneStatus(lane *replicate.Lane, lead *lead) admin.Lane {
	at := lane.Status()
	identity, _ := lane.Identity()
	l := admin.Lane{
		Lane: identity.Lane, Role: at.Role, Leader: at.Leader, Term: at.Term,
		Log:     admin.Log{First: at.First, Last: at.Last, Floor: at.Floor, Bytes: at.Bytes},
		Intake:  admin.Intake{Limit: n.config.Receiver.MaxRate, HeldBy: at.Held},
		Batches: admin.Batches{LastCut: record.BatchID{Lane: identity.Lane, Seq: lane.LastSeq()}.String()},
		Sinks:   []admin.Sink{}, Partitions: []admin.Partition{},
	}
	l.Sinks = n.sinkStatus(lane, lead)
	oldest := lane.LastSeq() + 1
	for _, s := range lane.Sinks() {
		oldest = min(oldest, s.Cursor)
	}
	l.Batches.Active = int(lane.LastSeq() + 1 - oldest)
	if lead == nil {
		return l
	}
	intake := lead.receiver.Status()
	l.Intake.RecordsPerSecond, l.Intake.BytesPerSecond = intake.RecordsPerSecond, intake.BytesPerSecond
	l.Intake.HeldBy = cmp.Or(at.Held, intake.HeldBy)
	for _, p := range intake.Partitions {
		l.Partitions = append(l.Partitions, admin.Partition{
			Topic: p.Topic, Partition: p.Partition, Next: p.Next, End: p.End, State: string(p.State), Detail: p.Detail,
		})
	}
	return l
}

// stateNotConfigured is a sink that the log knows and the configuration does not:
// what it has not got stays in the log until it comes back or is removed.
const stateNotConfigured = "notConfigured"

// sinkStatus joins the cursors of the log with what the batcher is doing.
func (n *Node) sinkStatus(lane *replicate.Lane, lead *lead) []admin.Sink {
	doing := map[string]batcher.SinkStatus{}
	if lead != nil {
		for _, s := range lead.batcher.Status() {
			doing[s.Name] = s
		}
	}
	identity, _ := lane.Identity()
	list := []admin.Sink{}
	for _, s := range lane.Sinks() {
		_, configured := n.config.Sinks[s.Name]
		shown := admin.Sink{
			Name: s.Name, Cursor: record.BatchID{Lane: identity.Lane, Seq: s.Cursor}.String(), State: "idle",
			Parked: s.Parked, Dropped: s.Dropped, Configured: configured,
		}
		switch {
		case s.Paused:
			shown.State = string(batcher.StatePaused)
		case !configured:
			shown.State = stateNotConfigured
		}
		if at, ok := doing[s.Name]; ok {
			shown.State, shown.Retries, shown.LastError = string(at.State), at.Retries, at.LastError
			shown.LastSuccess = instant(at.LastSuccess)
		}
		list = append(list, shown)
		delete(doing, s.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(doing)) {
		list = append(list, admin.Sink{Name: name, State: string(doing[name].State), Configured: true})
	}
	return list
}

func instant(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func millis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// Batches lists batches that the log holds, newest first.
func (n *Node) Batches(lane uint32, before uint64, limit int) (admin.BatchPage, error) {
	page := admin.BatchPage{Batches: []admin.Batch{}}
	l, lead, err := n.laneOf(lane)
	if err != nil {
		return page, err
	}
	end := l.LastSeq() + 1
	if before > 0 {
		end = min(end, before)
	}
	first := l.FirstSeq()
	from := first
	if end > first+uint64(limit) {
		from = end - uint64(limit)
	}
	infos := l.Batches(from, limit)
	for _, info := range slices.Backward(infos) {
		if info.ID.Seq < end {
			page.Batches = append(page.Batches, n.batch(l, lead, info))
		}
	}
	if from > first {
		page.Next = &from
	}
	return page, nil
}

func (n *Node) batch(l *replicate.Lane, lead *lead, info record.BatchInfo) admin.Batch {
	b := admin.Batch{
		ID: info.ID.String(), Lane: info.ID.Lane, Seq: info.ID.Seq, CutAt: millis(info.CutAt),
		Records: info.Records, Bytes: info.Bytes, Ranges: append([]record.Range{}, info.Ranges...), Sinks: []admin.BatchSink{},
	}
	underWay := map[string]batcher.Delivery{}
	if lead != nil {
		for _, d := range lead.batcher.Deliveries(info.ID.Seq) {
			underWay[d.Sink] = d
		}
	}
	done := map[string]bool{}
	for _, d := range l.Dones(info.ID.Seq) {
		started, finished := millis(d.StartedAt), millis(d.DoneAt)
		shown := admin.BatchSink{Name: d.Sink, State: "done", Attempts: int(d.Attempts), StartedAt: &started, DoneAt: &finished}
		if u := underWay[d.Sink]; u.State == batcher.StateLost { // its cursor moved first
			shown.State, shown.Error, shown.DoneAt = string(u.State), u.Error, nil
		}
		b.Sinks = append(b.Sinks, shown)
		done[d.Sink] = true
	}
	for _, s := range l.Sinks() {
		if done[s.Name] || s.Cursor > info.ID.Seq {
			continue
		}
		shown := admin.BatchSink{Name: s.Name, State: "waiting"}
		if d, ok := underWay[s.Name]; ok {
			shown.State, shown.Attempts, shown.Error, shown.StartedAt = string(d.State), d.Attempts, d.Error, instant(d.StartedAt)
		}
		b.Sinks = append(b.Sinks, shown)
	}
	slices.SortFunc(b.Sinks, func(x, y admin.BatchSink) int { return cmp.Compare(x.Name, y.Name) })
	return b
}

// Parked lists the parked records.
func (n *Node) Parked() ([]admin.Parked, error) {
	lane, _, err := n.laneOf(0)
	if err != nil {
		return nil, err
	}
	list := []admin.Parked{}
	for _, p := range lane.Parked() {
		list = append(list, admin.Parked{
			ID: p.ID, Lane: p.Batch.Lane, Sink: p.Sink, Batch: p.Batch.String(), Topic: p.Record.Topic, Partition: p.Record.Partition,
			Offset: p.Record.Offset, Reason: p.Reason, Bytes: p.Bytes, At: millis(p.At),
		})
	}
	return list, nil
}

// ParkedRecord reads one parked record.
func (n *Node) ParkedRecord(ctx context.Context, lane uint32, id uint64) (record.Record, error) {
	l, _, err := n.laneOf(lane)
	if err != nil {
		return record.Record{}, err
	}
	if _, ok := l.ParkedRecord(id); !ok {
		return record.Record{}, refuse(admin.ErrNotFound, "no parked record has the ID %d", id)
	}
	_, found, err := l.ReadParked(ctx, id)
	if err != nil {
		return record.Record{}, err
	}
	return *found, nil
}

// reasonUnkeepable is why a partition waits before a record that the log cannot keep;
// once it is skipped, the gap's reason is that.
const reasonUnkeepable = "unkeepable"

// gapReason is the word for why offsets were passed.
func gapReason(r record.AdvanceReason) string {
	switch r {
	case record.AdvanceExpired:
		return "expired"
	case record.AdvanceTruncated:
		return "truncated"
	case record.AdvanceSkipped:
		return "skipped"
	}
	return "unknown"
}

// Gaps lists recorded gaps, and partitions that wait because theirs is not passed yet.
func (n *Node) Gaps() ([]admin.Gap, error) {
	lane, lead, err := n.laneOf(0)
	if err != nil {
		return nil, err
	}
	list := []admin.Gap{}
	for _, g := range lane.Gaps() {
		at := millis(g.At)
		list = append(list, admin.Gap{Topic: g.Topic, Partition: g.Partition, First: g.First, Last: g.Last, Reason: gapReason(g.Reason), At: &at})
	}
	if lead == nil {
		return list, nil
	}
	for _, p := range lead.receiver.Status().Partitions {
		switch p.State {
		case receiver.StateBlocked:
			list = append(list, admin.Gap{Topic: p.Topic, Partition: p.Partition, First: p.Blocking, Last: p.Blocking, Reason: reasonUnkeepable, Pending: true})
		case receiver.StateOutOfRange:
			gap := admin.Gap{Topic: p.Topic, Partition: p.Partition, First: p.Next, Last: p.Oldest - 1, Reason: gapReason(record.AdvanceExpired), Pending: true}
			if p.Next > p.End {
				gap.First, gap.Last, gap.Reason = p.End, p.Next-1, gapReason(record.AdvanceTruncated)
			}
			// One that was passed a moment ago may still be listed as out of range.
			if gap.First <= gap.Last {
				list = append(list, gap)
			}
		}
	}
	return list, nil
}

// Config is the configuration in force, secrets redacted.
func (n *Node) Config() string {
	text, err := n.config.Render()
	if err != nil {
		return "# " + err.Error() + "\n"
	}
	return text
}
