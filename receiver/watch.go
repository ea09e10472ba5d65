package receiver

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/IBM/sarama"

	"forebay/internal/record"
)

func compareKeys(a, b key) int {
	return cmp.Or(cmp.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
}

// watch looks at the topics and their ends every MetadataRefresh until ctx
// ends. Every lane watches for itself: the group's leader may be a member that
// a takeover has replaced, and then nobody else would notice new partitions.
func (r *Receiver) watch(ctx context.Context, k *kafka) {
	tick := time.NewTicker(r.cfg.MetadataRefresh)
	defer tick.Stop()
	gone := 0
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		topo, err := r.topology(k)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.unreachable(err)
			continue
		}
		r.problem(problemKafka, "")
		plan, session := r.current()
		if plan == nil {
			continue
		}
		switch why, lost := difference(plan.topo, topo); {
		case why == "":
			gone = 0
			r.sawTopics(topo)
		case lost && gone < goneLooks-1:
			gone++ // a broker that has just started may not know of it yet
		default:
			gone = 0
			r.rejoin(session, why)
		}
		r.look(k, session)
	}
}

// goneLooks is how many looks in a row must miss a topic before that is believed.
const goneLooks = 3

// difference tells how the topics changed; lost: something is missing now.
func difference(before, now topology) (why string, lost bool) {
	for _, name := range sortedKeys(now.topics) {
		was, ok := before.topics[name]
		is := now.topics[name]
		switch {
		case !ok:
			return fmt.Sprintf("topic %s appeared", name), false
		case was.id != is.id:
			return fmt.Sprintf("topic %s has another id", name), false
		case len(is.partitions) > len(was.partitions):
			return fmt.Sprintf("topic %s has %d partitions instead of %d", name, len(is.partitions), len(was.partitions)), false
		case len(is.partitions) < len(was.partitions):
			why, lost = fmt.Sprintf("topic %s has %d partitions instead of %d", name, len(is.partitions), len(was.partitions)), true
		}
	}
	for _, name := range sortedKeys(before.topics) {
		if _, ok := now.topics[name]; !ok {
			why, lost = fmt.Sprintf("topic %s is gone", name), true
		}
	}
	return why, lost
}

// sighting is when a topic's incarnation was last seen, and the log's newest entry then.
type sighting struct {
	at      time.Time
	applied uint64
}

// sawTopics notes when each incarnation was last seen.
func (r *Receiver) sawTopics(topo topology) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range topo.topics {
		r.looked[name] = sighting{topo.asked, topo.applied}
	}
}

// look asks for the ends, and checks again what is kept out.
func (r *Receiver) look(k *kafka, session *session) {
	r.mu.Lock()
	lane := slices.Clone(r.lane)
	var kept []key
	for p := range r.excluded {
		kept = append(kept, p)
	}
	r.mu.Unlock()
	ends, err := k.offsets(lane, sarama.OffsetNewest, r.cfg.IsolationLevel == ReadCommitted)
	if err != nil {
		return // topology has said so, or will
	}
	r.mu.Lock()
	for p, end := range ends {
		r.ends[p] = end
	}
	found := false
	for p := range r.leaderless {
		_, ok := ends[p]
		found = found || r.leaderless[p] && ok
	}
	r.mu.Unlock()
	r.measureLag(ends)
	if found {
		r.rejoin(session, "a partition has a leader again")
	}
	if len(kept) > 0 {
		r.checkAgain(k, session, kept)
	}
}

// measureLag sets the lag of partitions whose end is known.
func (r *Receiver) measureLag(ends map[key]int64) {
	for p, end := range ends {
		if pos, ok := r.log.Position(p.topic, p.partition); ok {
			r.metrics.lag.WithLabelValues(p.topic, strconv.Itoa(int(p.partition))).Set(float64(max(0, end-pos.Next)))
		}
	}
}

// checkAgain looks whether a partition that is kept out may come back, or
// whether the end that it lies beyond is certain by now.
func (r *Receiver) checkAgain(k *kafka, session *session, kept []key) {
	slices.SortFunc(kept, compareKeys)
	oldest, newest, err := r.ranges(k, kept)
	if err != nil {
		return
	}
	again := ""
	r.mu.Lock()
	for _, p := range kept {
		pos, ok := r.log.Position(p.topic, p.partition)
		old, ok1 := oldest[p]
		end, ok2 := newest[p]
		was := r.excluded[p]
		if !ok || !ok1 || !ok2 || was == nil {
			continue
		}
		is := examine(was, pos.Next, old, end, time.Now(), r.cfg.TruncationWait)
		switch {
		case is == nil:
			again = fmt.Sprintf("%s is in range again", p)
		case is.certain(r.cfg.TruncationWait) && r.cfg.OffsetOutOfRange != Pause:
			again = fmt.Sprintf("%s is out of range for certain", p)
		}
		if is != nil {
			r.excluded[p] = is
		}
	}
	r.mu.Unlock()
	if again != "" {
		r.rejoin(session, again)
	}
}

// end gives the end that was last seen of a partition.
func (r *Receiver) end(p key) (int64, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	end, ok := r.ends[p]
	return end, ok
}

// Skip lets a partition that is kept out as out of range go on: from the
// oldest record that Kafka has when its records expired, from the end when the end
// was lost. One that is blocked by a record goes on behind that record. The gap is
// in the log when it returns. ErrNotOutOfRange: the partition waits for neither, or
// that is still being checked. ErrNotYet: ask again.
func (r *Receiver) Skip(ctx context.Context, topic string, partition int32) (record.Advance, error) {
	p := key{topic, partition}
	r.mu.Lock()
	seen, k, session, blocked := r.excluded[p], r.kafka, r.session, r.blockageOf(p)
	r.mu.Unlock()
	if seen == nil && blocked != nil {
		a, err := r.pass(ctx, p, blocked)
		if err == nil {
			_, session = r.current() // the claim that waits is of this one, or finds itself passed
			r.rejoin(session, fmt.Sprintf("%s was skipped on", p))
		}
		return a, err
	}
	if seen == nil || k == nil {
		return record.Advance{}, fmt.Errorf("%s: %w", p, ErrNotOutOfRange)
	}
	oldest, newest, err := r.ranges(k, []key{p})
	if err != nil {
		return record.Advance{}, err
	}
	pos, ok := r.log.Position(topic, partition)
	now := examine(seen, pos.Next, oldest[p], newest[p], time.Now(), r.cfg.TruncationWait)
	if !ok || now == nil || !now.certain(r.cfg.TruncationWait) {
		return record.Advance{}, fmt.Errorf("%s: %w", p, ErrNotOutOfRange)
	}
	a, err := r.advancePast(ctx, p, pos, now, Earliest)
	if err != nil {
		return record.Advance{}, err
	}
	r.rejoin(session, fmt.Sprintf("%s was skipped on", p))
	return a, nil
}
