package lines

import (
	"fmt"
	"strconv"
	"unicode/utf8"

	"forebay/sinks"
)

func (e *Encoder) appendJSONL(dst []byte, row *sinks.Row) ([]byte, error) {
	rec := row.Record
	dst = append(dst, `{"topic":`...)
	dst, err := appendString(dst, rec.Topic)
	if err != nil {
		return nil, fmt.Errorf("topic: %w", err)
	}
	dst = append(dst, `,"partition":`...)
	dst = strconv.AppendInt(dst, int64(rec.Partition), 10)
	dst = append(dst, `,"offset":`...)
	dst = strconv.AppendInt(dst, rec.Offset, 10)
	dst = append(dst, `,"timestamp":`...)
	dst = strconv.AppendInt(dst, rec.Timestamp, 10)
	dst = append(dst, `,"key":`...)
	if dst, err = e.appendNullable(dst, rec.Key); err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	dst = append(dst, `,"value":`...)
	if dst, err = e.appendNullable(dst, row.Value); err != nil {
		return nil, fmt.Errorf("value: %w", err)
	}
	dst = append(dst, `,"headers":[`...)
	for i := range rec.Headers {
		h := &rec.Headers[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '[')
		if dst, err = appendString(dst, h.Key); err != nil {
			return nil, fmt.Errorf("key of header %d: %w", i, err)
		}
		dst = append(dst, ',')
		if dst, err = e.appendNullable(dst, h.Value); err != nil {
			return nil, fmt.Errorf("value of header %d (%q): %w", i, h.Key, err)
		}
		dst = append(dst, ']')
	}
	return append(dst, "]}\n"...), nil
}

func (e *Encoder) appendNullable(dst, b []byte) ([]byte, error) {
	if b == nil {
		return append(dst, "null"...), nil
	}
	return e.appendBytes(dst, b)
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. Runs of plain bytes are copied at once.
func appendString[S []byte | string](dst []byte, s S) ([]byte, error) {
	dst = append(dst, '"')
	plain := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			dst = appendEscape(append(dst, s[plain:i]...), c)
			i++
			plain = i
			continue
		}
		r, size := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
		switch {
		case r == utf8.RuneError && size == 1:
			return nil, fmt.Errorf("%w at byte %d", ErrNotUTF8, i)
		case r == '\u2028' || r == '\u2029':
			dst = append(dst, s[plain:i]...)
			dst = append(dst, '\\', 'u', '2', '0', '2', hexDigits[r&0xF])
			plain = i + size
		}
		i += size
	}
	dst = append(dst, s[plain:]...)
	return append(dst, '"'), nil
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xF])
}
