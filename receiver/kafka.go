package receiver

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/IBM/sarama"

	"forebay/internal/record"
)

// key names a partition.
type key struct {
	topic     string
	partition int32
}

func (k key) String() string { return fmt.Sprintf("%s/%d", k.topic, k.partition) }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// topicMeta is one incarnation of a topic. id is zero when the broker is too
// old (before Kafka 2.8) to tell.
type topicMeta struct {
	id         record.TopicID
	partitions []int32
}

// topology is what the brokers say of the topics that we want.
type topology struct {
	topics  map[string]topicMeta
	missing map[string]error // why a wanted topic is not among them
	asked   time.Time
	applied uint64 // the log's newest entry before we asked
}

// fingerprint changes when a topic comes, goes, grows or is made again.
func (t topology) fingerprint() string {
	h := fnv.New64a()
	for _, name := range sortedKeys(t.topics) {
		m := t.topics[name]
		_, _ = fmt.Fprintf(h, "%s %x %d\n", name, m.id, len(m.partitions))
	}
	return fmt.Sprintf("%016x", h.Sum64())
}

// lane lists the partitions of a lane, in order.
func (t topology) lane(lane, lanes uint32) []key {
	var keys []key
	for _, name := range sortedKeys(t.topics) {
		for _, p := range t.topics[name].partitions {
			if Lane(name, p, lanes) == lane {
				keys = append(keys, key{name, p})
			}
		}
	}
	return keys
}

// count is the number of partitions of all lanes.
func (t topology) count() int {
	n := 0
	for _, m := range t.topics {
		n += len(m.partitions)
	}
	return n
}

// kafka asks brokers what sarama's consumer does not tell. It has a client
// of its own, so that its questions do not queue behind fetches that wait for
// records. Safe for concurrent use.
type kafka struct {
	client sarama.Client
	group  string
}

// broker gives a connected broker, or why there is none.
func (k *kafka) broker() (*sarama.Broker, error) {
	brokers := k.client.Brokers() // in no order, so that the questions are spread
	if len(brokers) == 0 {
		brokers = append(brokers, k.client.LeastLoadedBroker()) // one of those configured
	}
	var failed error
	for _, b := range brokers {
		if b == nil {
			continue
		}
		err := b.Open(k.client.Config())
		if err == nil || errors.Is(err, sarama.ErrAlreadyConnected) {
			var ok bool
			if ok, err = b.Connected(); ok && err == nil {
				return b, nil
			}
			_ = b.Close()
		}
		failed = err
	}
	return nil, &unreachableError{failed}
}

// unreachableError says that no broker could be connected to, and why the last
// one could not.
type unreachableError struct{ last error }

func (e *unreachableError) Error() string {
	if e.last == nil {
		return "none is left to ask"
	}
	return e.last.Error()
}

func (e *unreachableError) Unwrap() error { return e.last }

// topology asks one broker for the wanted topics.
func (k *kafka) topology(topics []string) (topology, error) {
	asked := time.Now()
	b, err := k.broker()
	if err != nil {
		return topology{}, err
	}
	resp, err := b.GetMetadata(sarama.NewMetadataRequest(k.client.Config().Version, topics))
	if err != nil {
		_ = b.Close() // opened anew at the next question
		return topology{}, &unreachableError{err}
	}
	t := topology{topics: make(map[string]topicMeta), missing: make(map[string]error), asked: asked}
	for _, m := range resp.Topics {
		if m.Err != sarama.ErrNoError && m.Err != sarama.ErrLeaderNotAvailable {
			t.missing[m.Name] = m.Err
			continue
		}
		meta := topicMeta{id: record.TopicID(m.Uuid)}
		for _, p := range m.Partitions {
			meta.partitions = append(meta.partitions, p.ID)
		}
		slices.Sort(meta.partitions)
		t.topics[m.Name] = meta
	}
	return t, nil
}

// offsets asks the leaders for one offset of each partition: at is
// sarama.OffsetOldest or OffsetNewest, and the newest is the last stable offset
// when committed is true, else the high watermark. Partitions whose leader
// did not answer are left out; it is an error only if all are.
func (k *kafka) offsets(keys []key, at int64, committed bool) (map[key]int64, error) {
	found := make(map[key]int64, len(keys))
	requests := make(map[*sarama.Broker]*sarama.OffsetRequest)
	var failed error
	for _, p := range keys {
		leader, err := k.client.Leader(p.topic, p.partition)
		if err != nil {
			failed = err
			continue
		}
		if requests[leader] == nil {
			requests[leader] = sarama.NewOffsetRequest(k.client.Config().Version)
			if committed {
				requests[leader].IsolationLevel = sarama.ReadCommitted
			}
		}
		requests[leader].AddBlock(p.topic, p.partition, at, 1)
	}
	for leader, req := range requests {
		resp, err := leader.GetAvailableOffsets(req)
		if err != nil {
			_ = leader.Close()
			failed = err
			continue
		}
		for topic, partitions := range resp.Blocks {
			for p, block := range partitions {
				if block.Err != sarama.ErrNoError {
					failed = block.Err
					continue
				}
				found[key{topic, p}] = block.Offset
			}
		}
	}
	if failed != nil {
		_ = k.client.RefreshMetadata(topicsOf(keys)...) // leaders may have moved; the next round will tell
	}
	if len(found) == 0 && len(keys) > 0 {
		return nil, fmt.Errorf("asking for offsets: %w", failed)
	}
	return found, nil
}

func topicsOf(keys []key) []string {
	var names []string
	for _, k := range keys {
		names = append(names, k.topic)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// committed asks for the group's committed offsets; partitions without one are left out.
func (k *kafka) committed(keys []key) (map[key]int64, error) {
	if err := k.client.RefreshCoordinator(k.group); err != nil {
		return nil, fmt.Errorf("finding the group's coordinator: %w", err)
	}
	b, err := k.client.Coordinator(k.group)
	if err != nil {
		return nil, fmt.Errorf("finding the group's coordinator: %w", err)
	}
	partitions := make(map[string][]int32)
	for _, p := range keys {
		partitions[p.topic] = append(partitions[p.topic], p.partition)
	}
	req := sarama.NewOffsetFetchRequest(k.client.Config().Version, k.group, partitions)
	req.RequireStable = req.Version >= 7
	resp, err := b.FetchOffset(req)
	if err != nil {
		_ = b.Close()
		return nil, fmt.Errorf("asking for the group's offsets: %w", err)
	}
	found := make(map[key]int64, len(keys))
	if errors.Is(resp.Err, sarama.ErrGroupIDNotFound) {
		return found, nil // nobody has joined it yet
	}
	for _, p := range keys {
		block := resp.GetBlock(p.topic, p.partition)
		switch {
		case block == nil && resp.Err != sarama.ErrNoError:
			return nil, fmt.Errorf("asking for the group's offsets: %w", resp.Err)
		case block == nil:
			return nil, fmt.Errorf("asking for the group's offsets: %w", sarama.ErrIncompleteResponse)
		case block.Err != sarama.ErrNoError:
			return nil, fmt.Errorf("asking for the group's offset of %s: %w", p, block.Err)
		case block.Offset >= 0:
			found[p] = block.Offset
		}
	}
	return found, nil
}

// probeBytes is how much of a partition one probe looks at.
const probeBytes = 1 << 20

// probe fetches once from an offset and tells up to where nothing but holes lie.
func (k *kafka) probe(p key, next int64) (int64, error) {
	b, err := k.client.Leader(p.topic, p.partition)
	if err != nil {
		return next, err
	}
	conf := k.client.Config()
	req := &sarama.FetchRequest{
		Version: 5, MaxBytes: probeBytes, MinBytes: 1, MaxWaitTime: 100,
		Isolation: conf.Consumer.IsolationLevel,
	}
	switch {
	case conf.Version.IsAtLeast(sarama.V2_7_0_0):
		req.Version = 12
	case conf.Version.IsAtLeast(sarama.V2_1_0_0):
		req.Version = 10 // the first that may answer with zstd
	}
	if req.Version >= 7 {
		req.SessionEpoch = -1
	}
	req.AddBlock(p.topic, p.partition, next, probeBytes, -1)
	resp, err := b.Fetch(req)
	if err != nil {
		_ = b.Close()
		return next, err
	}
	block := resp.GetBlock(p.topic, p.partition)
	if block == nil {
		return next, sarama.ErrIncompleteResponse
	}
	if block.Err != sarama.ErrNoError {
		return next, block.Err
	}
	return passable(block, next, conf.Consumer.IsolationLevel == sarama.ReadCommitted), nil
}

// passable walks a fetched response from next on, over control batches,
// batches of aborted transactions and what compaction has emptied, and tells the
// offset of the first thing that a reader may want. An answer without any batch
// proves nothing: brokers also answer so when they throttle.
func passable(block *sarama.FetchResponseBlock, next int64, committed bool) int64 {
	end := block.HighWaterMarkOffset
	if committed {
		end = block.LastStableOffset
	}
	pending := slices.Clone(block.AbortedTransactions)
	slices.SortFunc(pending, func(a, b *sarama.AbortedTransaction) int { return int(min(1, max(-1, a.FirstOffset-b.FirstOffset))) })
	aborted := make(map[int64]bool)
	start := next
	if len(block.RecordsSet) == 0 {
		next = max(next, behindEmptied(block))
	}
	for _, records := range block.RecordsSet {
		batch := records.RecordBatch
		if batch == nil || batch.PartialTrailingRecord {
			break
		}
		for len(pending) > 0 && pending[0].FirstOffset <= batch.LastOffset() {
			aborted[pending[0].ProducerID] = true
			pending = pending[1:]
		}
		switch {
		case batch.Control:
			if isAbort(batch) {
				delete(aborted, batch.ProducerID)
			}
		case committed && batch.IsTransactional && aborted[batch.ProducerID]:
		case batch.LastOffset() < next || !holdsFrom(batch, next):
		default:
			return max(start, min(next, end))
		}
		next = max(next, batch.LastOffset()+1)
	}
	return max(start, min(next, end))
}

// behindEmptied gives the offset behind an answer that had batches but no record
// in any of them, 0 for other answers. Sarama drops such batches from the answer
// and keeps what we want to itself, for its own consumer; reading is all that
// reflection does here. A batch that came in part would be in the answer.
func behindEmptied(block *sarama.FetchResponseBlock) int64 {
	next := reflect.ValueOf(block).Elem().FieldByName("recordsNextOffset")
	if !next.IsValid() || next.Kind() != reflect.Pointer || next.IsNil() {
		return 0
	}
	return next.Elem().Int()
}

// holdsFrom tells whether a batch has a record at or after an offset.
func holdsFrom(batch *sarama.RecordBatch, offset int64) bool {
	return slices.ContainsFunc(batch.Records, func(r *sarama.Record) bool {
		return batch.FirstOffset+r.OffsetDelta >= offset
	})
}

// isAbort reads a control batch's only record: its key is a version and a
// type, 16 bits each; type 0 is an abort.
func isAbort(batch *sarama.RecordBatch) bool {
	return len(batch.Records) > 0 && len(batch.Records[0].Key) >= 4 && batch.Records[0].Key[2] == 0 && batch.Records[0].Key[3] == 0
}
