package wal

import (
	"errors"
	"fmt"
	"io"
)

// scanWindow is how much a full scan reads at a time; hopWindow is for one that
// looks at headers only.
const (
	scanWindow = 1 << 20
	hopWindow  = 16 << 10
)

// flaw is where a segment stops making sense, and how.
type flaw struct {
	offset          int64
	index           uint64
	expected, found string
	err             error // of the system, when the bytes could not be read
}

// scanner walks over the frames of one segment. What it returns aliases its
// buffer until the next call.
type scanner struct {
	r        io.ReaderAt
	size     int64
	hop      bool   // look at headers only: bodies are neither read nor checked
	off      int64  // of the next frame, its length prefix
	next     uint64 // index that the next frame must have
	term     uint64 // of the last frame; terms do not fall
	chain    uint32
	buf      []byte
	bufStart int64
}

func newScanner(r io.ReaderAt, size int64, first uint64) *scanner {
	return &scanner{r: r, size: size, next: first}
}

// window returns the bytes at off, n of them, or fewer at the end of the segment.
func (s *scanner) window(off int64, n int) ([]byte, error) {
	if rest := s.size - off; int64(n) > rest {
		n = int(max(rest, 0))
	}
	if off >= s.bufStart && off+int64(n) <= s.bufStart+int64(len(s.buf)) {
		return s.buf[off-s.bufStart:][:n], nil
	}
	want := scanWindow
	if s.hop {
		want = hopWindow
	}
	want = int(min(int64(max(want, n)), s.size-off))
	// What is here of the window already, the beginning of a frame mostly, is not read again.
	kept := 0
	if have := s.bufStart + int64(len(s.buf)) - off; off >= s.bufStart && have > 0 {
		kept = int(have)
	}
	old := s.buf[len(s.buf)-kept:]
	if cap(s.buf) < want {
		s.buf = make([]byte, want)
	}
	copy(s.buf[:want], old)
	s.buf, s.bufStart = s.buf[:want], off
	got, err := s.r.ReadAt(s.buf[kept:], off+int64(kept))
	if got += kept; got < want {
		s.buf = s.buf[:got]
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
	}
	return s.buf[:min(n, got)], nil
}

// done tells that the segment was walked to its end.
func (s *scanner) done() bool { return s.off >= s.size }

// frame decodes the frame at s.off and moves past it. The body is nil when hopping.
func (s *scanner) frame() (header, []byte, *flaw) {
	head, err := s.window(s.off, uvarintLen(headerSize+MaxEntry)+headerSize)
	if err != nil {
		return header{}, nil, s.unreadable(err)
	}
	length, n, err := decodePrefix(head)
	if err != nil {
		return header{}, nil, s.bad(s.off, err)
	}
	h, err := decodeHeader(head[n:])
	if err != nil {
		return header{}, nil, s.bad(s.off+int64(n), err)
	}
	if length != headerSize+h.bodyLen() {
		return header{}, nil, s.bad(s.off, &frameError{
			fmt.Sprintf("length %d", headerSize+h.bodyLen()), fmt.Sprintf("length %d", length),
		})
	}
	if h.index != s.next {
		return header{}, nil, s.bad(s.off, &frameError{fmt.Sprintf("entry %d", s.next), fmt.Sprintf("entry %d", h.index)})
	}
	if h.term < s.term {
		return header{}, nil, s.bad(s.off, &frameError{fmt.Sprintf("a term from %d on", s.term), fmt.Sprintf("term %d", h.term)})
	}
	end := s.off + int64(n+length)
	if end > s.size {
		return header{}, nil, s.bad(s.off, &frameError{fmt.Sprintf("a frame up to byte %d", end), fmt.Sprintf("the end of the file at byte %d", s.size)})
	}
	var body []byte
	if !s.hop {
		whole, err := s.window(s.off, n+length)
		if err != nil {
			return header{}, nil, s.unreadable(err)
		}
		body = whole[min(n+headerSize, len(whole)):]
		if err := h.checkBody(body); err != nil {
			return header{}, nil, s.bad(s.off+int64(n+headerSize), err)
		}
	}
	s.off, s.next, s.term, s.chain = end, h.index+1, h.term, chainOn(s.chain, h.crc)
	return h, body, nil
}

func (s *scanner) bad(off int64, err error) *flaw {
	f := &flaw{offset: off, index: s.next, expected: "a whole frame", found: err.Error()}
	var fe *frameError
	if errors.As(err, &fe) {
		f.expected, f.found = fe.expected, fe.found
	}
	return f
}

func (s *scanner) unreadable(err error) *flaw {
	return &flaw{offset: s.off, index: s.next, expected: "readable bytes", found: err.Error(), err: err}
}

// resync looks behind s.off for the next frame whose header is whole and whose
// index is one that may follow; it returns it and its offset, and leaves s at
// that frame. It skips what cannot be read.
func (s *scanner) resync() (header, int64, bool) {
	for from := s.off + 1; from < s.size; {
		b, err := s.window(from, scanWindow)
		if err != nil || len(b) == 0 {
			from += 4096
			continue
		}
		i := findMagic(b)
		if i < 0 {
			from += int64(max(len(b)-1, 1))
			continue
		}
		at := from + int64(i)
		if h, start, ok := s.plausible(at); ok {
			s.off, s.next = start, h.index
			return h, start, true
		}
		from = at + 1
	}
	return header{}, 0, false
}

// plausible tells whether a header at byte at belongs to a later frame of this
// segment, and where the frame begins, its length prefix included.
func (s *scanner) plausible(at int64) (header, int64, bool) {
	b, err := s.window(at, headerSize)
	if err != nil {
		return header{}, 0, false
	}
	h, err := decodeHeader(b)
	if err != nil || h.index < s.next || h.mark.index >= h.index || h.term < s.term {
		return header{}, 0, false
	}
	length := headerSize + h.bodyLen()
	n := uvarintLen(uint64(length))
	start := at - int64(n)
	if start <= s.off {
		return header{}, 0, false
	}
	// No entry is smaller than a header: so many can lie between at most.
	if h.index-s.next > uint64(at-s.off)/headerSize+1 {
		return header{}, 0, false
	}
	prefix, err := s.window(start, n)
	if err != nil {
		return header{}, 0, false
	}
	if got, _, err := decodePrefix(prefix); err != nil || got != length {
		return header{}, 0, false
	}
	return h, start, true
}
