package record_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"forebay/internal/record"
)

// span is a span as bytes have it, whether it makes sense or not.
type span struct {
	topic, partition, base, first, last, records, bytes, size uint64
}

// layout is a block before it is bytes, written by hand from DESIGN.md and not by
// the encoder under test.
type layout struct {
	tag, version, compression byte
	topics                    []string
	topicCount, spanCount     uint64
	spans                     []span
	length                    uint64
	body                      []byte
}

// plain is two records of "t"/3 at 41 and 43, continuing from 40.
func plain() layout {
	body := []byte{
		0, 0xd0, 0x0f, 2, 'k', 3, 'v', 'v', 0, // +0, +1000 ms, "k", "vv", no headers
		2, 1, 0, 1, 1, 2, 'h', 0, // +2, -1 ms, nil, empty, one header "h" without a value
	}
	return layout{
		tag: record.TagBlock, version: 1, topics: []string{"t"}, topicCount: 1, spanCount: 1,
		spans:  []span{{partition: 3, base: 40, first: 1, last: 2, records: 2, bytes: 4, size: uint64(len(body))}},
		length: uint64(len(body)), body: body,
	}
}

// crafted gives the bytes of plain after a change, and the length of its summary.
func crafted(change func(*layout)) (block []byte, summary int) {
	l := plain()
	if change != nil {
		change(&l)
	}
	b := []byte{l.tag, l.version, l.compression}
	b = binary.AppendUvarint(b, l.topicCount)
	for _, topic := range l.topics {
		b = binary.AppendUvarint(b, uint64(len(topic)))
		b = append(b, topic...)
		b = append(b, "0123456789abcdef"...)
	}
	b = binary.AppendUvarint(b, l.spanCount)
	for _, s := range l.spans {
		for _, n := range []uint64{s.topic, s.partition, s.base, s.first, s.last, s.records, s.bytes, s.size} {
			b = binary.AppendUvarint(b, n)
		}
	}
	b = binary.AppendUvarint(b, l.length)
	return append(b, l.body...), len(b) - 3
}

// chunked makes the body one chunk that says of itself what it likes.
func chunked(l *layout, compression record.Compression, raw uint64, chunk []byte) {
	l.compression = byte(compression)
	l.body = binary.AppendUvarint(nil, raw)
	l.body = binary.AppendUvarint(l.body, uint64(len(chunk)))
	l.body = append(l.body, chunk...)
}

// resize makes the summary agree with a body of another length.
func resize(l *layout, n int) { l.length, l.spans[0].size = uint64(n), uint64(n) }

type hostileEntry struct {
	name  string
	entry []byte
}

// hostile are entries that say what is not so. Each is a *FormatError, and none may
// make a reader allocate for what it only says.
func hostile() []hostileEntry {
	compressor, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		panic(err)
	}
	bomb := compressor.EncodeAll(make([]byte, 64<<20), nil)
	cases := map[string]func(*layout){
		"another tag":                func(l *layout) { l.tag = 0x10 },
		"unknown compression":        func(l *layout) { l.compression = 3 },
		"more topics than bytes":     func(l *layout) { l.topicCount = 1 << 40 },
		"no topic":                   func(l *layout) { l.topicCount, l.topics = 0, nil },
		"a topic's name too long":    func(l *layout) { l.topics[0] = strings.Repeat("t", record.MaxTopic+1) },
		"more spans than bytes":      func(l *layout) { l.spanCount = 1 << 40 },
		"a span more than there are": func(l *layout) { l.spanCount = 2 },
		"no span":                    func(l *layout) { l.spanCount, l.spans = 0, nil; l.length = 0; l.body = nil },
		"another topic":              func(l *layout) { l.spans[0].topic = 1 },
		"a partition beyond int32":   func(l *layout) { l.spans[0].partition = 1 << 31 },
		"a base beyond int64":        func(l *layout) { l.spans[0].base = 1 << 63 },
		"first overflows":            func(l *layout) { l.spans[0].first = 1<<64 - 1 },
		"last overflows":             func(l *layout) { l.spans[0].last = record.MaxOffset - 40 },
		"no records":                 func(l *layout) { l.spans[0].records = 0 },
		"more records than offsets":  func(l *layout) { l.spans[0].records = 4 },
		"more records than bytes":    func(l *layout) { l.spans[0].records, l.spans[0].last = 4, 1000 },
		"more bytes than its size":   func(l *layout) { l.spans[0].bytes = 18 },
		"a size beyond the body":     func(l *layout) { l.spans[0].size = record.MaxBody },
		"a body beyond the spans":    func(l *layout) { l.length++ },
		"a body too large":           func(l *layout) { resize(l, record.MaxBody+1) },
		"a body cut short":           func(l *layout) { l.body = l.body[:len(l.body)-1] },
		"a body that is not there":   func(l *layout) { resize(l, record.MaxBody) },
		"bytes behind the body":      func(l *layout) { l.body = append(l.body, 0) },
		"one record fewer":           func(l *layout) { l.spans[0].records = 1 },
		"one record more":            func(l *layout) { l.spans[0].records = 3 },
		"last is later":              func(l *layout) { l.spans[0].last = 3 },
		"last is earlier":            func(l *layout) { l.spans[0].last = 1 },
		"fewer bytes":                func(l *layout) { l.spans[0].bytes = 3 },
		"more bytes":                 func(l *layout) { l.spans[0].bytes = 5 },
		"the first record elsewhere": func(l *layout) { l.body[0] = 1 },
		"an offset twice":            func(l *layout) { l.body[9] = 0 },
		"a key beyond the span":      func(l *layout) { l.body[3] = 0x7f },
		"a key beyond everything": func(l *layout) {
			l.body = slices.Concat(l.body[:3], bytes.Repeat([]byte{0xff}, 9), []byte{1}, l.body[3:])
			resize(l, len(l.body))
		},
		"headers beyond the span": func(l *layout) { l.body[13] = 0x7f },
		"an endless number":       func(l *layout) { copy(l.body, bytes.Repeat([]byte{0xff}, 11)) },
		"s2 of another length":    func(l *layout) { resize(l, 100); chunked(l, record.S2, 100, []byte{99, 0}) },
		"s2 of 4 GiB": func(l *layout) {
			resize(l, 1<<20)
			chunked(l, record.S2, 1<<20, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0})
		},
		"s2 that is none":           func(l *layout) { resize(l, 1<<20); chunked(l, record.S2, 1<<20, []byte{0x80, 0x80, 0x40, 0xff}) },
		"zstd that is none":         func(l *layout) { resize(l, 1<<20); chunked(l, record.Zstd, 1<<20, []byte("not zstd")) },
		"zstd of more than it says": func(l *layout) { resize(l, 1<<20); chunked(l, record.Zstd, 1<<20, bomb) },
		"zstd of less than it says": func(l *layout) {
			resize(l, 1<<20)
			chunked(l, record.Zstd, 1<<20, compressor.EncodeAll([]byte("less"), nil))
		},
		"zstd of 1 GiB, says a frame": func(l *layout) {
			resize(l, 1<<20)
			chunked(l, record.Zstd, 1<<20, []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x40, 1, 0, 0})
		},
		"a chunk larger than chunks": func(l *layout) { resize(l, 2<<20); chunked(l, record.Zstd, 2<<20, bomb) },
		"a chunk larger than left":   func(l *layout) { resize(l, 1<<10); chunked(l, record.S2, 1<<11, []byte{0}) },
		"an empty chunk":             func(l *layout) { resize(l, 1<<10); chunked(l, record.S2, 0, []byte{0}) },
		"no chunk of 1 GiB":          func(l *layout) { resize(l, record.MaxBody); l.compression, l.body = byte(record.S2), nil },
		"one chunk of 1 GiB": func(l *layout) {
			resize(l, record.MaxBody)
			chunked(l, record.Zstd, 1<<20, compressor.EncodeAll(make([]byte, 1<<20), nil))
		},
	}
	var entries []hostileEntry
	for name, change := range cases {
		block, _ := crafted(change)
		entries = append(entries, hostileEntry{name, block})
	}
	slices.SortFunc(entries, func(a, b hostileEntry) int { return strings.Compare(a.name, b.name) })
	return entries
}

func TestBytesAsDrawn(t *testing.T) {
	block, _ := crafted(nil)
	want := []record.Record{
		{Topic: "t", Partition: 3, Offset: 41, Timestamp: 1000, Key: []byte("k"), Value: []byte("vv")},
		{Topic: "t", Partition: 3, Offset: 43, Timestamp: 999, Value: []byte{}, Headers: []record.Header{{Key: []byte("h")}}},
	}
	got, err := decode(block, nil)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Fatalf("%v (-want +got):\n%s", err, diff)
	}
	var id record.TopicID
	copy(id[:], "0123456789abcdef")
	var run record.Run
	run.Reset("t", id, 3, 40)
	for i := range want {
		if err := run.Append(&want[i]); err != nil {
			t.Fatal(err)
		}
	}
	if sealed := record.NewSealer(record.S2).Seal([]*record.Run{&run}); !bytes.Equal(sealed, block) {
		t.Errorf("sealed %x\n want %x", sealed, block)
	}
}

// What a reader may allocate for an entry of a few hundred bytes: one chunk, and
// the decompressor's own tables.
const mostForHostile = 6 << 20

func TestHostileEntries(t *testing.T) {
	for _, h := range hostile() {
		t.Run(h.name, func(t *testing.T) {
			var err error
			if got := allocated(func() { _, err = decode(h.entry, nil) }); got > mostForHostile {
				t.Errorf("%d bytes made it allocate %d", len(h.entry), got)
			}
			var format *record.FormatError
			if !errors.As(err, &format) {
				t.Fatalf("got %v, want a *FormatError", err)
			}
			if format.What == "" || format.Offset < 0 {
				t.Errorf("it does not say what and where: %+v", format)
			}
			if _, _, err := new(record.Joiner).Add(h.entry); !errors.As(err, &format) {
				t.Errorf("Joiner: got %v, want a *FormatError", err)
			}
		})
	}
}

func TestEveryPrefixIsRefused(t *testing.T) {
	for i, block := range golden(t) {
		for n := range block {
			records, err := decode(block[:n], nil)
			var format *record.FormatError
			if !errors.As(err, &format) {
				t.Fatalf("%s cut to %d of %d bytes: %d records, %v", methods[i], n, len(block), len(records), err)
			}
		}
	}
}

func TestOneBadBitNeverPanics(t *testing.T) {
	for _, block := range golden(t) {
		for i := range 8 * len(block) {
			bad := bytes.Clone(block)
			bad[i/8] ^= 1 << (i % 8)
			_, err := decode(bad, nil)
			typed(t, err)
		}
	}
}

func TestErrorsSayWhereInTheBody(t *testing.T) {
	// The fault lies in the second span: its place counts from the start of the body.
	first, second := new(record.Run), new(record.Run)
	first.Reset("a", record.TopicID{}, 0, 0)
	second.Reset("b", record.TopicID{}, 0, 0)
	for _, run := range []*record.Run{first, second} {
		if err := run.Append(&record.Record{Value: make([]byte, 100)}); err != nil {
			t.Fatal(err)
		}
	}
	block := record.NewSealer(record.None).Seal([]*record.Run{first, second})
	block[len(block)-second.Size()] = 1 // the offset of the first record
	_, err := decode(block, nil)
	var format *record.FormatError
	if !errors.As(err, &format) || format.Offset < first.Size() || format.Offset > first.Size()+2 {
		t.Errorf("got %v, want it at byte %d of the body", err, first.Size())
	}
}

func TestHostileParts(t *testing.T) {
	block, summary := crafted(nil)
	other, _ := crafted(func(l *layout) { l.spans[0].base, l.spans[0].first = 39, 2 }) // same offsets, another base
	parts, others := smallParts(t, block, summary, len(block)/2+1), smallParts(t, other, summary, len(block)/2+1)
	// A part with the right checksum, and the summary of another block.
	lying := func(i int) []byte {
		p := bytes.Clone(parts[i])
		at := bytes.Index(p, block[3:3+summary])
		copy(p[at:], other[3:3+summary])
		return p
	}
	// The parts agree among themselves, and the block does not.
	head := len(parts[0]) - len(block)/2 - 1
	bare := func(i int) []byte { return parts[i][:head] }
	for name, c := range map[string]struct {
		parts  [][]byte
		format bool
	}{
		"the last part lies":           {parts: [][]byte{parts[0], lying(1)}},
		"all parts lie":                {parts: [][]byte{lying(0), lying(1)}},
		"of a block with another base": {parts: [][]byte{parts[0], others[1]}},
		"more than the whole":          {parts: [][]byte{parts[0], append(bytes.Clone(parts[1]), 0)}},
		"less than the whole":          {parts: [][]byte{parts[0], parts[1][:len(parts[1])-1]}},
		"a part without a piece":       {parts: [][]byte{parts[0], bare(1)}, format: true},
		"a whole block":                {parts: [][]byte{parts[0], block}, format: true},
		"cut in its summary":           {parts: [][]byte{parts[0], parts[1][:20]}, format: true},
	} {
		t.Run(name, func(t *testing.T) {
			var j record.Joiner
			if _, done, err := j.Add(c.parts[0]); done || err != nil {
				t.Fatalf("the first part: %v, %v", done, err)
			}
			_, done, err := j.Add(c.parts[1])
			var format *record.FormatError
			if done || errors.As(err, &format) != c.format || errors.Is(err, record.ErrParts) == c.format {
				t.Fatalf("got %v, %v", done, err)
			}
			for i, part := range parts {
				if _, done, err := j.Add(part); err != nil || done != (i == 1) {
					t.Fatalf("the Joiner is not as new: %v, %v", done, err)
				}
			}
		})
	}
}

func TestAPartPromisingAGibibyte(t *testing.T) {
	block, summary := crafted(nil)
	part := []byte{record.TagPart, 1}
	part = binary.AppendUvarint(part, 1<<30)
	part = binary.AppendUvarint(part, 0)
	part = binary.AppendUvarint(part, 1<<30)
	part = append(part, 0, 0, 0, 0)
	part = append(append(part, block[3:3+summary]...), 1)
	var j record.Joiner
	var err error
	if got := allocated(func() { _, _, err = j.Add(part) }); got > 64<<10 || err != nil {
		t.Errorf("%d bytes made it allocate %d, %v", len(part), got, err)
	}
}

func TestVersionIsNamed(t *testing.T) {
	block, _ := crafted(func(l *layout) { l.version = 9 })
	_, err := record.ParseSummary(block)
	if want := "unknown format version 9"; !errors.Is(err, record.ErrVersion) || !strings.HasPrefix(fmt.Sprint(err), want) {
		t.Errorf("got %v, want %s…", err, want)
	}
}
