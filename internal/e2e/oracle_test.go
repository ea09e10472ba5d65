package e2e_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"forebay/internal/admin"
)

// oracle judges one gateway whose default sink gets all of some topics.
type oracle struct {
	t     *testing.T
	g     *gateway
	b     *broker
	truth *truth
	shelf *shelf
	// pruned: the retention is so short that old batches are listed no more.
	pruned bool
}

func newOracle(g *gateway, b *broker, topics ...string) *oracle {
	return &oracle{t: g.t, g: g, b: b, truth: b.truth(topics...), shelf: newShelf(g.files())}
}

// delivered waits until the running gateway has delivered all that Kafka has,
// and judges everything.
func (o *oracle) delivered(within time.Duration) {
	o.t.Helper()
	o.truth.update()
	o.complete(within)
	o.caughtUp(within)
	o.numbered()
	o.judge()
}

// complete waits until as many records are in the files as Kafka has.
func (o *oracle) complete(within time.Duration) {
	o.t.Helper()
	want := o.truth.got.count()
	await(o.t, fmt.Sprintf("%d records in the files", want), within, func() bool {
		o.g.alive()
		o.shelf.look(o.t)
		return o.shelf.got.count() >= want
	}, func() string { return fmt.Sprintf("%d are there", o.shelf.got.count()) },
		func() string { return lines(differences(o.sorted(), o.shelf.got)) }, o.g.show)
}

// judge compares the files with Kafka, and with themselves as they were.
func (o *oracle) judge() {
	o.t.Helper()
	o.shelf.look(o.t)
	same(o.t, "the files against Kafka", o.sorted(), o.shelf.got)
	o.shelf.unchanged(o.t)
}

func (o *oracle) sorted() ledger {
	o.truth.got.sort()
	return o.truth.got
}

// caughtUp waits until the log's next offsets and the group's committed ones
// are where the partitions end, transaction markers included.
func (o *oracle) caughtUp(within time.Duration) {
	o.t.Helper()
	ends := o.b.ends(o.truth.topics...)
	var behind []string
	await(o.t, "log and group to reach the ends", within, func() bool {
		behind = behind[:0]
		committed, next := o.offsets()
		for p, end := range ends {
			if next[p] != end || committed[p] != end && end > 0 {
				behind = append(behind, fmt.Sprintf("%v: next %d, committed %d, end %d", p, next[p], committed[p], end))
			}
		}
		return len(behind) == 0
	}, func() string { return lines(behind) }, o.g.show)
}

// offsets gives the group's committed and the log's next offsets, and fails the
// test when Kafka was told more than the log holds.
func (o *oracle) offsets() (committed, next map[place]int64) {
	o.t.Helper()
	committed = o.b.committed(o.g.settings.group) // first: the other may only have grown since
	next = map[place]int64{}
	for _, p := range o.g.lane().Partitions {
		next[place{p.Topic, p.Partition}] = p.Next
	}
	for p, at := range committed {
		if n, ok := next[p]; ok && n >= 0 && at > n {
			o.t.Errorf("%v: offset %d is committed to Kafka, the log holds only what is below %d", p, at, n)
		}
	}
	return committed, next
}

// numbered compares the files with the batches that the API lists: a file for
// each that has records, with as many lines, and no number left out.
func (o *oracle) numbered() {
	o.t.Helper()
	seq := uint64(0)
	for i, b := range o.batches() {
		if seq++; b.Seq != seq && (!o.pruned || i > 0) {
			o.t.Errorf("batch %d is missing: after %d comes %d", seq, seq-1, b.Seq)
		}
		seq = b.Seq
		book := o.shelf.books[b.Seq]
		switch {
		case book == nil && b.Records > 0 && b.Seq <= o.shelf.last:
			o.t.Errorf("batch %s has %d records and no file", b.ID, b.Records)
		case book != nil && book.records != b.Records:
			o.t.Errorf("batch %s has %d records, its file %d", b.ID, b.Records, book.records)
		}
	}
	if seq < o.shelf.last && (!o.pruned || seq > 0) {
		o.t.Errorf("the API knows of batches up to %d, files go up to %d", seq, o.shelf.last)
	}
}

// batches are all that the API lists, oldest first.
func (o *oracle) batches() []admin.Batch {
	o.t.Helper()
	var out []admin.Batch
	for before := uint64(0); ; {
		page, err := o.g.client.Batches(o.t.Context(), 0, before, 1000)
		if err != nil {
			o.t.Fatal(err)
		}
		out = append(out, page.Batches...)
		if page.Next == nil {
			break
		}
		before = *page.Next
	}
	slices.Reverse(out)
	return out
}

// acknowledged checks the oracle's own reading: all that producers were told is
// in Kafka was read, and nothing else. It is for topics that they alone write.
func (o *oracle) acknowledged(producers ...*producer) {
	o.t.Helper()
	for _, p := range producers {
		p.acked.sort()
		same(o.t, "what was read of Kafka against what was acknowledged", p.acked, o.sorted().part(p.topic))
	}
}

func lines(items []string) string {
	text := ""
	for _, item := range items {
		text += item + "\n"
	}
	return text
}
