package record_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"forebay/internal/record"
)

// part is a part before it is bytes.
type part struct {
	parts, part, total uint64
	checksum           uint32
	summary, piece     []byte
}

func (p part) bytes() []byte {
	b := []byte{record.TagPart, 1}
	for _, n := range []uint64{p.parts, p.part, p.total} {
		b = binary.AppendUvarint(b, n)
	}
	b = binary.BigEndian.AppendUint32(b, p.checksum)
	return append(append(b, p.summary...), p.piece...)
}

// divided gives a block in parts as Split does, but of at most size bytes of it each.
func divided(block []byte, summary, size int) []part {
	var parts []part
	count := (len(block) + size - 1) / size
	for i := range count {
		parts = append(parts, part{
			parts: uint64(count), part: uint64(i), total: uint64(len(block)),
			checksum: crc32.Checksum(block, crc32.MakeTable(crc32.Castagnoli)),
			summary:  block[3 : 3+summary], piece: block[i*size : min((i+1)*size, len(block))],
		})
	}
	return parts
}

func smallParts(block []byte, summary, size int) [][]byte {
	var entries [][]byte
	for _, p := range divided(block, summary, size) {
		entries = append(entries, p.bytes())
	}
	return entries
}

func TestSmallPartsAreJoined(t *testing.T) {
	block, summary := crafted(nil)
	var j record.Joiner
	parts := smallParts(block, summary, 7)
	for i, part := range parts {
		got, done, err := j.Add(part)
		if err != nil || done != (i == len(parts)-1) || done && !bytes.Equal(got, block) {
			t.Fatalf("part %d: %x, %v, %v", i, got, done, err)
		}
	}
}

// What Split makes is what divided makes by hand, so the bytes are those drawn.
func TestPartsAsDrawn(t *testing.T) {
	block := seal(t, make([]byte, 3*record.MaxEntry))
	const summary = 1 + 1 + 1 + 16 + 1 + 6 + 4 + 4 + 4 // topic "t", one span with two sizes of 4 bytes, length of the body
	parts := record.Split(block)
	first, err := record.ParseSummary(parts[0])
	if err != nil || first.Parts != len(parts) {
		t.Fatalf("%+v, %v", first, err)
	}
	head := len(part{parts: 4, total: uint64(len(block)), summary: block[3 : 3+summary]}.bytes())
	for i, want := range smallParts(block, summary, len(parts[0])-head) {
		if !bytes.Equal(parts[i], want) {
			t.Errorf("part %d begins %x\n want %x", i, parts[i][:64], want[:64])
		}
	}
}

func TestHostileParts(t *testing.T) {
	block, summary := crafted(nil)
	other, _ := crafted(func(l *layout) { l.spans[0].base, l.spans[0].first = 39, 2 }) // same offsets, another base
	const size = 20
	for name, c := range map[string]struct {
		change func(p []part) []part
		at     int // the part that is refused
		format bool
	}{
		"the last part's summary lies": {at: 2, change: func(p []part) []part { p[2].summary = other[3 : 3+summary]; return p }},
		"all summaries lie": {at: 2, change: func(p []part) []part {
			for i := range p {
				p[i].summary = other[3 : 3+summary]
			}
			return p
		}},
		"of a block with another base": {at: 1, change: func(p []part) []part { p[1] = divided(other, summary, size)[1]; return p }},
		"another checksum":             {at: 1, change: func(p []part) []part { p[1].checksum++; return p }},
		"another length":               {at: 1, change: func(p []part) []part { p[1].total++; return p }},
		"another number of parts":      {at: 1, change: func(p []part) []part { p[1].parts++; return p }},
		"all say a wrong checksum": {at: 2, change: func(p []part) []part {
			for i := range p {
				p[i].checksum++
			}
			return p
		}},
		"all say a wrong length": {at: 2, change: func(p []part) []part {
			for i := range p {
				p[i].total++
			}
			return p
		}},
		"more than the whole before the last": {at: 1, change: func(p []part) []part { p[1].piece = bytes.Repeat([]byte{1}, len(block)); return p }},
		"one left out":                        {at: 1, change: func(p []part) []part { return []part{p[0], p[2]} }},
		"one twice":                           {at: 2, change: func(p []part) []part { return []part{p[0], p[1], p[1]} }},
		"begins in the middle":                {at: 0, change: func(p []part) []part { return p[1:] }},
		"a part without a piece":              {at: 1, format: true, change: func(p []part) []part { p[1].piece = nil; return p }},
		"cut in its summary":                  {at: 1, format: true, change: func(p []part) []part { p[1].summary, p[1].piece = p[1].summary[:9], nil; return p }},
		"one part only":                       {at: 0, format: true, change: func(p []part) []part { p[0].parts = 1; return p }},
		"of no parts":                         {at: 0, format: true, change: func(p []part) []part { p[0].parts = 0; return p }},
		"a part behind the last":              {at: 1, format: true, change: func(p []part) []part { p[1].part = 3; return p }},
		"of too many parts":                   {at: 0, format: true, change: func(p []part) []part { p[0].parts = 1 << 40; return p }},
		"of too large a block":                {at: 0, format: true, change: func(p []part) []part { p[0].total = record.MaxBody * 2; return p }},
	} {
		t.Run(name, func(t *testing.T) {
			var j record.Joiner
			parts := c.change(divided(block, summary, size))
			for i, p := range parts[:c.at+1] {
				_, done, err := j.Add(p.bytes())
				if i < c.at {
					if done || err != nil {
						t.Fatalf("part %d: %v, %v", i, done, err)
					}
					continue
				}
				var format *record.FormatError
				if done || errors.As(err, &format) != c.format || errors.Is(err, record.ErrParts) == c.format {
					t.Fatalf("part %d: got %v, %v", i, done, err)
				}
			}
			for i, p := range divided(block, summary, size) {
				if _, done, err := j.Add(p.bytes()); err != nil || done != (i == 2) {
					t.Fatalf("the Joiner is not as new: part %d, %v, %v", i, done, err)
				}
			}
		})
	}
}

func TestAWholeBlockIsNoPart(t *testing.T) {
	block, _ := crafted(nil)
	var format *record.FormatError
	if _, _, err := new(record.Joiner).Add(block); !errors.As(err, &format) {
		t.Errorf("Joiner: got %v, want a *FormatError", err)
	}
	part := record.Split(seal(t, make([]byte, record.MaxEntry)))[0]
	if err := new(record.Decoder).Open(part, nil); !errors.As(err, &format) {
		t.Errorf("Decoder: got %v, want a *FormatError", err)
	}
}

func TestAPartPromisingAGibibyte(t *testing.T) {
	block, summary := crafted(nil)
	p := part{parts: 1 << 30, total: 1 << 30, summary: block[3 : 3+summary], piece: []byte{1}}.bytes()
	var j record.Joiner
	var err error
	if got := allocated(func() { _, _, err = j.Add(p) }); got > 64<<10 || err != nil {
		t.Errorf("%d bytes made it allocate %d, %v", len(p), got, err)
	}
}
