package replicate

import (
	"bytes"
	"testing"

	"forebay/internal/record"
)

// TestOffsetsThatComeAgainAreInABatchOfTheirOwn: a topic made again, or a partition
// that Kafka has truncated, gives the same offsets to other records. A refusal
// names a record by its offset: with both in one batch it would leave out both.
func TestOffsetsThatComeAgainAreInABatchOfTheirOwn(t *testing.T) {
	topicB := record.TopicID{2}
	for name, c := range map[string]struct {
		id     record.TopicID
		rewind func(t *testing.T, term *Term) error
	}{
		"topic made again": {topicB, func(t *testing.T, term *Term) error {
			t.Helper()
			return term.ReplaceTopic(t.Context(), record.TopicChange{Topic: "a", Old: topicA, New: topicB}, 0)
		}},
		"end lost": {topicA, func(t *testing.T, term *Term) error {
			t.Helper()
			return term.Advance(t.Context(), record.Advance{Topic: "a", TopicID: topicA, Base: 3, Next: 0, Reason: record.AdvanceTruncated})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			l := start(t, testConfig(t, t.TempDir(), newMemStore()))
			l.bases("a")
			l.addSink("files")
			l.mustAppend(values(t, topicA, "old-0", "old-1", "old-2"))
			if err := c.rewind(t, l.term); err != nil {
				t.Fatal(err)
			}
			l.mustAppend(values(t, c.id, "new-0", "new-1", "new-2"))
			l.cut()
			delivered := map[string]bool{}
			for seq := uint64(1); seq <= l.LastSeq(); seq++ {
				if seq == 1 {
					if err := l.term.Refuse(t.Context(), "files", seq, false, []record.Refusal{refusal(1)}); err != nil {
						t.Fatal(err)
					}
				}
				out := map[record.RecordID]bool{}
				for _, id := range l.term.Excluded("files", seq) {
					out[id] = true
				}
				err := l.ReadBatch(t.Context(), seq, nil, func(rec *record.Record) error {
					if !out[record.RecordID{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset}] {
						delivered[string(rec.Value)] = true
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				l.done("files", seq)
			}
			for _, ref := range l.Parked() {
				_, rec, err := l.ReadParked(t.Context(), ref.ID)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(rec.Value, []byte("old-1")) {
					t.Errorf("%q is parked", rec.Value)
				}
				delivered[string(rec.Value)] = true
			}
			for _, v := range []string{"old-0", "old-1", "old-2", "new-0", "new-1", "new-2"} {
				if !delivered[v] {
					t.Errorf("%s is neither delivered nor parked", v)
				}
			}
		})
	}
}

// TestRewindOfAnEmptyBatchCutsNothing: there is nothing to part.
func TestRewindOfAnEmptyBatchCutsNothing(t *testing.T) {
	l := start(t, testConfig(t, t.TempDir(), newMemStore()))
	l.bases("a")
	l.mustAppend(values(t, topicA, "x"))
	l.cut()
	if err := l.term.ReplaceTopic(t.Context(), record.TopicChange{Topic: "a", Old: topicA, New: record.TopicID{2}}, 0); err != nil {
		t.Fatal(err)
	}
	if last := l.LastSeq(); last != 1 {
		t.Errorf("batch %d was cut", last)
	}
}

// values makes a block of records of topic a from offset 0 on.
func values(t *testing.T, id record.TopicID, values ...string) []byte {
	t.Helper()
	var run record.Run
	run.Reset("a", id, 0, 0)
	for i, v := range values {
		if err := run.Append(&record.Record{Topic: "a", Offset: int64(i), Timestamp: 1, Value: []byte(v)}); err != nil {
			t.Fatal(err)
		}
	}
	return record.NewSealer(record.None).Seal([]*record.Run{&run})
}
