package record

// Decoder reads the records of blocks. It keeps its buffers from block to block.
// Not safe for concurrent use.
type Decoder struct {
	decompressor decompressor
	header       header
	want         func(topic string) bool
	body         []byte // of the block, decompressed
	buffer       []byte // owned, for body
	records      wire   // of the span being read
	span         int    // the next span
	start        int    // of the next span in body
	current      *Span
	seen, bytes  int64
	offset       int64
	timestamp    int64
	err          error
}

// Open begins a whole block. Spans of topics that want refuses are skipped, and
// where none is wanted nothing is decompressed; a nil want takes all. The
// block must not change until the next Open. Errors are *FormatError and ErrVersion.
func (d *Decoder) Open(block []byte, want func(topic string) bool) error {
	d.current, d.span, d.start, d.body = nil, 0, 0, nil
	if cap(d.buffer) > keepBuffer {
		d.buffer = nil
	}
	var stored wire
	d.header, stored = parseHeader(block)
	if d.err = stored.err; d.err == nil && d.header.Parts != 0 {
		d.err = &FormatError{What: "a part where a whole block is wanted"}
	}
	d.want = want
	if d.err != nil || !d.wantsAny() {
		d.span = len(d.header.Spans)
		return d.err
	}
	if d.header.method == None {
		d.body = stored.bytes(d.header.length, "body")
		if stored.left() > 0 {
			stored.fail("bytes behind the body")
		}
	} else {
		d.body = d.decompressor.decompress(d.buffer[:0], d.header.method, &stored, d.header.length)
		d.buffer = d.body
	}
	d.err = stored.err
	return d.err
}

func (d *Decoder) wantsAny() bool {
	for i := range d.header.Spans {
		if d.wanted(&d.header.Spans[i]) {
			return true
		}
	}
	return false
}

func (d *Decoder) wanted(s *Span) bool { return d.want == nil || d.want(s.Topic) }

// Next reads the next record into rec and tells whether there was one. Key, value
// and header bytes alias the decoder's memory until the next Open;
// rec.Headers is written over by the next call with the same rec. After an error
// every call returns it.
func (d *Decoder) Next(rec *Record) (bool, error) {
	for d.current == nil || d.seen == d.current.Records {
		if d.err != nil || !d.nextSpan() {
			return false, d.err
		}
	}
	d.read(rec)
	if d.err = d.records.err; d.err != nil {
		return false, d.err
	}
	return true, nil
}

// nextSpan checks the span that was read and begins the next wanted one.
func (d *Decoder) nextSpan() bool {
	if s := d.current; s != nil {
		if d.records.left() > 0 || d.offset != s.Last || d.bytes != s.Bytes {
			d.err = &FormatError{What: "the records do not agree with their span", Offset: d.records.at}
			return false
		}
		d.current = nil
	}
	for d.span < len(d.header.Spans) {
		s := &d.header.Spans[d.span]
		from := d.start
		d.start += d.header.sizes[d.span]
		d.span++
		if !d.wanted(s) {
			continue
		}
		d.current, d.records = s, wire{data: d.body[:d.start], at: from}
		d.seen, d.bytes, d.offset, d.timestamp = 0, 0, s.First, 0
		return true
	}
	return false
}

func (d *Decoder) read(rec *Record) {
	w, s := &d.records, d.current
	step := w.upTo(s.Last-d.offset, "offset")
	if (step == 0) != (d.seen == 0) {
		w.fail("offset")
	}
	d.offset += step
	d.timestamp += w.varint("timestamp")
	rec.Topic, rec.Partition, rec.Offset, rec.Timestamp = s.Topic, s.Partition, d.offset, d.timestamp
	rec.Key, rec.Value = w.nullable("key"), w.nullable("value")
	size := len(rec.Key) + len(rec.Value)
	rec.Headers = rec.Headers[:0]
	headers := w.count(2, "number of headers")
	if headers > MaxHeaders {
		w.fail("too many headers")
		return
	}
	for range headers {
		h := Header{Key: w.nullable("header key"), Value: w.nullable("header value")}
		if w.err != nil {
			return
		}
		size += len(h.Key) + len(h.Value)
		rec.Headers = append(rec.Headers, h)
	}
	d.bytes += int64(size)
	d.seen++
}
