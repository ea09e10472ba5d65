package e2e_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// place is one partition.
type place struct {
	topic     string
	partition int32
}

// entry is a record in a ledger: its offset, and a hash of all the rest of it.
type entry struct {
	offset int64
	sum    uint64
}

// ledger is a set of records in some 16 bytes each.
type ledger map[place][]entry

func (l ledger) add(p place, e entry) { l[p] = append(l[p], e) }

func (l ledger) count() int {
	n := 0
	for _, entries := range l {
		n += len(entries)
	}
	return n
}

func (l ledger) sort() {
	for _, entries := range l {
		slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.offset, b.offset) })
	}
}

// part is the ledger of some topics alone.
func (l ledger) part(topics ...string) ledger {
	out := ledger{}
	for p, entries := range l {
		if slices.Contains(topics, p.topic) {
			out[p] = entries
		}
	}
	return out
}

// hasher sums up records; nil and empty are not the same to it.
type hasher struct{ maphash.Hash }

// seed is the same for all hashers, so that their sums compare.
var seed = maphash.MakeSeed()

func newHasher() *hasher {
	h := &hasher{}
	h.SetSeed(seed)
	return h
}

func (h *hasher) number(n int64) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(n))
	_, _ = h.Write(b[:])
}

func (h *hasher) bytes(b []byte) {
	if b == nil {
		h.number(-1)
		return
	}
	h.number(int64(len(b)))
	_, _ = h.Write(b)
}

// record gives the sum of one record as a client has it.
func (h *hasher) record(r *kgo.Record) uint64 {
	h.Reset()
	h.number(r.Timestamp.UnixMilli())
	h.bytes(r.Key)
	h.bytes(r.Value)
	for _, header := range r.Headers {
		h.bytes([]byte(header.Key))
		h.bytes(header.Value)
	}
	return h.Sum64()
}

// differences lists how got differs from want, which is sorted: at most a few
// lines per partition.
func differences(want, got ledger) []string {
	var out []string
	for p, entries := range got {
		if len(want[p]) == 0 && len(entries) > 0 {
			out = append(out, fmt.Sprintf("%v: %d records of a partition that should have none", p, len(entries)))
		}
	}
	for p, entries := range want {
		if !slices.Equal(entries, got[p]) {
			out = append(out, placeDifferences(p, entries, got[p])...)
		}
	}
	slices.Sort(out)
	return out
}

func placeDifferences(p place, want, got []entry) []string {
	out := []string{fmt.Sprintf("%v: %d records, want %d", p, len(got), len(want))}
	said := map[string]int{}
	say := func(kind string, offset int64) {
		if said[kind]++; said[kind] <= 5 {
			out = append(out, fmt.Sprintf("%v: offset %d %s", p, offset, kind))
		}
	}
	wanted := make(map[int64]uint64, len(want))
	for _, e := range want {
		wanted[e.offset] = e.sum
	}
	seen := make(map[int64]bool, len(got))
	last := int64(-1)
	for _, e := range got {
		sum, ok := wanted[e.offset]
		switch {
		case seen[e.offset]:
			say("is there again", e.offset)
		case !ok:
			say("should not be there", e.offset)
		case sum != e.sum:
			say("has another content", e.offset)
		case e.offset < last:
			say("comes after a later one", e.offset)
		}
		seen[e.offset] = true
		last = max(last, e.offset)
	}
	for _, e := range want {
		if !seen[e.offset] {
			say("is missing", e.offset)
		}
	}
	for kind, n := range said {
		if n > 5 {
			out = append(out, fmt.Sprintf("%v: %d in all: %s", p, n, kind))
		}
	}
	return out
}

// same fails the test when got is not exactly want, in its order.
func same(t *testing.T, what string, want, got ledger) {
	t.Helper()
	if lines := differences(want, got); len(lines) > 0 {
		t.Errorf("%s:\n%s", what, strings.Join(lines, "\n"))
	}
}

func TestDifferencesAreFound(t *testing.T) {
	p := place{"t", 0}
	want := ledger{p: {{1, 10}, {2, 20}, {3, 30}}}
	for name, c := range map[string]struct {
		got  []entry
		says string // "" when nothing is wrong
	}{
		"the same":      {[]entry{{1, 10}, {2, 20}, {3, 30}}, ""},
		"missing":       {[]entry{{1, 10}, {3, 30}}, "offset 2 is missing"},
		"repeated":      {[]entry{{1, 10}, {2, 20}, {2, 20}, {3, 30}}, "offset 2 is there again"},
		"out of order":  {[]entry{{2, 20}, {1, 10}, {3, 30}}, "offset 1 comes after a later one"},
		"other content": {[]entry{{1, 10}, {2, 21}, {3, 30}}, "offset 2 has another content"},
		"too many":      {[]entry{{1, 10}, {2, 20}, {3, 30}, {4, 40}}, "offset 4 should not be there"},
		"nothing":       {nil, "offset 1 is missing"},
	} {
		said := strings.Join(differences(want, ledger{p: c.got}), "\n")
		if (c.says == "") != (said == "") || !strings.Contains(said, c.says) {
			t.Errorf("%s: says %q, want %q", name, said, c.says)
		}
	}
	if said := differences(ledger{}, want); len(said) != 1 {
		t.Errorf("a partition that should not be there gives %q", said)
	}
}

func TestNilIsNotEmpty(t *testing.T) {
	sums := map[uint64]string{}
	for name, r := range map[string]kgo.Record{
		"nil":                {},
		"empty key":          {Key: []byte{}},
		"empty value":        {Value: []byte{}},
		"nil header value":   {Headers: []kgo.RecordHeader{{Key: "h"}}},
		"empty header value": {Headers: []kgo.RecordHeader{{Key: "h", Value: []byte{}}}},
		"header twice":       {Headers: []kgo.RecordHeader{{Key: "h"}, {Key: "h"}}},
		"key":                {Key: []byte("a")},
		"value":              {Value: []byte("a")},
	} {
		sum := newHasher().record(&r)
		if other, ok := sums[sum]; ok {
			t.Errorf("%s and %s have the same sum", name, other)
		}
		sums[sum] = name
	}
}
