package node

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"forebay/internal/admin"
	"forebay/internal/record"
	"forebay/receiver"
	"forebay/replicate"
)

// refusal is a request that the node cannot do: what admin makes of it, and the
// words for the operator.
type refusal struct{ kind, words error }

func (r *refusal) Error() string   { return r.words.Error() }
func (r *refusal) Unwrap() []error { return []error{r.kind, r.words} }

func refuse(kind error, format string, args ...any) error {
	return &refusal{kind, fmt.Errorf(format, args...)}
}

// laneOf gives a lane that this node hosts.
func (n *Node) laneOf(k uint32) (*replicate.Lane, *lead, error) {
	n.mu.Lock()
	lane, lead, stopping := n.lane, n.lead, n.stopping
	n.mu.Unlock()
	switch {
	case lane == nil && stopping:
		return nil, nil, refuse(admin.ErrNotLeader, "the node is stopping: its log is closed already")
	case lane == nil:
		return nil, nil, refuse(admin.ErrNotLeader, "the log is still being opened")
	case k != 0:
		return nil, nil, refuse(admin.ErrNotFound, "there is no lane %d", k)
	}
	return lane, lead, nil
}

// leading gives the lane's term, for what only a leader may do.
func (n *Node) leading(k uint32) (*replicate.Lane, *lead, error) {
	lane, lead, err := n.laneOf(k)
	if err == nil && lead == nil {
		err = refuse(admin.ErrNotLeader, "this node does not lead lane %d at the moment", k)
	}
	return lane, lead, err
}

// PauseSink pauses or resumes a sink.
func (n *Node) PauseSink(ctx context.Context, name string, paused bool) error {
	lane, lead, err := n.leading(0)
	if err != nil {
		return err
	}
	if _, ok := lane.Sink(name); !ok {
		return n.unknownSink(lane, name)
	}
	if err := lead.term.PauseSink(ctx, name, paused); err != nil {
		return err
	}
	if paused {
		n.logger.Info("sink paused by an operator", "sink", name)
	} else {
		n.logger.Info("sink resumed by an operator", "sink", name)
	}
	if _, configured := n.config.Sinks[name]; !paused && configured {
		return lead.batcher.Resume(name)
	}
	return nil
}

func (n *Node) unknownSink(lane *replicate.Lane, name string) error {
	var known []string
	for _, s := range lane.Sinks() {
		known = append(known, s.Name)
	}
	if len(known) == 0 {
		known = []string{"none yet"}
	}
	return refuse(admin.ErrNotFound, "there is no sink %q; the log knows: %s", name, strings.Join(known, ", "))
}

// RemoveSink forgets a sink.
func (n *Node) RemoveSink(ctx context.Context, name string, from record.BatchID) error {
	lane, lead, err := n.leading(from.Lane)
	if err != nil {
		return err
	}
	state, ok := lane.Sink(name)
	if !ok {
		return n.unknownSink(lane, name)
	}
	if _, configured := n.config.Sinks[name]; configured {
		return refuse(admin.ErrConflict, "sink %q is configured: take it out of the configuration and restart, then remove it", name)
	}
	if state.Cursor != from.Seq {
		return refuse(admin.ErrConflict, "sink %q stands at batch %s, not at %s: it would give up other batches than you looked at",
			name, record.BatchID{Lane: from.Lane, Seq: state.Cursor}, from)
	}
	if err := lead.term.RemoveSink(ctx, name, from.Seq); err != nil {
		return err
	}
	n.logger.Warn("sink removed by an operator", "sink", name, "gives_up_from", from.String())
	return nil
}

// DiscardParked forgets parked records.
func (n *Node) DiscardParked(ctx context.Context, lane uint32, ids []uint64) error {
	l, lead, err := n.leading(lane)
	if err != nil {
		return err
	}
	if len(ids) == 0 {
		return refuse(admin.ErrInvalid, "say which parked records to discard by their IDs")
	}
	for _, id := range ids {
		if _, ok := l.ParkedRecord(id); !ok {
			return refuse(admin.ErrNotFound, "no parked record has the ID %d; nothing was discarded", id)
		}
	}
	if err := lead.term.Discard(ctx, ids); err != nil {
		return err
	}
	n.logger.Warn("parked records discarded by an operator", "records", len(ids))
	return nil
}

// SkipGap lets a partition that is out of range, or blocked by a record, go on.
func (n *Node) SkipGap(ctx context.Context, topic string, partition int32) (admin.Gap, error) {
	_, lead, err := n.leading(0)
	if err != nil {
		return admin.Gap{}, err
	}
	a, err := lead.receiver.Skip(ctx, topic, partition)
	if errors.Is(err, receiver.ErrNotOutOfRange) {
		return admin.Gap{}, refuse(admin.ErrConflict, "%w: there is nothing to skip (gaps list shows what waits)", err)
	}
	if errors.Is(err, receiver.ErrNotYet) {
		return admin.Gap{}, refuse(admin.ErrConflict, "%w: ask again in a moment", err)
	}
	if err != nil {
		return admin.Gap{}, err
	}
	gap := admin.Gap{Topic: a.Topic, Partition: a.Partition, First: a.Base, Last: a.Next - 1, Reason: gapReason(a.Reason)}
	if a.Reason == record.AdvanceTruncated {
		gap.First, gap.Last = a.Next, a.Base-1
	}
	n.logger.Warn("gap skipped by an operator", "topic", topic, "partition", partition, "first", gap.First, "last", gap.Last)
	return gap, nil
}
