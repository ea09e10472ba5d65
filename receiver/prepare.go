package receiver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"forebay/internal/record"
)

// plan is what a session is begun with: checked before the join, as sarama
// starts every claim that it is given.
type plan struct {
	topo   topology
	topics []string // to subscribe
	// want are the claims that the lane should get.
	want map[key]bool
}

// prepare looks at the topics and brings the log and Kafka's ranges together:
// topics made again, first offsets, offsets out of range. It changes the
// log only through entries that say what they expect of it.
func (r *Receiver) prepare(ctx context.Context, k *kafka) (*plan, error) {
	// What an earlier session appended must be settled, else Position is old.
	if err := r.flights.wait(ctx); err != nil {
		return nil, err
	}
	topo, err := r.topology(k)
	if err != nil {
		return nil, fmt.Errorf("asking for topics: %w", err)
	}
	if err := r.replaceTopics(ctx, k, &topo); err != nil {
		return nil, err
	}
	r.sayMissing(topo)
	lane := topo.lane(r.cfg.Lane, r.cfg.Lanes)
	oldest, newest, err := r.ranges(k, lane)
	if err != nil {
		return nil, err
	}
	leaderless := make(map[key]bool)
	present := slices.DeleteFunc(slices.Clone(lane), func(p key) bool {
		_, ok1 := oldest[p]
		_, ok2 := newest[p]
		leaderless[p] = !ok1 || !ok2
		return leaderless[p]
	})
	if err := r.recordBases(ctx, k, topo, lane, leaderless, oldest, newest); err != nil {
		return nil, err
	}
	excluded, err := r.applyPolicy(ctx, present, oldest, newest)
	if err != nil {
		return nil, err
	}
	p := &plan{topo: topo, topics: sortedKeys(topo.topics), want: make(map[key]bool)}
	for _, part := range present {
		if excluded[part] == nil {
			p.want[part] = true
		}
	}
	r.adopt(p, lane, excluded, leaderless, newest)
	r.countBlocked()
	r.sawTopics(topo)
	return p, nil
}

func (r *Receiver) ranges(k *kafka, lane []key) (oldest, newest map[key]int64, err error) {
	if len(lane) == 0 {
		return nil, nil, nil
	}
	if oldest, err = k.offsets(lane, sarama.OffsetOldest, false); err != nil {
		return nil, nil, err
	}
	newest, err = k.offsets(lane, sarama.OffsetNewest, false)
	return oldest, newest, err
}

// adopt makes a plan the receiver's current one.
func (r *Receiver) adopt(p *plan, lane []key, excluded map[key]*outOfRange, leaderless map[key]bool, newest map[key]int64) {
	limits := Limits{Records: r.cfg.MaxRate, Bytes: r.cfg.MaxBytesRate, PerPartition: r.cfg.MaxRatePerPartition}
	if r.cfg.Lanes > 1 {
		share := float64(len(lane)) / float64(max(1, p.topo.count()))
		limits.Records *= share
		limits.Bytes *= share
	}
	r.limiter.set(limits)
	r.metrics.limit.Set(limits.Records)

	r.mu.Lock()
	defer r.mu.Unlock()
	r.plan, r.lane, r.excluded, r.leaderless, r.limits = p, lane, excluded, leaderless, limits
	for k := range r.ends {
		if !slices.Contains(lane, k) {
			delete(r.ends, k)
			r.metrics.lag.DeleteLabelValues(k.topic, fmt.Sprint(k.partition))
		}
	}
	maps.DeleteFunc(r.blocked, func(k key, _ *blockage) bool { return !slices.Contains(lane, k) })
	for k := range r.details {
		if excluded[k] != nil || !slices.Contains(lane, k) {
			delete(r.details, k)
		}
	}
	for k, end := range newest {
		if _, ok := r.ends[k]; !ok {
			r.ends[k] = end
		}
	}
}

// sayMissing tells of topics that are not there.
func (r *Receiver) sayMissing(topo topology) {
	text := ""
	for _, name := range sortedKeys(topo.missing) {
		if text != "" {
			text += "; "
		}
		if errors.Is(topo.missing[name], sarama.ErrUnknownTopicOrPartition) {
			text += fmt.Sprintf("topic %q does not exist", name)
		} else {
			text += fmt.Sprintf("topic %q cannot be read: %v", name, topo.missing[name])
		}
	}
	r.problem(problemTopics, text)
}

// replaceTopics has the log take up topics that were made again. A changed id
// is believed when two looks agree, and never when it is one that was replaced
// before: a broker that lags behind still tells the old one.
func (r *Receiver) replaceTopics(ctx context.Context, k *kafka, topo *topology) error {
	for attempt := 0; ; attempt++ {
		changed := r.changedTopics(*topo)
		if len(changed) == 0 {
			return nil
		}
		before := maps.Clone(topo.topics)
		if err := sleep(ctx, r.cfg.MetadataRefresh); err != nil {
			return err
		}
		again, err := r.topology(k)
		if err != nil {
			return fmt.Errorf("asking for topics: %w", err)
		}
		*topo = again
		for _, c := range r.changedTopics(*topo) {
			if before[c.Topic].id != c.New {
				continue
			}
			if err := r.log.ReplaceTopic(ctx, c, r.suspect(c.Topic)); err != nil && !errors.Is(err, record.ErrRefused) {
				return fmt.Errorf("recording that topic %s was made again: %w", c.Topic, err)
			}
			r.sayReplaced(c)
		}
	}
}

// topology asks for our topics, without those that a broker which lags behind
// tells of by an id that was replaced.
func (r *Receiver) topology(k *kafka) (topology, error) {
	applied := r.log.AppliedIndex()
	topo, err := k.topology(r.cfg.Topics)
	topo.applied = applied
	if err != nil {
		return topo, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, m := range topo.topics {
		if r.retired[m.id] {
			delete(topo.topics, name)
			topo.missing[name] = errors.New("a broker still tells of the incarnation that was deleted")
		}
	}
	return topo, nil
}

// changedTopics compares the log's incarnations with Kafka's.
func (r *Receiver) changedTopics(topo topology) []record.TopicChange {
	var changed []record.TopicChange
	for _, name := range sortedKeys(topo.topics) {
		now := topo.topics[name].id
		old, ok := r.log.TopicID(name)
		none := record.TopicID{}
		if !ok || old == now || old == none || now == none {
			continue // not known to the log, the same, or one of the two without ids (before Kafka 2.8)
		}
		changed = append(changed, record.TopicChange{Topic: name, Old: old, New: now})
	}
	return changed
}

// suspect is the first entry that may hold records of a topic's next incarnation,
// 0 when this process has not seen the one before.
func (r *Receiver) suspect(topic string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if looked, ok := r.looked[topic]; ok {
		return looked.applied + 1
	}
	return 0
}

func (r *Receiver) sayReplaced(c record.TopicChange) {
	r.metrics.topicChanges.Inc()
	r.mu.Lock()
	r.retired[c.Old] = true
	looked := r.looked[c.Topic]
	r.mu.Unlock()
	doubt := "this process has read nothing of it"
	if !looked.at.IsZero() {
		doubt = fmt.Sprintf("it was last seen as before at %s: what was read after that, in entries after %d, may belong to either",
			looked.at.UTC().Format(time.RFC3339Nano), looked.applied)
	}
	r.logger.Warn("topic was deleted and made again; starting its partitions at 0", "topic", c.Topic, "old_id", fmt.Sprintf("%x", c.Old), "new_id", fmt.Sprintf("%x", c.New), "doubt", doubt)
	r.note(fmt.Sprintf("topic %s was deleted and made again (id %x, now %x); its partitions start at 0; %s", c.Topic, c.Old, c.New, doubt))
}

// firstOffset decides where a partition that the log does not know begins.
// committed is -1 when the group has none.
func firstOffset(formation, topicKnown bool, committed, oldest, newest int64, startFrom string) int64 {
	switch {
	case topicKnown:
		return 0 // added to its topic: all that it ever held is new
	case formation && committed >= 0:
		return committed
	case formation && startFrom == Latest:
		return newest
	default:
		return oldest
	}
}

// recordBases gives the log the first offsets of partitions that it does not
// know, before anything of them is fetched: retention may move a start that
// nobody wrote down.
//
// At the formation that includes partitions without a leader: later they would look
// like ones that were added, and begin at 0. The group's offset needs no leader;
// the end does, so that with Latest the formation waits for all leaders.
func (r *Receiver) recordBases(ctx context.Context, k *kafka, topo topology, lane []key, leaderless map[key]bool, oldest, newest map[key]int64) error {
	formation := len(r.log.Topics()) == 0
	fresh := slices.DeleteFunc(slices.Clone(lane), func(p key) bool {
		_, known := r.log.Position(p.topic, p.partition)
		return known || leaderless[p] && !formation
	})
	if len(fresh) == 0 {
		return nil
	}
	var committed map[key]int64
	if formation {
		var err error
		if committed, err = k.committed(fresh); err != nil {
			return err
		}
	}
	bases := make([]record.Base, 0, len(fresh))
	for _, p := range fresh {
		id, known := r.log.TopicID(p.topic)
		if !known {
			id = topo.topics[p.topic].id
		}
		at, ok := committed[p]
		switch {
		case ok:
		case leaderless[p] && r.cfg.StartFrom == Latest:
			return fmt.Errorf("no broker leads %s: where it ends must be known before the log begins", p)
		case leaderless[p]:
			continue // all of it is wanted, whenever it comes
		default:
			at = -1
		}
		bases = append(bases, record.Base{
			Topic: p.topic, TopicID: id, Partition: p.partition,
			Next: firstOffset(formation, known, at, oldest[p], newest[p], r.cfg.StartFrom),
		})
	}
	if len(bases) == 0 {
		return nil
	}
	if err := r.log.SetBases(ctx, bases); err != nil {
		return fmt.Errorf("recording first offsets: %w", err)
	}
	r.logger.Info("new partitions", "partitions", len(bases), "first", fmt.Sprintf("%s/%d at %d", bases[0].Topic, bases[0].Partition, bases[0].Next), "formation", formation)
	return nil
}

// applyPolicy compares every partition's next offset with what Kafka has, and
// moves those that are out of range, or tells which must stay out.
func (r *Receiver) applyPolicy(ctx context.Context, present []key, oldest, newest map[key]int64) (map[key]*outOfRange, error) {
	r.mu.Lock()
	seen := r.excluded
	r.mu.Unlock()
	excluded := make(map[key]*outOfRange)
	for _, p := range present {
		pos, ok := r.log.Position(p.topic, p.partition)
		if !ok {
			return nil, fmt.Errorf("%w: the log does not know %s after its first offset was recorded", record.ErrRefused, p)
		}
		o := examine(seen[p], pos.Next, oldest[p], newest[p], time.Now(), r.cfg.TruncationWait)
		if o == nil {
			continue
		}
		if r.cfg.OffsetOutOfRange == Pause || !o.certain(r.cfg.TruncationWait) {
			excluded[p] = o
			if seen[p] == nil {
				r.logger.Warn("partition is out of range and kept out", "topic", p.topic, "partition", p.partition, "reason", reasonText(o.reason), "next", o.next, "oldest", o.oldest, "end", o.newest)
			}
			continue
		}
		if _, err := r.advancePast(ctx, p, pos, o, r.cfg.OffsetOutOfRange); err != nil {
			return nil, err
		}
	}
	return excluded, nil
}

// advancePast records a gap and goes on behind it.
func (r *Receiver) advancePast(ctx context.Context, p key, pos record.Position, o *outOfRange, policy string) (record.Advance, error) {
	a := record.Advance{
		Topic: p.topic, TopicID: pos.TopicID, Partition: p.partition,
		Base: pos.Next, Next: o.resume(policy), Reason: o.reason,
	}
	if err := r.log.Advance(ctx, a); err != nil {
		return a, fmt.Errorf("recording the gap in %s: %w", p, err)
	}
	r.sayGap(p, a)
	r.note(fmt.Sprintf("gap in %s: %s, from offset %d on to %d", p, reasonText(a.Reason), a.Base, a.Next))
	return a, nil
}

// sayGap counts a gap that the log has, and logs it.
func (r *Receiver) sayGap(p key, a record.Advance) {
	reason := reasonText(a.Reason)
	r.metrics.gaps.WithLabelValues(reason).Inc()
	r.metrics.skipped.WithLabelValues(reason).Add(float64(max(a.Next-a.Base, a.Base-a.Next)))
	r.logger.Warn("gap recorded", "topic", p.topic, "partition", p.partition, "reason", reason, "from", a.Base, "to", a.Next)
}
