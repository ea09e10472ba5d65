package lines

import (
	"fmt"
	"unicode/utf8"
)

// maxDepth bounds the nesting of a JSON document, as encoding/json does.
const maxDepth = 10_000

// appendCompact appends one JSON document (RFC 8259, valid UTF-8) without the white space between
// its tokens. Strings and numbers stay as they are, byte for byte.
func appendCompact(dst, src []byte) ([]byte, error) {
	if at := invalidUTF8(src); at >= 0 {
		return nil, fmt.Errorf("%w at byte %d", ErrNotUTF8, at)
	}
	c := compactor{dst: dst, src: src}
	c.space()
	ok := c.value(0)
	c.space()
	if !ok || c.pos != len(c.src) {
		return nil, fmt.Errorf("%w: byte %d", ErrNotJSON, c.pos)
	}
	return c.dst, nil
}

func invalidUTF8(b []byte) int {
	if utf8.Valid(b) {
		return -1
	}
	for i := 0; i < len(b); {
		r, size := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// compactor is a recursive descent over src; each method tells whether what it
// names stood at pos, and has copied it then.
type compactor struct {
	dst, src []byte
	pos      int
}

func (c *compactor) space() {
	for c.pos < len(c.src) {
		switch c.src[c.pos] {
		case ' ', '\t', '\n', '\r':
			c.pos++
		default:
			return
		}
	}
}

func (c *compactor) peek() byte {
	if c.pos < len(c.src) {
		return c.src[c.pos]
	}
	return 0
}

func (c *compactor) copyByte() {
	c.dst = append(c.dst, c.src[c.pos])
	c.pos++
}

func (c *compactor) value(depth int) bool {
	switch c.peek() {
	case '{':
		return depth < maxDepth && c.list('}', depth, c.member)
	case '[':
		return depth < maxDepth && c.list(']', depth, c.value)
	case '"':
		return c.text()
	case 't':
		return c.word("true")
	case 'f':
		return c.word("false")
	case 'n':
		return c.word("null")
	}
	return c.number()
}

// list is an opening bracket, items between commas, and the closing one.
func (c *compactor) list(closing byte, depth int, item func(depth int) bool) bool {
	c.copyByte()
	c.space()
	if c.peek() == closing {
		c.copyByte()
		return true
	}
	for {
		if !item(depth + 1) {
			return false
		}
		c.space()
		switch c.peek() {
		case closing:
			c.copyByte()
			return true
		case ',':
			c.copyByte()
			c.space()
		default:
			return false
		}
	}
}

func (c *compactor) member(depth int) bool {
	if c.peek() != '"' || !c.text() {
		return false
	}
	c.space()
	if c.peek() != ':' {
		return false
	}
	c.copyByte()
	c.space()
	return c.value(depth)
}

func (c *compactor) text() bool {
	start := c.pos
	i := start + 1
	for i < len(c.src) {
		switch b := c.src[i]; {
		case b == '"':
			c.dst = append(c.dst, c.src[start:i+1]...)
			c.pos = i + 1
			return true
		case b == '\\':
			n := escapeLen(c.src[i:])
			if n == 0 {
				c.pos = i
				return false
			}
			i += n
		case b < ' ':
			c.pos = i
			return false
		default:
			i++
		}
	}
	c.pos = i
	return false
}

// escapeLen is the length of the escape that b begins with, 0 when it is none.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 {
			return 0
		}
		for _, h := range b[2:6] {
			if !isDigit(h) && (h|0x20 < 'a' || h|0x20 > 'f') {
				return 0
			}
		}
		return 6
	}
	return 0
}

func (c *compactor) word(w string) bool {
	if len(c.src)-c.pos < len(w) || string(c.src[c.pos:c.pos+len(w)]) != w {
		return false
	}
	c.dst = append(c.dst, w...)
	c.pos += len(w)
	return true
}

func (c *compactor) number() bool {
	start := c.pos
	if c.peek() == '-' {
		c.pos++
	}
	if c.peek() == '0' {
		c.pos++
	} else if !c.digits() {
		return false
	}
	if c.peek() == '.' {
		c.pos++
		if !c.digits() {
			return false
		}
	}
	if b := c.peek(); b == 'e' || b == 'E' {
		c.pos++
		if b := c.peek(); b == '+' || b == '-' {
			c.pos++
		}
		if !c.digits() {
			return false
		}
	}
	c.dst = append(c.dst, c.src[start:c.pos]...)
	return true
}

func (c *compactor) digits() bool {
	start := c.pos
	for isDigit(c.peek()) {
		c.pos++
	}
	return c.pos > start
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }
