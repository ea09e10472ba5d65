package mapping

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"
)

// toJSON is toJSON(…): compact, keys sorted, no HTML escapes.
func (r *run) toJSON(v any) (any, error) {
	w := jsonWriter{run: r}
	if err := w.value(v, 0); err != nil {
		return nil, err
	}
	return string(w.b), nil
}

type jsonWriter struct {
	b   []byte
	run *run
}

func (w *jsonWriter) value(v any, depth int) error {
	if depth > maxDepth {
		return errors.New("toJSON(…): nested too deep")
	}
	before := len(w.b)
	switch v := v.(type) {
	case nil:
		w.b = append(w.b, "null"...)
	case bool:
		w.b = strconv.AppendBool(w.b, v)
	case int:
		w.b = strconv.AppendInt(w.b, int64(v), 10)
	case uint8:
		w.b = strconv.AppendInt(w.b, int64(v), 10)
	case float64:
		if v != v || v > 1.7976931348623157e308 || v < -1.7976931348623157e308 {
			return fmt.Errorf("toJSON(…): %v is no number of JSON", v)
		}
		w.b = strconv.AppendFloat(w.b, v, 'g', -1, 64)
	case bigInt:
		w.b = append(w.b, v...)
	case string:
		if err := w.text(v); err != nil {
			return err
		}
	case []byte:
		if err := w.text(string(v)); err != nil {
			return err
		}
	case map[string]any:
		return w.object(v, depth)
	default:
		return w.list(v, depth)
	}
	return w.run.grow(len(w.b) - before)
}

func (w *jsonWriter) object(m map[string]any, depth int) error {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	w.b = append(w.b, '{')
	for i, k := range keys {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		if err := w.text(k); err != nil {
			return err
		}
		w.b = append(w.b, ':')
		if err := w.value(m[k], depth+1); err != nil {
			return err
		}
	}
	w.b = append(w.b, '}')
	return w.run.grow(2)
}

func (w *jsonWriter) list(v any, depth int) error {
	n, at, err := elements(v)
	if err != nil {
		return err
	}
	w.b = append(w.b, '[')
	for i := range n {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		if err := w.value(at(i), depth+1); err != nil {
			return err
		}
	}
	w.b = append(w.b, ']')
	return w.run.grow(2)
}

// elements gives access to the lists that expressions can make.
func elements(v any) (n int, at func(i int) any, err error) {
	switch l := v.(type) {
	case []any:
		return len(l), func(i int) any { return l[i] }, nil
	case []string:
		return len(l), func(i int) any { return l[i] }, nil
	case []int:
		return len(l), func(i int) any { return l[i] }, nil
	case []float64:
		return len(l), func(i int) any { return l[i] }, nil
	}
	return 0, nil, fmt.Errorf("toJSON(…): cannot write %s", typeName(v))
}

// text writes a JSON string. Bytes that are no UTF-8 have no place in JSON.
func (w *jsonWriter) text(s string) error {
	if !utf8.ValidString(s) {
		return errors.New("toJSON(…): not valid UTF-8; use toBase64(…)")
	}
	w.b = append(w.b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			w.b = append(w.b, '\\', c)
		case c < 0x20:
			w.b = fmt.Appendf(w.b, `\u%04x`, c)
		default:
			w.b = append(w.b, c)
		}
	}
	w.b = append(w.b, '"')
	return nil
}
