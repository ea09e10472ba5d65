package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// ErrVersion says that an entry or a snapshot was written by a version of
// Forebay that this one does not know.
var ErrVersion = errors.New("unknown format version")

// FormatError says why bytes are no entry, or no snapshot.
type FormatError struct {
	What   string
	Offset int
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("state: %s at byte %d", e.What, e.Offset)
}

// coder writes or reads a run of fields: one function per structure names its
// fields once, for both directions. Integers are varints (signed ones zigzag),
// strings and lists carry their length. The first failure of a reader sticks,
// and every field after it reads as zero.
type coder struct {
	buf     []byte // written so far, or the whole input
	off     int    // of a reader
	reading bool
	err     error
	names   map[string]string // of a reader: equal short strings share memory
}

func (c *coder) fail(what string) {
	if c.err == nil {
		c.err = &FormatError{What: what, Offset: c.off}
	}
}

func (c *coder) u64(v *uint64) {
	if !c.reading {
		c.buf = binary.AppendUvarint(c.buf, *v)
		return
	}
	*v = 0
	if c.err != nil {
		return
	}
	x, n := binary.Uvarint(c.buf[c.off:])
	if n <= 0 {
		c.fail("bad number")
		return
	}
	c.off += n
	*v = x
}

func (c *coder) i64(v *int64) {
	u := uint64(*v)<<1 ^ uint64(*v>>63)
	if c.u64(&u); c.reading {
		*v = int64(u>>1) ^ -int64(u&1)
	}
}

func (c *coder) u32(v *uint32) {
	u := uint64(*v)
	if c.u64(&u); !c.reading {
		return
	}
	if u > 1<<32-1 {
		c.fail("number too large")
	}
	*v = uint32(u)
}

func (c *coder) i32(v *int32) {
	i := int64(*v)
	if c.i64(&i); !c.reading {
		return
	}
	if int64(int32(i)) != i {
		c.fail("number too large")
	}
	*v = int32(i)
}

func (c *coder) bool(v *bool) {
	var u uint64
	if *v {
		u = 1
	}
	if c.u64(&u); !c.reading {
		return
	}
	if u > 1 {
		c.fail("neither true nor false")
	}
	*v = u == 1
}

// next takes n bytes of a reader; they alias the input.
func (c *coder) next(n uint64) []byte {
	if c.err != nil {
		return nil
	}
	if n > uint64(len(c.buf)-c.off) {
		c.fail("length beyond the end")
		return nil
	}
	b := c.buf[c.off : c.off+int(n)]
	c.off += int(n)
	return b
}

func (c *coder) id(v *[16]byte) {
	if !c.reading {
		c.buf = append(c.buf, v[:]...)
		return
	}
	*v = [16]byte{}
	copy(v[:], c.next(16))
}

func (c *coder) str(v *string) {
	n := uint64(len(*v))
	c.u64(&n)
	if !c.reading {
		c.buf = append(c.buf, *v...)
		return
	}
	b := c.next(n)
	if s, ok := c.names[string(b)]; ok {
		*v = s
		return
	}
	*v = string(b)
	if c.names != nil && len(b) <= 256 && len(c.names) < 4096 {
		c.names[*v] = *v
	}
}

// reason is a string that is clipped to MaxReason bytes when it is written.
func (c *coder) reason(v *string) {
	if c.reading {
		c.str(v)
		return
	}
	s := clip(*v)
	c.str(&s)
}

func clip(s string) string {
	if len(s) <= MaxReason {
		return s
	}
	return strings.ToValidUTF8(s[:MaxReason], "")
}

func (c *coder) bytes(v *[]byte) {
	n := uint64(len(*v))
	c.u64(&n)
	if !c.reading {
		c.buf = append(c.buf, *v...)
		return
	}
	*v = nil
	if b := c.next(n); len(b) > 0 {
		*v = append([]byte(nil), b...)
	}
}

// count codes the length of a list whose items take at least one byte each.
func (c *coder) count(n int) int {
	u := uint64(n)
	c.u64(&u)
	if !c.reading {
		return n
	}
	if u > uint64(len(c.buf)-c.off) {
		c.fail("list longer than its bytes")
		return 0
	}
	return int(u)
}

// list codes a slice item by item. A reader's slice grows as the items come, so
// that a length alone allocates little.
func list[T any](c *coder, s *[]T, item func(*coder, *T)) {
	n := c.count(len(*s))
	if !c.reading {
		for i := range *s {
			item(c, &(*s)[i])
		}
		return
	}
	*s = nil
	if n == 0 || c.err != nil {
		return
	}
	out := make([]T, 0, min(n, 64))
	for range n {
		var v T
		if item(c, &v); c.err != nil {
			return
		}
		out = append(out, v)
	}
	*s = out
}

func number(c *coder, v *uint64) { c.u64(v) }

// ascending codes a list of growing numbers by their differences.
func (c *coder) ascending(s *[]uint64) {
	last := uint64(0)
	list(c, s, func(c *coder, v *uint64) {
		d := *v - last
		if c.u64(&d); c.reading {
			*v = last + d
		}
		last = *v
	})
}
