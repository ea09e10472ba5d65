package peer

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"time"
)

// Frames of control streams. DESIGN.md draws them.
const (
	frameRequest byte = 1
	framePart    byte = 2
	frameEnd     byte = 3
	frameError   byte = 4
)

const (
	frameHeader = 9
	// MaxRequest bounds what a call can carry.
	MaxRequest = 1 << 20
	// MaxKind bounds the name of a kind.
	MaxKind = 64
	// maxPart bounds one part of an answer, and so what a handler holds while the other
	// side does not read.
	maxPart  = 256 << 10
	maxFrame = MaxRequest + 64<<10
)

// Codes of error frames.
const (
	errorFailed  byte = 1 // the handler's error
	errorUnknown byte = 2 // no such kind
	errorBusy    byte = 3 // too many calls
)

// writeFrame sends one frame in one write.
func writeFrame(w io.Writer, kind byte, parts ...[]byte) error {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	out := make([]byte, frameHeader, frameHeader+size)
	binary.LittleEndian.PutUint32(out, uint32(size))
	out[4] = kind
	for _, p := range parts {
		out = append(out, p...)
	}
	binary.LittleEndian.PutUint32(out[5:], frameSum(kind, out[frameHeader:]))
	_, err := w.Write(out)
	return err
}

// readFrame reads one frame. Its bytes are the caller's. Nothing is allocated before the
// size is known to be bounded.
func readFrame(r io.Reader) (kind byte, payload []byte, err error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.LittleEndian.Uint32(head[:])
	if size > maxFrame {
		return 0, nil, fmt.Errorf("%w: a frame of %d bytes, more than %d", errNonsense, size, maxFrame)
	}
	payload = make([]byte, size)
	if _, err := io.ReadFull(r, payload); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	if frameSum(head[4], payload) != binary.LittleEndian.Uint32(head[5:]) {
		return 0, nil, fmt.Errorf("%w: the checksum of a frame does not match", errNonsense)
	}
	return head[4], payload, nil
}

func frameSum(kind byte, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte{kind}, castagnoli), castagnoli, payload)
}

// request is what a call asks.
type request struct {
	kind string
	// patience is how long the caller will wait from now, 0 for as long as it takes.
	patience time.Duration
	body     []byte
}

func (q *request) write(w io.Writer) error {
	// Less than a millisecond left is not "for ever".
	ms := q.patience.Milliseconds()
	if q.patience > 0 {
		ms = max(ms, 1)
	}
	head := binary.LittleEndian.AppendUint64(nil, uint64(ms))
	head = append(head, byte(len(q.kind)))
	head = append(head, q.kind...)
	return writeFrame(w, frameRequest, head, q.body)
}

func parseRequest(kind byte, payload []byte) (request, error) {
	if kind != frameRequest || len(payload) < 9 {
		return request{}, fmt.Errorf("%w: a call that does not begin with a request", errNonsense)
	}
	size := int(payload[8])
	if size > MaxKind || len(payload) < 9+size || len(payload) > 9+size+MaxRequest {
		return request{}, fmt.Errorf("%w: a request that is cut off or too large", errNonsense)
	}
	ms := binary.LittleEndian.Uint64(payload)
	return request{
		kind:     printable(payload[9 : 9+size]),
		patience: time.Duration(min(ms, math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond,
		body:     payload[9+size:],
	}, nil
}
