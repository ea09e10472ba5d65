package sqlite

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"forebay/sinks"
)

// column is one column of the table that the sink fills.
type column struct {
	name string
	// kind is INTEGER, REAL, TEXT, BLOB or ANY.
	kind string
	key  bool
	// update is the expression of Accumulate, "" when the first value stays.
	update string
}

// table is the statements for one destination table.
type table struct {
	name string
	mode Mode
	cols []column
	// mapped tells that the columns are the mapping's and not the record's own.
	mapped bool
}

// The columns of a record without a mapping, in order.
const (
	colTopic = iota
	colPartition
	colOffset
	colTimestamp
	colKey
	colValue
	colHeaders
)

func recordColumns() []column {
	return []column{
		colTopic: {name: "topic", kind: "TEXT"}, colPartition: {name: "partition", kind: "INTEGER"},
		colOffset: {name: "offset", kind: "INTEGER"}, colTimestamp: {name: "timestamp", kind: "INTEGER"},
		colKey: {name: "key", kind: "BLOB"}, colValue: {name: "value", kind: "BLOB"}, colHeaders: {name: "headers", kind: "TEXT"},
	}
}

// mappedColumns are the mapping's columns, with what it knows of their types.
func mappedColumns(m sinks.Mapper) []column {
	names := sinks.Columns(m)
	var kinds []string
	if k, ok := m.(interface{ Kinds() []string }); ok {
		kinds = k.Kinds()
	}
	cols := make([]column, len(names))
	for i, n := range names {
		cols[i] = column{name: n, kind: "ANY"}
		if i < len(kinds) {
			switch kinds[i] {
			case "int", "bool":
				cols[i].kind = "INTEGER"
			case "float":
				cols[i].kind = "REAL"
			case "string":
				cols[i].kind = "TEXT"
			case "bytes":
				cols[i].kind = "BLOB"
			}
		}
	}
	return cols
}

// newTable checks what cfg says of the table, all at once.
func newTable(cfg *Config) (*table, error) {
	t := &table{name: cfg.Table, mode: cfg.Mode, cols: mappedColumns(cfg.Mapper), mapped: true}
	if len(t.cols) == 0 {
		t.cols, t.mapped = recordColumns(), false
	}
	errs := checkMode(cfg)
	switch lower := lowerASCII(cfg.Table); {
	case cfg.Table == "":
		errs = append(errs, bad("table", "is required"))
	case strings.ContainsRune(cfg.Table, 0):
		errs = append(errs, bad("table", "%q: a name holds no zero byte", cfg.Table))
	case strings.HasPrefix(lower, "forebay_") || strings.HasPrefix(lower, "sqlite_"):
		errs = append(errs, bad("table", "%q: names that begin with forebay_ and sqlite_ are taken", cfg.Table))
	}
	return t, errors.Join(append(errs, t.declare(cfg)...)...)
}

// checkMode checks what the mode says of key and update.
func checkMode(cfg *Config) (errs []error) {
	switch cfg.Mode {
	case Insert:
		if len(cfg.Key) > 0 {
			errs = append(errs, bad("key", `has no meaning with mode = "insert"`))
		}
	case Upsert, Accumulate:
		if len(cfg.Key) == 0 {
			errs = append(errs, bad("key", `is required with mode = %q, such as ["page"]`, cfg.Mode))
		}
	default:
		return append(errs, bad("mode", `%q: want "insert", "upsert" or "accumulate"`, cfg.Mode))
	}
	if (cfg.Mode == Accumulate) != (len(cfg.Update) > 0) {
		errs = append(errs, bad("update", `and mode = "accumulate" go together, such as { score = "score + excluded.score" }`))
	}
	return errs
}

// bad is what is wrong with one setting.
func bad(key, format string, args ...any) error {
	return &sinks.SettingError{Key: key, Err: fmt.Errorf(format, args...)}
}

// declare gives the columns their key, types and expressions.
func (t *table) declare(cfg *Config) (errs []error) {
	wrong := func(key, format string, args ...any) { errs = append(errs, bad(key, format, args...)) }
	find := func(key, name string) *column {
		for i := range t.cols {
			if lowerASCII(t.cols[i].name) == lowerASCII(name) {
				return &t.cols[i]
			}
		}
		wrong(key, "%q is no column of the mapping: there are %s", name, t.names())
		return nil
	}
	for i, k := range cfg.Key {
		key := fmt.Sprintf("key[%d]", i)
		if c := find(key, k); c != nil {
			if c.key {
				wrong(key, "names %q twice", k)
			}
			c.key = true
		}
	}
	for _, name := range sorted(cfg.Types) {
		kind, key := strings.ToUpper(strings.TrimSpace(cfg.Types[name])), "types."+name
		c := find(key, name)
		if !slices.Contains([]string{"INTEGER", "REAL", "TEXT", "BLOB", "ANY"}, kind) {
			wrong(key, "%q: want INTEGER, REAL, TEXT, BLOB or ANY", cfg.Types[name])
		} else if c != nil {
			c.kind = kind
		}
	}
	for _, name := range sorted(cfg.Update) {
		key := "update." + name
		c := find(key, name)
		if c != nil && c.key {
			wrong(key, "changes %q, which is part of the key", name)
		}
		if err := checkExpression(cfg.Update[name]); err != nil {
			wrong(key, "%q: %w", cfg.Update[name], err)
		} else if c != nil {
			c.update = cfg.Update[name]
		}
	}
	return errs
}

func sorted(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

func (t *table) names() string {
	names := make([]string, len(t.cols))
	for i, c := range t.cols {
		names[i] = c.name
	}
	return strings.Join(names, ", ")
}

// quote makes any name an SQL identifier.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// createSQL makes the table. Key columns and accumulated ones are NOT NULL: to
// SQLite each NULL is another key, and a total plus NULL is NULL.
func (t *table) createSQL() string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE %s (", quote(t.name))
	var keys []string
	for i, c := range t.cols {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %s", quote(c.name), c.kind)
		if c.key || c.update != "" {
			b.WriteString(" NOT NULL")
		}
		if c.key {
			keys = append(keys, quote(c.name))
		}
	}
	if len(keys) > 0 {
		fmt.Fprintf(&b, ", PRIMARY KEY (%s)", strings.Join(keys, ", "))
	}
	b.WriteString(") STRICT")
	return b.String()
}

// insertSQL applies one row. OR ABORT overrides what the table's own constraints may say
// (ON CONFLICT ROLLBACK would end the transaction in its middle, IGNORE would lose the
// row in silence): a row that does not fit fails alone and is refused by name.
func (t *table) insertSQL() string {
	var names, marks, keys, sets []string
	for _, c := range t.cols {
		n := quote(c.name)
		names, marks = append(names, n), append(marks, "?")
		switch {
		case c.key:
			keys = append(keys, n)
		case t.mode == Upsert:
			sets = append(sets, n+" = excluded."+n)
		case c.update != "":
			sets = append(sets, n+" = ("+c.update+")")
		}
	}
	q := fmt.Sprintf("INSERT OR ABORT INTO %s (%s) VALUES (%s)", quote(t.name), strings.Join(names, ", "), strings.Join(marks, ", "))
	switch {
	case len(keys) == 0:
	case len(sets) == 0:
		q += fmt.Sprintf(" ON CONFLICT (%s) DO NOTHING", strings.Join(keys, ", "))
	default:
		q += fmt.Sprintf(" ON CONFLICT (%s) DO UPDATE SET %s", strings.Join(keys, ", "), strings.Join(sets, ", "))
	}
	return q
}

// checkExpression refuses what would reach out of its place in the statement: the
// driver runs a second statement after a semicolon without a word.
func checkExpression(e string) error {
	depth := 0
	for i := 0; i < len(e); i++ {
		switch c := e[i]; c {
		case '\'', '"', '`', '[':
			closing := c
			if c == '[' {
				closing = ']'
			}
			end := strings.IndexByte(e[i+1:], closing)
			if end < 0 {
				return fmt.Errorf("%c without an end", c)
			}
			i += end + 1 // a doubled quote begins the next one
		case '(':
			depth++
		case ')':
			if depth--; depth < 0 {
				return errors.New("a ) too many")
			}
		case ';', 0:
			return errors.New("want one expression")
		case '?', ':', '@', '$':
			return fmt.Errorf("%c: parameters have no value here", c)
		case '-', '/':
			if strings.HasPrefix(e[i:], "--") || strings.HasPrefix(e[i:], "/*") {
				return errors.New("comments are not taken")
			}
		}
	}
	if depth != 0 {
		return errors.New("a ) is missing")
	}
	if strings.TrimSpace(e) == "" {
		return errors.New("is empty")
	}
	return nil
}
