package record_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/s2"
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

// chunk adds to the body, or begins it with, a chunk that says of itself what it likes.
func chunk(l *layout, compression record.Compression, raw int, data []byte) {
	if l.compression == 0 {
		l.compression, l.body = byte(compression), nil
	}
	l.body = binary.AppendUvarint(l.body, uint64(raw))
	l.body = binary.AppendUvarint(l.body, uint64(len(data)))
	l.body = append(l.body, data...)
}

// resize makes the summary agree with a body of another length.
func resize(l *layout, n int) { l.length, l.spans[0].size = uint64(n), uint64(n) }

// insert puts bytes into the body, and makes the summary agree.
func insert(l *layout, at int, b ...byte) {
	l.body = slices.Insert(l.body, at, b...)
	resize(l, len(l.body))
}

// hostileEntry says what is not so. It is a *FormatError, of ParseSummary already
// when inBody is false, and may not make a reader allocate for what it only says.
type hostileEntry struct {
	name   string
	entry  []byte
	inBody bool
}

func hostile() []hostileEntry {
	var entries []hostileEntry
	for i, cases := range []map[string]func(*layout){hostileSummaries(), hostileBodies(), hostileChunks()} {
		for _, name := range slices.Sorted(maps.Keys(cases)) {
			block, _ := crafted(cases[name])
			entries = append(entries, hostileEntry{name, block, i > 0})
		}
	}
	return entries
}

func hostileSummaries() map[string]func(*layout) {
	return map[string]func(*layout){
		"another tag":                func(l *layout) { l.tag = 0x10 },
		"unknown compression":        func(l *layout) { l.compression = 3 },
		"more topics than bytes":     func(l *layout) { l.topicCount = 1 << 40 },
		"no topic":                   func(l *layout) { l.topicCount, l.topics = 0, nil },
		"a topic's name too long":    func(l *layout) { l.topics[0] = strings.Repeat("t", record.MaxTopic+1) },
		"more spans than bytes":      func(l *layout) { l.spanCount = 1 << 40 },
		"a span more than there are": func(l *layout) { l.spanCount = 2 },
		"no span":                    func(l *layout) { l.spanCount, l.spans, l.length, l.body = 0, nil, 0, nil },
		"another topic":              func(l *layout) { l.spans[0].topic = 1 },
		"a partition beyond int32":   func(l *layout) { l.spans[0].partition = 1 << 31 },
		"a base beyond int64":        func(l *layout) { l.spans[0].base = 1 << 63 },
		"first overflows":            func(l *layout) { l.spans[0].first = 1<<64 - 1 },
		"last overflows":             func(l *layout) { l.spans[0].last = record.MaxOffset - 40 },
		"no records":                 func(l *layout) { l.spans[0].records = 0 },
		"more records than offsets":  func(l *layout) { l.spans[0].last, l.spans[0].records = 1, 3 },
		"more records than bytes":    func(l *layout) { l.spans[0].records, l.spans[0].last = 4, 1000 },
		"more bytes than its size":   func(l *layout) { l.spans[0].bytes = 18 },
		"a size beyond the body":     func(l *layout) { l.spans[0].size = record.MaxBody },
		"a body beyond the spans":    func(l *layout) { l.length++ },
		"a body too large":           func(l *layout) { resize(l, record.MaxBody+1) },
	}
}

func hostileBodies() map[string]func(*layout) {
	return map[string]func(*layout){
		"a body cut short":          func(l *layout) { l.body = l.body[:len(l.body)-1] },
		"a body that is not there":  func(l *layout) { resize(l, record.MaxBody) },
		"bytes behind the body":     func(l *layout) { l.body = append(l.body, 0) },
		"one record fewer":          func(l *layout) { l.spans[0].records = 1 },
		"bytes behind the records":  func(l *layout) { l.spans[0].records, l.spans[0].last, l.spans[0].bytes = 1, 0, 3 },
		"one record more":           func(l *layout) { l.spans[0].records = 3 },
		"last is later":             func(l *layout) { l.spans[0].last = 3 },
		"last is earlier":           func(l *layout) { l.spans[0].last = 1 },
		"fewer bytes":               func(l *layout) { l.spans[0].bytes = 3 },
		"more bytes":                func(l *layout) { l.spans[0].bytes = 5 },
		"first is later":            func(l *layout) { l.body[0], l.body[9] = 1, 1 },
		"an offset twice":           func(l *layout) { l.spans[0].records = 3; insert(l, 9, 0, 0, 0, 0, 0) },
		"a key beyond the span":     func(l *layout) { l.body[3] = 0x7f },
		"a key beyond everything":   func(l *layout) { insert(l, 3, append(bytes.Repeat([]byte{0xff}, 9), 1)...) },
		"headers beyond the span":   func(l *layout) { l.body[13] = 0x7f },
		"a number without end":      func(l *layout) { copy(l.body, bytes.Repeat([]byte{0xff}, 11)) },
		"a timestamp beyond 64 bit": func(l *layout) { insert(l, 1, bytes.Repeat([]byte{0xff}, 10)...) },
	}
}

func hostileChunks() map[string]func(*layout) {
	compressor, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<17))
	if err != nil {
		panic(err)
	}
	const mib = 1 << 20
	zeros := make([]byte, 64*mib)
	genuine := s2.Encode(nil, plain().body)
	return map[string]func(*layout){
		"s2 of another length":  func(l *layout) { resize(l, 100); chunk(l, record.S2, 100, []byte{99, 0}) },
		"s2 of 4 GiB":           func(l *layout) { resize(l, mib); chunk(l, record.S2, mib, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0}) },
		"s2 that is none":       func(l *layout) { resize(l, mib); chunk(l, record.S2, mib, []byte{0x80, 0x80, 0x40, 0xff}) },
		"s2 larger than chunks": func(l *layout) { resize(l, len(zeros)); chunk(l, record.S2, len(zeros), s2.Encode(nil, zeros)) },
		"s2 larger than left":   func(l *layout) { resize(l, 1<<10); chunk(l, record.S2, 1<<11, s2.Encode(nil, zeros[:1<<11])) },
		"an empty chunk first":  func(l *layout) { n := len(l.body); chunk(l, record.S2, 0, []byte{0}); chunk(l, record.S2, n, genuine) },
		"bytes behind the chunks": func(l *layout) {
			chunk(l, record.S2, len(l.body), genuine)
			l.body = append(l.body, 0)
		},
		"no chunk of 1 GiB":         func(l *layout) { resize(l, record.MaxBody); l.compression, l.body = byte(record.S2), nil },
		"zstd that is none":         func(l *layout) { resize(l, mib); chunk(l, record.Zstd, mib, []byte("not zstd")) },
		"zstd of more than it says": func(l *layout) { resize(l, mib); chunk(l, record.Zstd, mib, compressor.EncodeAll(zeros, nil)) },
		"zstd of a few more":        func(l *layout) { resize(l, 99); chunk(l, record.Zstd, 99, compressor.EncodeAll(zeros[:100], nil)) },
		"zstd of less than it says": func(l *layout) { resize(l, mib); chunk(l, record.Zstd, mib, compressor.EncodeAll(zeros[:9], nil)) },
		"zstd, many frames": func(l *layout) {
			frame := compressor.EncodeAll(zeros[:mib], nil)
			resize(l, mib)
			chunk(l, record.Zstd, mib, bytes.Repeat(frame, 64))
		},
		"zstd frame of 1 GiB": func(l *layout) {
			resize(l, mib)
			chunk(l, record.Zstd, mib, []byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x40, 1, 0, 0})
		},
		"one chunk of 1 GiB": func(l *layout) {
			resize(l, record.MaxBody)
			chunk(l, record.Zstd, mib, compressor.EncodeAll(zeros[:mib], nil))
		},
	}
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
			if _, err := record.ParseSummary(h.entry); (err == nil) != h.inBody {
				t.Errorf("ParseSummary: %v", err)
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

func TestVersionIsNamed(t *testing.T) {
	block, _ := crafted(func(l *layout) { l.version = 9 })
	_, err := record.ParseSummary(block)
	if want := "unknown format version 9"; !errors.Is(err, record.ErrVersion) || !strings.HasPrefix(fmt.Sprint(err), want) {
		t.Errorf("got %v, want %s…", err, want)
	}
}
