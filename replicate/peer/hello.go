package peer

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Identity is a node with one data directory: an emptied one is another incarnation.
type Identity struct {
	Node        string
	Incarnation [16]byte
}

// String names the node and the beginning of its incarnation.
func (i Identity) String() string {
	return i.Node + "/" + hex.EncodeToString(i.Incarnation[:4])
}

// purpose says what a stream is for.
type purpose uint8

const (
	forRaft    purpose = 1
	forControl purpose = 2
)

// String is also the label of metrics.
func (p purpose) String() string {
	switch p {
	case forRaft:
		return "raft"
	case forControl:
		return "control"
	default:
		return "unknown"
	}
}

// hello is a message of the handshake. DESIGN.md draws it.
type hello struct {
	oldest, newest uint16 // protocol versions that the sender speaks
	gateway        string
	id             Identity
	lanes          uint32 // 0 follows
	clock          int64  // Unix milliseconds
	release        string
	wants          string // the node that is meant; from the dialler
	purpose        purpose
	lane           uint32
	refusal        *Refusal
}

const (
	magic         = "FBPEER"
	preambleBytes = len(magic) + 6
	maxFields     = 4096
	crcBytes      = 4
)

const (
	tagGateway = iota + 1
	tagNode
	tagIncarnation
	tagLanes
	tagClock
	tagRelease
	tagWants
	tagPurpose
	tagLane
	tagRefusalCode
	tagRefusalWords
)

// errNonsense says that what came is not of this protocol.
var errNonsense = errors.New("not a message of a Forebay node")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encode gives the message's bytes. Fields that are empty are left out.
func (h *hello) encode() []byte {
	out := append(make([]byte, 0, 256), magic...)
	out = binary.LittleEndian.AppendUint16(out, h.oldest)
	out = binary.LittleEndian.AppendUint16(out, h.newest)
	out = append(out, 0, 0)
	field := func(tag byte, value []byte) {
		if len(value) == 0 {
			return
		}
		out = append(out, tag)
		out = binary.LittleEndian.AppendUint16(out, uint16(len(value)))
		out = append(out, value...)
	}
	u32 := func(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }
	if h.id.Node != "" {
		field(tagGateway, []byte(h.gateway))
		field(tagNode, []byte(h.id.Node))
		field(tagIncarnation, h.id.Incarnation[:])
		field(tagLanes, u32(h.lanes))
		field(tagClock, binary.LittleEndian.AppendUint64(nil, uint64(h.clock)))
		field(tagRelease, []byte(h.release))
	}
	if h.purpose != 0 {
		field(tagWants, []byte(h.wants))
		field(tagPurpose, []byte{byte(h.purpose)})
		field(tagLane, u32(h.lane))
	}
	if h.refusal != nil {
		field(tagRefusalCode, []byte{byte(h.refusal.Code)})
		field(tagRefusalWords, []byte(shorten(h.refusal.Words)))
	}
	binary.LittleEndian.PutUint16(out[preambleBytes-2:], uint16(len(out)-preambleBytes))
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

// readHello reads one message and nothing after it. What is not one is errNonsense.
func readHello(r io.Reader) (hello, error) {
	preamble := make([]byte, preambleBytes, preambleBytes+64)
	if n, err := io.ReadFull(r, preamble); err != nil {
		if n > 0 && !bytes.HasPrefix([]byte(magic), preamble[:min(n, len(magic))]) {
			return hello{}, errNonsense
		}
		return hello{}, err
	}
	if string(preamble[:len(magic)]) != magic {
		return hello{}, errNonsense
	}
	size := int(binary.LittleEndian.Uint16(preamble[preambleBytes-2:]))
	if size > maxFields {
		return hello{}, fmt.Errorf("%w: %d bytes of fields, more than %d", errNonsense, size, maxFields)
	}
	rest := make([]byte, size+crcBytes)
	if _, err := io.ReadFull(r, rest); err != nil {
		return hello{}, err
	}
	sum := crc32.Update(crc32.Checksum(preamble, castagnoli), castagnoli, rest[:size])
	if sum != binary.LittleEndian.Uint32(rest[size:]) {
		return hello{}, fmt.Errorf("%w: its checksum does not match", errNonsense)
	}
	h := hello{
		oldest: binary.LittleEndian.Uint16(preamble[len(magic):]),
		newest: binary.LittleEndian.Uint16(preamble[len(magic)+2:]),
	}
	return h, h.decode(rest[:size])
}

// decode reads the fields. Tags that are not known are another version's, and skipped.
func (h *hello) decode(fields []byte) error {
	var seen [256]bool
	for len(fields) > 0 {
		if len(fields) < 3 {
			return fmt.Errorf("%w: a field is cut off", errNonsense)
		}
		tag, size := fields[0], int(binary.LittleEndian.Uint16(fields[1:]))
		fields = fields[3:]
		if size > len(fields) || seen[tag] {
			return fmt.Errorf("%w: field %d is cut off, or comes twice", errNonsense, tag)
		}
		seen[tag] = true
		if err := h.set(tag, fields[:size]); err != nil {
			return err
		}
		fields = fields[size:]
	}
	return nil
}

func (h *hello) set(tag byte, value []byte) error {
	sizes := map[byte]int{
		tagIncarnation: 16, tagLanes: 4, tagClock: 8, tagPurpose: 1, tagLane: 4, tagRefusalCode: 1,
	}
	if want, fixed := sizes[tag]; fixed && len(value) != want {
		return fmt.Errorf("%w: field %d has %d bytes instead of %d", errNonsense, tag, len(value), want)
	}
	refusal := func() *Refusal {
		if h.refusal == nil {
			h.refusal = &Refusal{}
		}
		return h.refusal
	}
	switch tag {
	case tagGateway:
		h.gateway = printable(value)
	case tagNode:
		h.id.Node = printable(value)
	case tagIncarnation:
		copy(h.id.Incarnation[:], value)
	case tagLanes:
		h.lanes = binary.LittleEndian.Uint32(value)
	case tagClock:
		h.clock = int64(binary.LittleEndian.Uint64(value))
	case tagRelease:
		h.release = printable(value)
	case tagWants:
		h.wants = printable(value)
	case tagPurpose:
		h.purpose = purpose(value[0])
	case tagLane:
		h.lane = binary.LittleEndian.Uint32(value)
	case tagRefusalCode:
		refusal().Code = Code(value[0])
	case tagRefusalWords:
		refusal().Words = printable(value)
	}
	return nil
}
