package record

import (
	"encoding/binary"
	"fmt"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// Compression of a block's body.
type Compression uint8

// The compressions. Their numbers are part of the format.
const (
	None Compression = iota
	S2
	Zstd
)

// DefaultCompression is what a configuration without wal.compression gets;
// DESIGN.md has the figures that it was chosen by.
const DefaultCompression = S2

var compressionNames = [...]string{None: "none", S2: "s2", Zstd: "zstd"}

// String gives the word used in configuration.
func (c Compression) String() string {
	if int(c) < len(compressionNames) {
		return compressionNames[c]
	}
	return fmt.Sprintf("compression %d", uint8(c))
}

// ParseCompression reads the word used in configuration.
func ParseCompression(s string) (Compression, error) {
	for c, name := range compressionNames {
		if s == name {
			return Compression(c), nil
		}
	}
	return None, fmt.Errorf("compression %q: want none, s2 or zstd", s)
}

const (
	// chunkBytes is how much of a body is compressed at a time: what a reader
	// allocates grows with what it has really decompressed, chunk by chunk.
	chunkBytes = 1 << 20
	// worthwhile is the share of a body, in percent, that compression must
	// come below; else the body is stored plain and costs its readers nothing.
	worthwhile = 95
)

// compressor turns bodies into chunks: raw length, compressed length, bytes.
// Not safe for concurrent use.
type compressor struct {
	method Compression
	zstd   *zstd.Encoder
	chunk  []byte
	out    []byte
}

func newCompressor(method Compression) *compressor {
	c := &compressor{method: method}
	if method == Zstd {
		var err error
		c.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(chunkBytes), zstd.WithEncoderCRC(false))
		if err != nil {
			panic(fmt.Sprintf("record: fixed zstd options were refused: %v", err))
		}
	}
	return c
}

// compress gives the chunks of a body, valid until the next call, or None when
// it is better stored plain.
func (c *compressor) compress(body []byte) (Compression, []byte) {
	out := c.out[:0]
	for rest := body; len(rest) > 0; {
		raw := rest[:min(len(rest), chunkBytes)]
		rest = rest[len(raw):]
		if c.method == Zstd {
			c.chunk = c.zstd.EncodeAll(raw, c.chunk[:0])
		} else {
			c.chunk = s2.Encode(c.chunk[:cap(c.chunk)], raw)
		}
		out = binary.AppendUvarint(out, uint64(len(raw)))
		out = binary.AppendUvarint(out, uint64(len(c.chunk)))
		out = append(out, c.chunk...)
	}
	c.out = out
	if len(out) > len(body)*worthwhile/100 {
		return None, nil
	}
	return c.method, out
}

// decompressor undoes compress. Not safe for concurrent use.
type decompressor struct {
	zstd *zstd.Decoder
}

// decompress appends the raw body of stored to dst, which must come to length
// bytes. What it allocates follows what it has decompressed.
func (d *decompressor) decompress(dst []byte, method Compression, stored *wire, length int) []byte {
	for len(dst) < length && stored.err == nil {
		raw := int(stored.upTo(int64(min(chunkBytes, length-len(dst))), "chunk length"))
		size := stored.count(1, "compressed length")
		chunk := stored.bytes(size, "compressed bytes")
		if raw == 0 {
			stored.fail("empty chunk")
		}
		if stored.err != nil {
			return dst
		}
		from := len(dst)
		dst = d.chunk(grow(dst, raw, length), method, chunk, raw)
		if len(dst)-from != raw {
			stored.fail(method.String() + " does not decompress to the length that it names")
		}
	}
	if stored.left() > 0 {
		stored.fail("bytes behind the body")
	}
	return dst
}

// chunk decompresses one chunk behind dst, which has room for its raw length.
// It gives dst with another length when the chunk has another, or is malformed.
func (d *decompressor) chunk(dst []byte, method Compression, chunk []byte, raw int) []byte {
	from := len(dst)
	if method == S2 {
		if n, err := s2.DecodedLen(chunk); err != nil || n != raw {
			return dst
		}
		if _, err := s2.Decode(dst[from:from+raw], chunk); err != nil {
			return dst
		}
		return dst[:from+raw]
	}
	if d.zstd == nil {
		var err error
		// One chunk is never more than chunkBytes, whatever its frames say.
		d.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(chunkBytes),
			zstd.WithDecoderMaxWindow(chunkBytes), zstd.WithDecoderLowmem(true))
		if err != nil {
			panic(fmt.Sprintf("record: fixed zstd options were refused: %v", err))
		}
	}
	// The bound on memory counts what is in the slice already: hand over none.
	out, err := d.zstd.DecodeAll(chunk, dst[from:from:from+raw])
	if err != nil {
		return dst
	}
	return append(dst, out...) // onto itself, unless the decoder took a slice of its own
}

// grow makes room for n bytes behind dst, which will not be longer than limit.
func grow(dst []byte, n, limit int) []byte {
	if cap(dst)-len(dst) >= n {
		return dst
	}
	larger := make([]byte, len(dst), max(len(dst)+n, min(2*len(dst), limit)))
	copy(larger, dst)
	return larger
}
