package lines

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"forebay/sinks"
)

func (e *Encoder) appendCSV(dst []byte, row *sinks.Row) ([]byte, error) {
	if len(row.Columns) != len(e.columns) {
		return nil, fmt.Errorf("the mapping gave %d columns, not %d", len(row.Columns), len(e.columns))
	}
	alone := len(e.columns) == 1
	for i, v := range row.Columns {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = e.appendColumn(dst, v, alone); err != nil {
			return nil, fmt.Errorf("column %q: %w", e.columns[i], err)
		}
	}
	return append(dst, '\n'), nil
}

func (e *Encoder) appendColumn(dst []byte, v any, alone bool) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		if alone {
			dst = append(dst, `""`...)
		}
		return dst, nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case float64:
		return strconv.AppendFloat(dst, v, 'g', -1, 64), nil
	case string:
		if !utf8.ValidString(v) {
			return nil, ErrNotUTF8
		}
		return appendField(dst, v, alone), nil
	case []byte:
		if v == nil {
			return e.appendColumn(dst, nil, alone)
		}
		if e.encoding == Base64 {
			if len(v) == 0 {
				return append(dst, `""`...), nil
			}
			return base64.StdEncoding.AppendEncode(dst, v), nil
		}
		return e.appendColumn(dst, string(v), alone)
	}
	return nil, fmt.Errorf("the mapping gave a %T", v)
}

// appendField quotes what RFC 4180 requires, the empty string, and what readers
// take for something else at the edges: blanks, and Postgres's end mark.
func appendField(dst []byte, s string, alone bool) []byte {
	plain := s != "" && !strings.ContainsAny(s, "\",\r\n") &&
		s[0] != ' ' && s[0] != '\t' && s[len(s)-1] != ' ' && s[len(s)-1] != '\t' &&
		(!alone || s != `\.`)
	if plain {
		return append(dst, s...)
	}
	dst = append(dst, '"')
	for {
		i := strings.IndexByte(s, '"')
		if i < 0 {
			break
		}
		dst = append(append(dst, s[:i]...), '"', '"')
		s = s[i+1:]
	}
	return append(append(dst, s...), '"')
}
