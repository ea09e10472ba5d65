// Package mapping turns a record into a row by expressions that the operator
// writes: one that keeps or leaves out (when), one that gives a new value, and
// one for each column. The language is expr, cut down until the same record
// gives the same row on every machine, in every attempt, for ever; DESIGN.md
// argues it and lists what an expression can use.
//
// Compile finds what can be found without a record: syntax, unknown names,
// types that cannot fit, and everything that is not deterministic. What only a
// record can show (text where a number is wanted, nil where text is) is an error of
// Map, which refuses that record and no other. Nothing that a record holds makes Map panic,
// and time and memory for one record are bounded by the Max constants.
//
// A Program is for one goroutine at a time; Clone gives another one.
package mapping

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/types"
	"github.com/expr-lang/expr/vm"

	"forebay/internal/record"
	"forebay/sinks"
)

// Bounds of one record's mapping; beyond one the record is refused with ErrBudget.
const (
	// MaxElements bounds the list and map elements that the expressions make.
	MaxElements = 1_000_000
	// MaxGrowth bounds the bytes of text and decoded JSON that they make.
	MaxGrowth = 64 << 20
	// MaxWork bounds the work of loops (map, filter, count …): a turn costs 1, and what
	// reads a whole text or list in it 1 for every 64 bytes or element.
	MaxWork = 20_000_000
	// maxNodes bounds the size of one expression, in nodes of its tree.
	maxNodes = 2_000
)

// ErrBudget says that the expressions asked for more than the bounds allow for
// one record. It is the same on every attempt.
var ErrBudget = errors.New("the mapping asks for too much")

// Config is the source of a mapping. Empty expressions are absent ones.
type Config struct {
	// When keeps the record if it is true. Absent keeps every record.
	When string
	// Value gives the value to write: text, bytes or nil. Absent keeps the record's own.
	Value string
	// Columns are evaluated in order.
	Columns []Column
}

// Column is one column: its name and the expression that gives it.
type Column struct {
	Name  string
	Value string
}

// Program is a compiled mapping. It is used by one goroutine at a time.
type Program struct {
	config Config
	names  []string
	when   *vm.Program
	value  *vm.Program
	cells  []*vm.Program

	uses map[string]bool
	env  map[string]any
	vm   vm.VM
	run  run
}

var _ sinks.Mapper = (*Program)(nil)

// Compile checks and compiles all expressions. The error lists everything that
// is wrong, one line each, and names the expression.
func Compile(c Config) (*Program, error) {
	c.Columns = slices.Clone(c.Columns)
	p := &Program{config: c, uses: map[string]bool{}, env: make(map[string]any, 8)}
	p.vm.MemoryBudget = MaxElements
	var errs []error
	bad := func(key, format string, args ...any) {
		errs = append(errs, &sinks.SettingError{Key: key, Err: fmt.Errorf(format, args...)})
	}
	one := func(key, what, source string, opts ...expr.Option) *vm.Program {
		if source == "" {
			return nil
		}
		prog, err := p.compile(source, opts...)
		if err != nil {
			bad(key, "%s%w", what, err)
		}
		return prog
	}
	p.when = one("when", "", c.When, expr.AsBool())
	if p.value = one("value", "", c.Value); p.value != nil && !fits(p.value, reflect.String, reflect.Slice) {
		bad("value", "gives %s, want text; use string(…) or toJSON(…)", kind(p.value))
	}
	for i, col := range c.Columns {
		key, what := fmt.Sprintf("columns[%d]", i), fmt.Sprintf("column %q: ", col.Name)
		switch {
		case col.Name == "":
			bad(key, "column %d has no name", i+1)
		case slices.ContainsFunc(p.names, func(n string) bool { return strings.EqualFold(n, col.Name) }):
			bad(key, "column %q is there twice (upper and lower case count as the same)", col.Name)
		case strings.TrimSpace(col.Value) == "":
			bad(key, "column %q has no expression", col.Name)
		}
		cell := one(key, what, col.Value)
		if k := kind(cell); k == "list" || k == "map" {
			bad(key, "%sgives a %s; use toJSON(…) or take one element", what, k)
		}
		p.names, p.cells = append(p.names, col.Name), append(p.cells, cell)
	}
	if c.When == "" && c.Value == "" && len(c.Columns) == 0 {
		errs = append(errs, errors.New("is empty: want when, value or columns"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return p, nil
}

// Clone gives an independent Program of the same source, for another goroutine.
func (p *Program) Clone() *Program {
	c, err := Compile(p.config)
	if err != nil { // the same source compiled before, and Compile reads nothing else
		panic("mapping: a compiled source does not compile: " + err.Error())
	}
	return c
}

// Columns names the columns, in order.
func (p *Program) Columns() []string { return p.names }

// Kinds tells what is known of each column before any record: "int", "float",
// "string", "bool", "bytes", or "any" when only a record can show.
func (p *Program) Kinds() []string {
	kinds := make([]string, len(p.cells))
	for i, c := range p.cells {
		kinds[i] = kind(c)
	}
	return kinds
}

func (p *Program) compile(source string, opts ...expr.Option) (*vm.Program, error) {
	g := &guard{run: &p.run, uses: p.uses, functions: p.run.functions()}
	opts = append(opts, expr.Env(environment()), expr.MaxNodes(maxNodes))
	for _, f := range g.functions {
		opts = append(opts, expr.Function(f.name, f.call, f.types...))
	}
	prog, err := expr.Compile(source, append(slices.Clone(opts), expr.Patch(g))...)
	if refused := g.err(); refused != nil {
		return nil, oneLine(refused)
	}
	// With something that patches, expr forgives whatever is wrong among the arguments of a call
	// whose type it knows already. So it also has to pass as it stands.
	if _, plain := expr.Compile(source, append(opts, expr.Optimize(false))...); plain != nil {
		err = plain
	}
	if err != nil {
		return nil, oneLine(err)
	}
	return prog, nil
}

// environment declares the names that a record fills.
func environment() types.Map {
	return types.Map{
		"topic": types.String, "partition": types.Int, "offset": types.Int, "timestamp": types.Int,
		"key": types.Any, "value": types.Any, "headers": types.TypeOf([]any{}),
	}
}

// Map fills row for rec. See sinks.Mapper.
func (p *Program) Map(rec *record.Record, row *sinks.Row) (bool, error) {
	p.run.reset(rec)
	p.fill(rec)
	row.Record, row.Value, row.Columns = rec, rec.Value, row.Columns[:0]
	if p.when != nil {
		keep, err := p.vm.Run(p.when, p.env)
		if err != nil {
			return false, fmt.Errorf("mapping when: %w", reason(err))
		}
		if keep != true {
			return false, nil
		}
	}
	if p.value != nil {
		v, err := p.vm.Run(p.value, p.env)
		if err == nil {
			row.Value, err = bytesOf(v)
		}
		if err != nil {
			return false, fmt.Errorf("mapping value: %w", reason(err))
		}
	}
	for i, cell := range p.cells {
		v, err := p.vm.Run(cell, p.env)
		if err == nil {
			v, err = scalar(v)
		}
		if err != nil {
			return false, fmt.Errorf("mapping column %q: %w", p.names[i], reason(err))
		}
		row.Columns = append(row.Columns, v)
	}
	return true, nil
}

// fill sets the names that the expressions use, and no others.
func (p *Program) fill(rec *record.Record) {
	for name := range p.uses {
		switch name {
		case "topic":
			p.env[name] = rec.Topic
		case "partition":
			p.env[name] = int(rec.Partition)
		case "offset":
			p.env[name] = int(rec.Offset)
		case "timestamp":
			p.env[name] = int(rec.Timestamp)
		case "key":
			p.env[name] = text(rec.Key)
		case "value":
			p.env[name] = text(rec.Value)
		case "headers":
			p.env[name] = headers(rec)
		}
	}
}

// reason makes a runtime error one line in the operator's words.
func reason(err error) error {
	if errors.Is(err, ErrBudget) {
		return fmt.Errorf("%w for one record", ErrBudget)
	}
	var fe *file.Error
	if !errors.As(err, &fe) {
		return err
	}
	msg := fe.Message
	if msg == "memory budget exceeded" {
		return fmt.Errorf("%w for one record: more than %d elements", ErrBudget, MaxElements)
	}
	if strings.Contains(msg, "interface conversion") {
		_, is, _ := strings.Cut(msg, " is ")
		got, want, _ := strings.Cut(is, ", not ")
		msg = fmt.Sprintf("wants %s and got %s", want, got)
	}
	return fmt.Errorf("%s (at character %d)", strings.ToValidUTF8(msg, "\uFFFD"), fe.Column+1)
}

// oneLine drops the picture that expr draws below its compile errors.
func oneLine(err error) error {
	var fe *file.Error
	if errors.As(err, &fe) {
		return fmt.Errorf("%s (line %d, character %d)", fe.Message, fe.Line, fe.Column+1)
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	return errors.New(first)
}
