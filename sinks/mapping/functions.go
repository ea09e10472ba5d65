package mapping

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/expr-lang/expr/vm/runtime"
)

// Names of functions that guard puts in; an operator has no use for them.
const (
	stepName     = "_step"
	inName       = "_in"
	concatName   = "_concat"
	readName     = "_read"
	readTextName = "_readText"
	scanName     = "_scan"
	scanTextName = "_scanText"
)

func intName(op string) string { return "_int" + op }
func anyName(op string) string { return "_any" + op }

// function is one function that expressions can call: types are pointers to
// its accepted signatures, which the checker has enforced before call runs.
type function struct {
	name  string
	call  func(args ...any) (any, error)
	types []any
}

// functions lists everything that expressions can call besides the allowed
// builtins. They close over r, so that a Program has its own.
func (r *run) functions() []function {
	fs := []function{
		{"json", func(a ...any) (any, error) { return r.json(a[0]) }, sig(new(func(any) any))},
		{"toJSON", func(a ...any) (any, error) { return r.toJSON(a[0]) }, sig(new(func(any) string))},
		{"string", func(a ...any) (any, error) { return r.str(a[0]) }, sig(new(func(any) string))},
		{"bytes", func(a ...any) (any, error) { return r.bytes(a[0]) }, sig(new(func(any) []byte))},
		{"upper", r.paid("upper", 1, strings.ToUpper), sig(new(func(any) string))},
		{"lower", r.paid("lower", 1, strings.ToLower), sig(new(func(any) string))},
		{"toBase64", r.paid("toBase64", 2, toBase64), sig(new(func(any) string))},
		{"fromBase64", r.fromBase64, sig(new(func(any) string))},
		{"int", func(a ...any) (any, error) { return r.toInt(a[0]) }, sig(new(func(any) int))},
		{"float", func(a ...any) (any, error) { return r.toFloat(a[0]) }, sig(new(func(any) float64))},
		{"header", func(a ...any) (any, error) { return r.header(a[0].(string)) }, sig(new(func(string) any))},
		{"split", r.split, sig(new(func(any, string) []string), new(func(any, string, int) []string))},
		{"fields", r.fields, sig(new(func(any) []string))},
		{"replace", r.replace, sig(new(func(any, string, string) string))},
		{"repeat", r.repeat, sig(new(func(any, int) string))},
		{"join", r.join, sig(new(func(any) string), new(func(any, string) string))},
		{"keys", func(a ...any) (any, error) { ks, _, err := pairs(a[0]); return ks, err }, sig(new(func(any) []any))},
		{"values", func(a ...any) (any, error) { _, vs, err := pairs(a[0]); return vs, err }, sig(new(func(any) []any))},
		{"parseTime", r.parseTime, sig(new(func(any) int), new(func(any, string) int))},
		{"formatTime", formatTime, sig(new(func(int) string), new(func(int, string) string))},
		{stepName, func(...any) (any, error) { return true, r.step() }, sig(new(func() bool))},
		{readName, r.read, sig(new(func(any) any))},
		{readTextName, r.read, sig(new(func(string) string))},
		{scanName, r.scan, sig(new(func(any) any))},
		{scanTextName, r.scan, sig(new(func(string) string))},
		{inName, func(a ...any) (any, error) { return r.in(a[0], a[1]) }, sig(new(func(any, any) bool))},
		{concatName, func(a ...any) (any, error) { return r.arithmetic('+', a[0], a[1]) }, sig(new(func(string, string) string))},
	}
	for _, op := range "+-*" {
		f := func(a ...any) (any, error) { return r.arithmetic(byte(op), a[0], a[1]) }
		fs = append(fs,
			function{intName(string(op)), f, sig(new(func(int, int) int))},
			function{anyName(string(op)), f, sig(new(func(any, any) any))})
	}
	return fs
}

func sig(s ...any) []any { return s }

// asText gives v as text that the function name pays to read, or says what it got instead.
func (r *run) asText(name string, v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, r.labour(len(v) / readUnit)
	case []byte:
		return string(v), r.grow(len(v))
	}
	return "", fmt.Errorf("%s(…) wants text and got %s", name, typeName(v))
}

func (r *run) toInt(v any) (any, error) {
	switch v := v.(type) {
	case int:
		return v, nil
	case uint8:
		return int(v), nil
	case float64:
		// 2^63 is exact as a float; NaN fails both comparisons.
		if v >= -(1<<63) && v < 1<<63 {
			return int(v), nil
		}
		return nil, fmt.Errorf("int(%v): does not fit 64 bits", v)
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		if paid := r.labour(len(v) / readUnit); paid != nil {
			return nil, paid
		}
		switch {
		case errors.Is(err, strconv.ErrRange):
			return nil, fmt.Errorf("int(%s): does not fit 64 bits", brief(v))
		case err != nil:
			return nil, fmt.Errorf("int(%s): not a whole number", brief(v))
		}
		return int(n), nil
	}
	return nil, fmt.Errorf("int(…) wants a number or text and got %s", typeName(v))
}

func (r *run) toFloat(v any) (any, error) {
	switch v := v.(type) {
	case int:
		return float64(v), nil
	case uint8:
		return float64(v), nil
	case float64:
		return v, nil
	case string:
		f, err := strconv.ParseFloat(v, 64)
		if paid := r.labour(len(v) / readUnit); paid != nil {
			return nil, paid
		}
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, fmt.Errorf("float(%s): not a finite number", brief(v))
		}
		return f, nil
	}
	return nil, fmt.Errorf("float(…) wants a number or text and got %s", typeName(v))
}

// str is string(…): the digits of a number, the text of text, the bytes of
// bytes as they are. Lists and maps have toJSON.
func (r *run) str(v any) (any, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case []byte:
		return string(v), r.grow(len(v))
	case nil:
		return "", errors.New(`string(nil): use x ?? "…" to say what nil becomes`)
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return strconv.Itoa(v), nil
	case uint8:
		return strconv.Itoa(int(v)), nil
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64), nil
	case bigInt:
		return string(v), nil
	}
	return "", fmt.Errorf("string(…) wants a scalar and got %s; use toJSON(…)", typeName(v))
}

// header gives the value of the last header of that key, as Kafka's own lastHeader does.
func (r *run) header(key string) (any, error) {
	for _, h := range slices.Backward(r.rec.Headers) {
		if string(h.Key) == key {
			return text(h.Value), r.grow(len(h.Value))
		}
	}
	return nil, nil
}

func (r *run) bytes(v any) (any, error) {
	if s, ok := v.(string); ok {
		if err := r.grow(len(s)); err != nil {
			return nil, err
		}
	}
	b, err := bytesOf(v)
	if b == nil {
		return nil, err
	}
	return b, err
}

// paid makes a function of text to text one that pays times the bytes of its argument.
func (r *run) paid(name string, times int, f func(string) string) func(a ...any) (any, error) {
	return func(a ...any) (any, error) {
		s, err := r.asText(name, a[0])
		if err == nil {
			err = r.grow(times * len(s))
		}
		if err != nil {
			return nil, err
		}
		return f(s), nil
	}
}

func toBase64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func (r *run) fromBase64(a ...any) (any, error) {
	s, err := r.asText("fromBase64", a[0])
	if err == nil {
		err = r.grow(len(s))
	}
	if err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("fromBase64(%s): not standard base64", brief(s))
	}
	return string(b), nil
}

func (r *run) split(a ...any) (any, error) {
	s, err := r.asText("split", a[0])
	if err != nil {
		return nil, err
	}
	sep, limit := a[1].(string), -1
	if len(a) == 3 {
		limit = a[2].(int)
	} else if r.splitList != nil && s == r.splitText && sep == r.splitSep {
		return r.splitList, nil
	}
	if err := r.grow(16 * (strings.Count(s, sep) + 1)); err != nil {
		return nil, err
	}
	list := strings.SplitN(s, sep, limit)
	if limit < 0 {
		r.splitText, r.splitSep, r.splitList = s, sep, list
	}
	return list, nil
}

func (r *run) fields(a ...any) (any, error) {
	s, err := r.asText("fields", a[0])
	if err == nil {
		err = r.grow(8 * len(s)) // a field takes at least two bytes of s and 16 of memory
	}
	if err != nil {
		return nil, err
	}
	return strings.Fields(s), nil
}

func (r *run) replace(a ...any) (any, error) {
	s, err := r.asText("replace", a[0])
	if err != nil {
		return nil, err
	}
	from, to := a[1].(string), a[2].(string)
	n := strings.Count(s, from)
	if len(to) > 0 && n > MaxGrowth/len(to) {
		return nil, r.grow(MaxGrowth + 1)
	}
	if err := r.grow(len(s) + n*len(to)); err != nil {
		return nil, err
	}
	return strings.ReplaceAll(s, from, to), nil
}

func (r *run) repeat(a ...any) (any, error) {
	s, err := r.asText("repeat", a[0])
	if err != nil {
		return nil, err
	}
	n := a[1].(int)
	switch {
	case n < 0:
		return nil, fmt.Errorf("repeat(…, %d): less than 0 times", n)
	case len(s) > 0 && n > MaxGrowth/len(s):
		return nil, r.grow(MaxGrowth + 1)
	}
	if err := r.grow(len(s) * n); err != nil {
		return nil, err
	}
	return strings.Repeat(s, n), nil
}

func (r *run) join(a ...any) (any, error) {
	sep := ""
	if len(a) == 2 {
		sep = a[1].(string)
	}
	list, ok := a[0].([]string)
	if !ok {
		anys, isList := a[0].([]any)
		if !isList {
			return nil, fmt.Errorf("join(…) wants a list of text and got %s", typeName(a[0]))
		}
		if err := r.grow(16 * len(anys)); err != nil {
			return nil, err
		}
		list = make([]string, len(anys))
		for i, v := range anys {
			s, err := r.asText("join", v)
			if err != nil {
				return nil, err
			}
			list[i] = s
		}
	}
	for _, s := range list {
		if err := r.grow(len(s) + len(sep)); err != nil {
			return nil, err
		}
	}
	return strings.Join(list, sep), nil
}

// pairs gives keys and values of a map in the order of its keys.
func pairs(v any) (ks, vs []any, err error) {
	m, ok := v.(map[string]any)
	if !ok {
		return nil, nil, fmt.Errorf("keys(…) and values(…) want a map and got %s", typeName(v))
	}
	names := make([]string, 0, len(m))
	for k := range m {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		ks, vs = append(ks, k), append(vs, m[k])
	}
	return ks, vs, nil
}

func (r *run) in(needle, list any) (any, error) {
	switch l := list.(type) {
	case map[string]any:
		k, ok := needle.(string)
		if !ok {
			return nil, fmt.Errorf("%s in a map: keys are text", typeName(needle))
		}
		_, ok = l[k]
		return ok, nil
	case []string:
		s, ok := needle.(string)
		return ok && slices.Contains(l, s), r.labour(len(l))
	}
	v := reflect.ValueOf(list)
	if list != nil && v.Kind() != reflect.Slice {
		return nil, fmt.Errorf("cannot look for something in %s", typeName(list))
	}
	if list == nil {
		return false, nil
	}
	if err := r.labour(v.Len()); err != nil {
		return nil, err
	}
	return runtime.In(needle, list), nil
}

// parseTime reads text as milliseconds since 1970: RFC 3339, or a layout of
// Go's time package. A time without an offset is in UTC, whatever the machine's zone.
func (r *run) parseTime(a ...any) (any, error) {
	s, err := r.asText("parseTime", a[0])
	if err != nil {
		return nil, err
	}
	layout := time.RFC3339Nano
	if len(a) == 2 {
		layout = a[1].(string)
	}
	t, err := time.ParseInLocation(layout, s, time.UTC)
	if err != nil {
		return nil, fmt.Errorf("parseTime(%s): not a time written as %s", brief(s), layout)
	}
	return int(t.UnixMilli()), nil
}

// formatTime writes milliseconds since 1970 in UTC: RFC 3339 with milliseconds, or a layout.
func formatTime(a ...any) (any, error) {
	layout := "2006-01-02T15:04:05.000Z07:00"
	if len(a) == 2 {
		layout = a[1].(string)
	}
	return time.UnixMilli(int64(a[0].(int))).UTC().Format(layout), nil
}

// brief quotes the beginning of text from a record for a message.
func brief(s string) string {
	if len(s) > 40 {
		return strconv.Quote(s[:40]) + "…"
	}
	return strconv.Quote(s)
}
