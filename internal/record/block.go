package record

import "encoding/binary"

const (
	// TagBlock and TagPart are the first bytes of log entries that carry
	// records. The tags of all other entries are 0x10 and above.
	TagBlock = 0x01
	TagPart  = 0x02

	// MaxEntry bounds the data of a log entry, in bytes. A larger block
	// travels as parts.
	MaxEntry = 1 << 20
	// MaxBody bounds a block's decompressed body, and so a record.
	MaxBody = 1 << 30

	blockVersion = 1
	// minSpan is the least that a span takes in a summary.
	minSpan = 8
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
}

// NewSealer makes a Sealer that compresses with c what gains by it.
func NewSealer(c Compression) *Sealer { return &Sealer{compressor: newCompressor(c)} }

// Seal encodes the runs that are not empty as one block, in their order, into a
// slice of its own. It is nil when all are empty. The runs are not changed.
func (s *Sealer) Seal(runs []*Run) []byte {
	s.body = s.body[:0]
	var filled []*Run
	for _, r := range runs {
		if !r.Empty() {
			filled = append(filled, r)
			s.body = append(s.body, r.body...)
		}
	}
	if len(filled) == 0 {
		return nil
	}
	method, stored := s.compressor.compress(s.body)
	head := append(s.head[:0], TagBlock, blockVersion, byte(method))
	head = appendSpans(head, filled)
	head = binary.AppendUvarint(head, uint64(len(s.body)))
	s.head = head
	block := make([]byte, 0, len(head)+len(stored))
	s.release()
	return append(append(block, head...), stored...)
}

// release lets go of buffers that one very large record made.
func (s *Sealer) release() {
	if cap(s.body) > 4*MaxEntry {
		s.body, s.compressor.out = nil, nil
	}
}

func appendSpans(dst []byte, runs []*Run) []byte {
	type topic struct {
		name string
		id   TopicID
	}
	numbers := map[topic]int{}
	var topics []topic
	for _, r := range runs {
		t := topic{r.span.Topic, r.span.TopicID}
		if _, ok := numbers[t]; !ok {
			numbers[t] = len(topics)
			topics = append(topics, t)
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(topics)))
	for _, t := range topics {
		dst = binary.AppendUvarint(dst, uint64(len(t.name)))
		dst = append(dst, t.name...)
		dst = append(dst, t.id[:]...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(runs)))
	for _, r := range runs {
		s := &r.span
		dst = binary.AppendUvarint(dst, uint64(numbers[topic{s.Topic, s.TopicID}]))
		dst = binary.AppendUvarint(dst, uint64(s.Partition))
		dst = binary.AppendUvarint(dst, uint64(s.Base))
		dst = binary.AppendUvarint(dst, uint64(s.First-s.Base))
		dst = binary.AppendUvarint(dst, uint64(s.Last-s.First))
		dst = binary.AppendUvarint(dst, uint64(s.Records))
		dst = binary.AppendUvarint(dst, uint64(s.Bytes))
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
	// Of a part only: where its block's length and checksum are kept.
	total    int64
	checksum uint32
}

// ParseSummary reads what a block or a part says of itself, without its body.
func ParseSummary(entry []byte) (Summary, error) {
	h, _, err := parseHeader(entry)
	return h.Summary, err
}

// parseHeader reads up to the body, which is what is left of the wire.
func parseHeader(entry []byte) (header, *wire, error) {
	w := &wire{data: entry}
	h := header{}
	tag, version := w.bytes(1, "tag"), w.bytes(1, "version")
	if w.err != nil {
		return h, w, w.err
	}
	if tag[0] != TagBlock && tag[0] != TagPart {
		return h, w, &FormatError{What: "neither a block nor a part", Offset: 0}
	}
	if version[0] != blockVersion {
		return h, w, ErrVersion
	}
	if tag[0] == TagPart {
		h.parsePart(w)
	} else if method := w.bytes(1, "compression"); w.err == nil {
		h.method = Compression(method[0])
		if h.method > Zstd {
			w.fail("unknown compression")
		}
	}
	h.parseSpans(w)
	h.length = int(w.upTo(MaxBody, "body length"))
	sum := 0
	for _, size := range h.sizes {
		sum += size
	}
	if w.err == nil && sum != h.length {
		w.fail("the spans do not add up to the body")
	}
	return h, w, w.err
}

func (h *header) parsePart(w *wire) {
	h.Parts = int(w.upTo(MaxBody, "number of parts"))
	h.Part = int(w.upTo(MaxBody, "part"))
	h.total = w.upTo(2*MaxBody, "length of the whole block")
	if sum := w.bytes(4, "checksum of the whole block"); sum != nil {
		h.checksum = binary.BigEndian.Uint32(sum)
	}
	if w.err == nil && (h.Parts < 2 || h.Part >= h.Parts) {
		w.fail("part number")
	}
}

func (h *header) parseSpans(w *wire) {
	type topic struct {
		name string
		id   TopicID
	}
	topics := make([]topic, 0, w.count(1+len(TopicID{}), "number of topics"))
	for range cap(topics) {
		t := topic{name: string(w.bytes(w.count(1, "length of a topic's name"), "topic"))}
		copy(t.id[:], w.bytes(len(t.id), "topic id"))
		topics = append(topics, t)
	}
	n := w.count(minSpan, "number of spans")
	if w.err == nil && n == 0 {
		w.fail("a block without records")
	}
	h.Spans, h.sizes = make([]Span, 0, n), make([]int, 0, n)
	for range n {
		number := w.uvarint("topic number")
		if w.err != nil || number >= uint64(len(topics)) {
			w.fail("topic number")
			return
		}
		s := Span{Topic: topics[number].name, TopicID: topics[number].id}
		s.Partition = int32(w.upTo(1<<31-1, "partition"))
		s.Base = w.upTo(1<<62, "base")
		s.First = s.Base + w.upTo(1<<62-s.Base, "first offset")
		s.Last = s.First + w.upTo(1<<62-s.First, "last offset")
		s.Records = w.upTo(MaxBody, "number of records")
		s.Bytes = w.upTo(MaxBody, "number of bytes")
		h.sizes = append(h.sizes, int(w.upTo(MaxBody, "size of a span")))
		if w.err == nil && (s.Records == 0 || s.Last-s.First < s.Records-1) {
			w.fail("a span's records do not fit between its offsets")
		}
		h.Spans = append(h.Spans, s)
		h.Records += s.Records
		h.Bytes += s.Bytes
	}
}
