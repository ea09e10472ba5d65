package mapping

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// bigInt is a whole number of JSON that does not fit 64 bits, as its digits:
// string(…) gives them, and arithmetic is refused rather than inexact.
type bigInt string

// maxDepth bounds the nesting of JSON that is read or written.
const maxDepth = 512

// nodeBytes is what one decoded JSON value is charged, about what it takes in memory.
const nodeBytes = 48

// json is json(…): strict JSON (RFC 8259), valid UTF-8, nothing after the
// value; whole numbers are kept exact; of a repeated key the last counts.
func (r *run) json(v any) (any, error) {
	s, err := r.asText("json", v)
	if err != nil {
		return nil, err
	}
	if r.jsonText != "" && s == r.jsonText {
		return r.jsonValue, nil
	}
	if !utf8.ValidString(s) {
		return nil, errors.New("json(…): not valid UTF-8")
	}
	p := jsonReader{s: s, run: r}
	value, err := p.document()
	if err != nil {
		return nil, err
	}
	r.jsonText, r.jsonValue = s, value
	return value, nil
}

type jsonReader struct {
	s     string
	pos   int
	depth int
	run   *run
}

func (p *jsonReader) document() (any, error) {
	v, err := p.value()
	if err != nil {
		return nil, err
	}
	if p.space(); p.pos < len(p.s) {
		return nil, p.wrong("something after the end")
	}
	return v, nil
}

func (p *jsonReader) wrong(what string) error {
	return fmt.Errorf("json(…): %s at byte %d", what, p.pos)
}

func (p *jsonReader) space() {
	for p.pos < len(p.s) {
		switch p.s[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// next skips space and gives the byte there, 0 at the end.
func (p *jsonReader) next() byte {
	if p.space(); p.pos < len(p.s) {
		return p.s[p.pos]
	}
	return 0
}

func (p *jsonReader) value() (any, error) {
	if err := p.run.grow(nodeBytes); err != nil {
		return nil, err
	}
	if p.depth == maxDepth {
		return nil, p.wrong("nested too deep")
	}
	switch c := p.next(); {
	case c == '{':
		p.depth++
		defer func() { p.depth-- }()
		return p.object()
	case c == '[':
		p.depth++
		defer func() { p.depth-- }()
		return p.array()
	case c == '"':
		return p.text()
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	case c == 0 && p.pos == len(p.s):
		return nil, p.wrong("an end too early")
	}
	switch {
	case p.word("true"):
		return true, nil
	case p.word("false"):
		return false, nil
	case p.word("null"):
		return nil, nil
	}
	return nil, p.wrong("no value")
}

func (p *jsonReader) word(w string) bool {
	if !strings.HasPrefix(p.s[p.pos:], w) {
		return false
	}
	p.pos += len(w)
	return true
}

func (p *jsonReader) object() (any, error) {
	m := map[string]any{}
	p.pos++
	if p.next() == '}' {
		p.pos++
		return m, nil
	}
	for {
		if p.next() != '"' {
			return nil, p.wrong("no key")
		}
		k, err := p.text()
		if err != nil {
			return nil, err
		}
		if p.next() != ':' {
			return nil, p.wrong("no colon")
		}
		p.pos++
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		m[k.(string)] = v
		end, err := p.more('}')
		if err != nil || end {
			return m, err
		}
	}
}

func (p *jsonReader) array() (any, error) {
	list := []any{}
	p.pos++
	if p.next() == ']' {
		p.pos++
		return list, nil
	}
	for {
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		end, err := p.more(']')
		if err != nil || end {
			return list, err
		}
	}
}

// more reads a comma or the closing bracket.
func (p *jsonReader) more(closing byte) (end bool, err error) {
	switch p.next() {
	case closing:
		p.pos++
		return true, nil
	case ',':
		p.pos++
		return false, nil
	}
	return false, p.wrong("no comma or " + string(closing))
}

func (p *jsonReader) number() (any, error) {
	start, whole := p.pos, true
	digits := func() bool {
		at := p.pos
		for p.pos < len(p.s) && p.s[p.pos] >= '0' && p.s[p.pos] <= '9' {
			p.pos++
		}
		return p.pos > at
	}
	at := func(set string) bool { return p.pos < len(p.s) && strings.IndexByte(set, p.s[p.pos]) >= 0 }
	if at("-") {
		p.pos++
	}
	if at("0") {
		p.pos++
	} else if !digits() {
		return nil, p.wrong("no digit")
	}
	if at(".") {
		p.pos++
		if whole = false; !digits() {
			return nil, p.wrong("no digit")
		}
	}
	if at("eE") {
		p.pos++
		if at("+-") {
			p.pos++
		}
		if whole = false; !digits() {
			return nil, p.wrong("no digit")
		}
	}
	lit := p.s[start:p.pos]
	if whole {
		if n, err := strconv.Atoi(lit); err == nil && lit != "-0" {
			return n, nil
		} else if lit != "-0" {
			return bigInt(lit), nil
		}
	}
	f, err := strconv.ParseFloat(lit, 64)
	if err != nil {
		return nil, p.wrong("a number out of range")
	}
	return f, nil
}

func (p *jsonReader) text() (any, error) {
	p.pos++
	start := p.pos
	for p.pos < len(p.s) {
		switch c := p.s[p.pos]; {
		case c == '"':
			s := p.s[start:p.pos]
			p.pos++
			return s, nil
		case c == '\\':
			return p.escaped(start)
		case c < 0x20:
			return nil, p.wrong("a control character in text")
		}
		p.pos++
	}
	return nil, p.wrong("text without an end")
}

// escaped reads on from the first backslash of a text.
func (p *jsonReader) escaped(start int) (any, error) {
	b := []byte(p.s[start:p.pos])
	for p.pos < len(p.s) {
		c := p.s[p.pos]
		p.pos++
		switch {
		case c == '"':
			return string(b), p.run.grow(len(b))
		case c < 0x20:
			return nil, p.wrong("a control character in text")
		case c != '\\':
			b = append(b, c)
			continue
		}
		if p.pos == len(p.s) {
			break
		}
		c = p.s[p.pos]
		p.pos++
		if c == 'u' {
			r, err := p.unicode()
			if err != nil {
				return nil, err
			}
			b = utf8.AppendRune(b, r)
			continue
		}
		i := strings.IndexByte(`"\/bfnrt`, c)
		if i < 0 {
			return nil, p.wrong("an unknown escape")
		}
		b = append(b, "\"\\/\b\f\n\r\t"[i])
	}
	return nil, p.wrong("text without an end")
}

// unicode reads the four digits after \u, and a second escape when they are
// half of a pair. A half alone stands for no character and is refused.
func (p *jsonReader) unicode() (rune, error) {
	hex := func() (rune, error) {
		if p.pos+4 > len(p.s) {
			return 0, p.wrong("an escape without an end")
		}
		n, err := strconv.ParseUint(p.s[p.pos:p.pos+4], 16, 16)
		if err != nil {
			return 0, p.wrong("an escape that is no number")
		}
		p.pos += 4
		return rune(n), nil
	}
	r, err := hex()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if !strings.HasPrefix(p.s[p.pos:], `\u`) {
		return 0, p.wrong("half a character")
	}
	p.pos += 2
	low, err := hex()
	if err != nil {
		return 0, err
	}
	if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
		return 0, p.wrong("half a character")
	}
	return r, nil
}
