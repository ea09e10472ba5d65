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

// laneOf gives a lane that this node hosts.
func (n *Node) laneOf(k uint32) (*replicate.Lane, *lead, error) {
	lane, lead := n.view()
	switch {
	case lane == nil:
		return nil, nil, fmt.Errorf("%w: the log is still being opened", admin.ErrNotLeader)
	case k != 0:
		return nil, nil, fmt.Errorf("%w: there is no lane %d", admin.ErrNotFound, k)
	}
	return lane, lead, nil
}

// leading gives the lane's term, for what only a leader may do.
func (n *Node) leading(k uint32) (*replicate.Lane, *lead, error) {
	lane, lead, err := n.laneOf(k)
	if err == nil && lead == nil {
		err = fmt.Errorf("%w: this node does not lead lane %d at the moment", admin.ErrNotLeader, k)
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
	n.logger.Info("sink paused or resumed by an operator", "sink", name, "paused", paused)
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
	return fmt.Errorf("%w: there is no sink %q; the log knows: %s", admin.ErrNotFound, name, strings.Join(known, ", "))
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
		return fmt.Errorf("%w: sink %q is configured: take it out of the configuration and restart, then remove it", admin.ErrConflict, name)
	}
	if state.Cursor != from.Seq {
		return fmt.Errorf("%w: sink %q stands at batch %s, not at %s: it would give up other batches than you looked at",
			admin.ErrConflict, name, record.BatchID{Lane: from.Lane, Seq: state.Cursor}, from)
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
		return fmt.Errorf("%w: say which parked records to discard by their IDs", admin.ErrInvalid)
	}
	for _, id := range ids {
		if _, ok := l.ParkedRecord(id); !ok {
			return fmt.Errorf("%w: no parked record has the ID %d; nothing was discarded", admin.ErrNotFound, id)
		}
	}
	if err := lead.term.Discard(ctx, ids); err != nil {
		return err
	}
	n.logger.Warn("parked records discarded by an operator", "records", len(ids))
	return nil
}

// SkipGap lets a partition that is out of range go on.
func (n *Node) SkipGap(ctx context.Context, topic string, partition int32) (admin.Gap, error) {
	_, lead, err := n.leading(0)
	if err != nil {
		return admin.Gap{}, err
	}
	a, err := lead.receiver.Skip(ctx, topic, partition)
	if errors.Is(err, receiver.ErrNotOutOfRange) {
		return admin.Gap{}, fmt.Errorf("%w: %w: there is nothing to skip (gaps list shows what waits)", admin.ErrConflict, err)
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
