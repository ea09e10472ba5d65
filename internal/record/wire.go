package record

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// FormatError says where an encoding is not what it should be.
type FormatError struct {
	What string
	// Offset counts bytes from the start of the entry or, for records, of the
	// decompressed body. It is where reading stopped.
	Offset int
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("malformed at byte %d: %s", e.Offset, e.What)
}

// ErrVersion says that another version of Forebay wrote this.
var ErrVersion = errors.New("unknown format version")

// wire reads an encoding from the front. After the first error everything reads
// as zero and empty, so that callers look at err once.
type wire struct {
	data []byte
	at   int
	err  error
}

func (w *wire) fail(what string) {
	if w.err == nil {
		w.err = &FormatError{What: what, Offset: w.at}
		w.at = len(w.data)
	}
}

func (w *wire) left() int { return len(w.data) - w.at }

func (w *wire) uvarint(what string) uint64 {
	v, n := binary.Uvarint(w.data[w.at:])
	if n <= 0 {
		w.fail(what)
		return 0
	}
	w.at += n
	return v
}

func (w *wire) varint(what string) int64 {
	v, n := binary.Varint(w.data[w.at:])
	if n <= 0 {
		w.fail(what)
		return 0
	}
	w.at += n
	return v
}

// upTo reads a number that may not be larger than limit.
func (w *wire) upTo(limit int64, what string) int64 {
	v := w.uvarint(what)
	if v > uint64(limit) {
		w.fail(what + " is too large")
		return 0
	}
	return int64(v)
}

// count reads how many things follow of which each takes at least size bytes.
func (w *wire) count(size int, what string) int {
	return int(w.upTo(int64(w.left()/size), what))
}

func (w *wire) bytes(n int, what string) []byte {
	if n > w.left() {
		w.fail(what)
		return nil
	}
	b := w.data[w.at : w.at+n : w.at+n]
	w.at += n
	return b
}

// nullable reads bytes written by appendNullable.
func (w *wire) nullable(what string) []byte {
	n := w.upTo(int64(w.left()), what)
	if n == 0 {
		return nil
	}
	return w.bytes(int(n-1), what)
}

// appendNullable writes a length plus one, so that nil (0) is told from empty (1).
func appendNullable(dst, b []byte) []byte {
	if b == nil {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, uint64(len(b))+1)
	return append(dst, b...)
}
