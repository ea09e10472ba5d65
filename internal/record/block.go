package record

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

const (
	// TagBlock is the first byte of a log entry that is a whole block. The tags of
	// entries that carry no records are 0x10 and above.
	TagBlock = 0x01
	// TagPart is the first byte of a log entry that is a part of a block.
	TagPart = 0x02

	// MaxEntry bounds the data of a log entry, in bytes. A larger block
	// travels as parts.
	MaxEntry = 1 << 20
	// MaxBody bounds a block's decompressed body, and so a record, in bytes.
	MaxBody = 1 << 30
	// MaxOffset bounds offsets, so that no arithmetic on them overflows.
	MaxOffset = 1 << 62
	// MaxTopic bounds a topic's name, in bytes: Kafka's own limit.
	MaxTopic = 249
	// MaxHeaders bounds the headers of a record: a header takes 2 bytes of a body
	// and 48 of a reader's memory, and bytes that decompress a thousandfold are
	// cheap to make.
	MaxHeaders = 1 << 20

	blockVersion = 1
	// minSpan is the least that a span takes in a summary, minRecord a record in a body.
	minSpan, minRecord = 8, 5
	// maxBlock bounds a whole block: its summary and a body that is never larger than its records.
	maxBlock = MaxBody + MaxEntry
)

// Summary is what a block says of itself before its records.
type Summary struct {
	Spans []Span
	// Records and Bytes are the sums of the spans'.
	Records, Bytes int64
	// Part is the number of this part, from 0, of Parts; Parts is 0 for a whole block.
	Part, Parts int
}

// Sealer makes blocks of runs. It keeps its buffers. Not safe for concurrent use.
type Sealer struct {
	compressor *compressor
	body       []byte
	head       []byte
	runs       []*Run // that are not empty
	numbers    map[topicKey]int
	topics     []topicKey
	pieces     [][]byte
}

type topicKey struct {
	name string
	id   TopicID
}

// keepBuffer is the largest buffer, in bytes, that a Sealer or a Decoder keeps
// for the next block: one very large record does not cost its memory for ever.
const keepBuffer = 4 << 20

// NewSealer makes a Sealer that compresses with c what gains by it.
func NewSealer(c Compression) *Sealer {
	return &Sealer{compressor: newCompressor(c), numbers: map[topicKey]int{}}
}

// Seal encodes the runs that are not empty as one block, in their order, into a
// slice of its own and of its exact length. It is nil when all are empty. The runs
// are not changed; no two may be of the same partition, and together they hold at
// most MaxBody bytes.
func (s *Sealer) Seal(runs []*Run) []byte {
	length := 0
	s.runs = s.runs[:0]
	for _, r := range runs {
		if !r.Empty() {
			s.runs = append(s.runs, r)
			length += len(r.body)
		}
	}
	if len(s.runs) == 0 {
		return nil
	}
	if length > MaxBody {
		// A block that no reader takes must not get into the log.
		panic(fmt.Sprintf("record: runs of %d bytes in one block", length))
	}
	method, stored := None, []byte(nil)
	if s.compressor.method != None {
		method, stored = s.compressor.compress(s.joined())
	}
	head := append(s.head[:0], TagBlock, blockVersion, byte(method))
	head = s.appendSpans(head)
	head = binary.AppendUvarint(head, uint64(length))
	s.pieces = append(s.pieces[:0], head)
	if method != None {
		s.pieces = append(s.pieces, stored)
	} else {
		for _, r := range s.runs {
			s.pieces = append(s.pieces, r.body)
		}
	}
	s.head = head
	block := bytes.Join(s.pieces, nil) // one allocation, not cleared first
	s.release()
	return block
}

// joined gives the bodies of all runs as one.
func (s *Sealer) joined() []byte {
	if len(s.runs) == 1 {
		return s.runs[0].body
	}
	s.body = s.body[:0]
	for _, r := range s.runs {
		s.body = append(s.body, r.body...)
	}
	return s.body
}

// release lets go of the runs, and of buffers that one very large record made.
func (s *Sealer) release() {
	clear(s.runs)
	clear(s.pieces)
	clear(s.topics)
	clear(s.numbers)
	if cap(s.body) > keepBuffer {
		s.body = nil
	}
	if cap(s.compressor.out) > keepBuffer {
		s.compressor.out = nil
	}
}

func (s *Sealer) appendSpans(dst []byte) []byte {
	s.topics = s.topics[:0]
	for _, r := range s.runs {
		t := topicKey{r.span.Topic, r.span.TopicID}
		if _, ok := s.numbers[t]; !ok {
			s.numbers[t] = len(s.topics)
			s.topics = append(s.topics, t)
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.topics)))
	for i := range s.topics {
		t := &s.topics[i]
		dst = binary.AppendUvarint(dst, uint64(len(t.name)))
		dst = append(dst, t.name...)
		dst = append(dst, t.id[:]...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.runs)))
	for _, r := range s.runs {
		p := &r.span
		dst = binary.AppendUvarint(dst, uint64(s.numbers[topicKey{p.Topic, p.TopicID}]))
		dst = binary.AppendUvarint(dst, uint64(p.Partition))
		dst = binary.AppendUvarint(dst, uint64(p.Base))
		dst = binary.AppendUvarint(dst, uint64(p.First-p.Base))
		dst = binary.AppendUvarint(dst, uint64(p.Last-p.First))
		dst = binary.AppendUvarint(dst, uint64(p.Records))
		dst = binary.AppendUvarint(dst, uint64(p.Bytes))
		dst = binary.AppendUvarint(dst, uint64(len(r.body)))
	}
	return dst
}

// header is all of a block or part before its body.
type header struct {
	Summary
	method Compression
	// sizes are the encoded lengths of the spans' records, which add up to length.
	sizes  []int
	length int
	// summary is where the spans begin in the entry.
	summary int
	// Of a part only: where its block's length and checksum are kept.
	total    int64
	checksum uint32
}

// ParseSummary reads what a block or a part says of itself. It looks at no byte of
// the body, whose length costs nothing. Errors are *FormatError and ErrVersion.
func ParseSummary(entry []byte) (Summary, error) {
	h, w := parseHeader(entry)
	if w.err != nil {
		return Summary{}, w.err
	}
	return h.Summary, nil
}

// SummaryLength is how many of an entry's first bytes ParseSummary needs to say the same.
// Errors are those of ParseSummary.
func SummaryLength(entry []byte) (int, error) {
	_, w := parseHeader(entry)
	return w.at, w.err
}

// parseHeader reads up to the body, which is what is left of the wire.
func parseHeader(entry []byte) (h header, w wire) {
	// A summary stands within the first entry's worth of a block of any length:
	// counts are bounded by that, not by the body behind it.
	w.data = entry[:min(len(entry), MaxEntry)]
	tag, version := w.bytes(1, "tag"), w.bytes(1, "version")
	switch {
	case w.err != nil:
		return h, w
	case tag[0] != TagBlock && tag[0] != TagPart:
		w.err = &FormatError{What: "neither a block nor a part", Offset: 0}
		return h, w
	case version[0] != blockVersion:
		w.err = fmt.Errorf("%w %d of a block, this reads %d", ErrVersion, version[0], blockVersion)
		return h, w
	}
	if tag[0] == TagPart {
		h.parsePart(&w)
	} else if method := w.bytes(1, "compression"); w.err == nil {
		h.method = Compression(method[0])
		if h.method > Zstd {
			w.fail("unknown compression")
		}
	}
	h.summary = w.at
	h.parseSpans(&w)
	h.length = int(w.upTo(MaxBody, "body length"))
	sum := int64(0)
	for _, size := range h.sizes {
		sum += int64(size)
	}
	if w.err == nil && sum != int64(h.length) {
		w.fail("the spans do not add up to the body")
	}
	w.data = entry
	return h, w
}

func (h *header) parsePart(w *wire) {
	h.Parts = int(w.upTo(MaxBody, "number of parts"))
	h.Part = int(w.upTo(MaxBody, "part"))
	h.total = w.upTo(maxBlock, "length of the whole block")
	if sum := w.bytes(4, "checksum of the whole block"); sum != nil {
		h.checksum = binary.BigEndian.Uint32(sum)
	}
	if w.err == nil && (h.Parts < 2 || h.Part >= h.Parts) {
		w.fail("part number")
	}
}

func (h *header) parseSpans(w *wire) {
	n := w.count(1+len(TopicID{}), "number of topics")
	topics := make([]topicKey, n)
	for i := range topics {
		length := w.upTo(MaxTopic, "length of a topic's name")
		topics[i].name = string(w.bytes(int(length), "topic"))
		copy(topics[i].id[:], w.bytes(len(TopicID{}), "topic id"))
		if w.err != nil {
			return
		}
	}
	n = w.count(minSpan, "number of spans")
	if w.err == nil && n == 0 {
		w.fail("a block without records")
	}
	h.Spans, h.sizes = make([]Span, n), make([]int, n)
	for i := range h.Spans {
		number := w.uvarint("topic number")
		if number >= uint64(len(topics)) {
			w.fail("topic number")
			return
		}
		s := &h.Spans[i]
		s.Topic, s.TopicID = topics[number].name, topics[number].id
		s.Partition = int32(w.upTo(math.MaxInt32, "partition"))
		s.Base = w.upTo(MaxOffset, "base")
		s.First = s.Base + w.upTo(MaxOffset-s.Base, "first offset")
		s.Last = s.First + w.upTo(MaxOffset-s.First, "last offset")
		s.Records = w.upTo(MaxBody, "number of records")
		s.Bytes = w.upTo(MaxBody, "number of bytes")
		h.sizes[i] = int(w.upTo(MaxBody, "size of a span"))
		if w.err == nil && (s.Records == 0 || s.Last-s.First < s.Records-1) {
			w.fail("a span's records do not fit between its offsets")
		}
		if w.err == nil && (s.Records > int64(h.sizes[i])/minRecord || s.Bytes > int64(h.sizes[i])) {
			w.fail("a span's records do not fit into its size")
		}
		if w.err != nil {
			return
		}
		h.Records += s.Records
		h.Bytes += s.Bytes
	}
}
