package mapping

import (
	"fmt"
	"math"
	"reflect"

	"github.com/expr-lang/expr/vm"
	"github.com/expr-lang/expr/vm/runtime"

	"forebay/internal/record"
)

// run is what the functions know of the record at hand: the record itself, what
// of its budget is spent, and the last results of json and split, since several columns
// usually take the same text apart.
type run struct {
	rec  *record.Record
	work int
	grew int

	jsonText  string
	jsonValue any
	splitText string
	splitSep  string
	splitList []string
}

func (r *run) reset(rec *record.Record) {
	*r = run{rec: rec}
}

// readUnit is how many bytes of text one unit of work reads. Matched against a
// pattern, each byte is a unit.
const readUnit = 64

// step pays for one turn of a loop.
func (r *run) step() error { return r.labour(1) }

// scan pays for matching a text against a pattern.
func (r *run) scan(a ...any) (any, error) {
	s, _ := a[0].(string)
	return a[0], r.labour(len(s))
}

// read pays for reading a whole text or list.
func (r *run) read(a ...any) (any, error) {
	switch v := a[0].(type) {
	case string:
		return v, r.labour(len(v) / readUnit)
	case nil, int, float64, bool:
		return v, nil
	default:
		units := 1
		if rv := reflect.ValueOf(v); rv.Kind() == reflect.Slice || rv.Kind() == reflect.Map {
			units = rv.Len()
		}
		return v, r.labour(units)
	}
}

func (r *run) labour(units int) error {
	if r.work += units; r.work > MaxWork {
		return fmt.Errorf("%w: more than %d steps of work", ErrBudget, MaxWork)
	}
	return nil
}

// grow pays for n bytes before they are made.
func (r *run) grow(n int) error {
	if n > MaxGrowth || r.grew+n > MaxGrowth {
		return fmt.Errorf("%w: more than %d bytes", ErrBudget, MaxGrowth)
	}
	r.grew += n
	return nil
}

// text gives bytes of the record as expressions see them: a string of the
// same bytes, valid UTF-8 or not, and nil for nil.
func text(b []byte) any {
	if b == nil {
		return nil
	}
	return string(b)
}

func headers(rec *record.Record) []any {
	list := make([]any, len(rec.Headers))
	for i, h := range rec.Headers {
		list[i] = []any{string(h.Key), text(h.Value)}
	}
	return list
}

// scalar makes the result of a column one of the types of sinks.Row.
func scalar(v any) (any, error) {
	switch v := v.(type) {
	case nil, bool, int64, string, []byte:
		return v, nil
	case int:
		return int64(v), nil
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("gives %v, which no column holds", v)
		}
		return v, nil
	case uint8: // a byte of a string
		return int64(v), nil
	case bigInt:
		return nil, fmt.Errorf("%s does not fit 64 bits; use string(…) to keep its digits", brief(string(v)))
	}
	return nil, fmt.Errorf("gives %s; use toJSON(…) or take one element", typeName(v))
}

// bytesOf makes the result of the value expression bytes.
func bytesOf(v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []byte(v), nil
	case []byte:
		return v, nil
	}
	return nil, fmt.Errorf("gives %s, want text or nil; use string(…) or toJSON(…)", typeName(v))
}

// typeName gives the word for a value's type in messages.
func typeName(v any) string {
	switch v := v.(type) {
	case nil:
		return "nil"
	case bool:
		return "a bool"
	case int, int64, uint8:
		return "an int"
	case float64:
		return "a float"
	case string:
		return "text"
	case []byte:
		return "bytes"
	case bigInt:
		return "an int beyond 64 bits"
	default:
		if reflect.TypeOf(v).Kind() == reflect.Map {
			return "a map"
		}
		return "a list"
	}
}

// kind names what the checker knows of an expression's result.
func kind(p *vm.Program) string {
	if p == nil {
		return "any"
	}
	t := p.Node().Type()
	if t == nil {
		return "any"
	}
	switch t.Kind() {
	case reflect.Int, reflect.Int64, reflect.Uint8:
		return "int"
	case reflect.Float64:
		return "float"
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "bool"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "bytes"
		}
		return "list"
	case reflect.Map:
		return "map"
	}
	return "any"
}

// fits tells whether the result may be of one of these kinds, as far as known.
func fits(p *vm.Program, kinds ...reflect.Kind) bool {
	k := kind(p)
	if k == "any" || p.Node().Type() == nil {
		return true
	}
	for _, want := range kinds {
		if p.Node().Type().Kind() == want && k != "list" {
			return true
		}
	}
	return false
}

// arithmetic does +, - and * with whole numbers that may not wrap, and text
// that pays for its growth; everything else is expr's own.
func (r *run) arithmetic(op byte, a, b any) (any, error) {
	x, xInt := a.(int)
	y, yInt := b.(int)
	if xInt && yInt {
		return checkedInt(op, x, y)
	}
	if s, ok := a.(string); ok && op == '+' {
		if t, ok := b.(string); ok {
			if err := r.grow(len(s) + len(t)); err != nil {
				return nil, err
			}
			return s + t, nil
		}
	}
	if !isNumber(a) || !isNumber(b) {
		return nil, fmt.Errorf("cannot do %s %c %s", typeName(a), op, typeName(b))
	}
	switch op {
	case '+':
		return runtime.Add(a, b), nil
	case '-':
		return runtime.Subtract(a, b), nil
	}
	return runtime.Multiply(a, b), nil
}

func isNumber(v any) bool {
	switch v.(type) {
	case int, float64, uint8:
		return true
	}
	return false
}

func checkedInt(op byte, x, y int) (any, error) {
	var z int
	var ok bool
	switch op {
	case '+':
		z = x + y
		ok = (z > x) == (y > 0)
	case '-':
		z = x - y
		ok = (z < x) == (y > 0)
	default:
		z = x * y
		ok = x == 0 || (z/x == y && (x != -1 || y != math.MinInt))
	}
	if !ok {
		return nil, fmt.Errorf("%d %c %d does not fit 64 bits", x, op, y)
	}
	return z, nil
}
