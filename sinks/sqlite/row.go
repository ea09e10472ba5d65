package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"unicode/utf8"
	"unsafe"

	"forebay/internal/record"
	"forebay/sinks"
)

// chunk is a run of rows that one call hands to SQLite. It owns all its memory: a
// call that hangs is left behind with it, and a fresh one is made.
type chunk struct {
	cols  int
	rows  []entry
	args  []driver.NamedValue
	bytes []byte
}

// entry is one record of a chunk: a row, or a refusal that keeps its place in the order.
type entry struct {
	id      record.RecordID
	refused error
}

func newChunk(cols int) *chunk {
	return &chunk{cols: cols, args: make([]driver.NamedValue, 0, chunkRows*cols), rows: make([]entry, 0, chunkRows)}
}

func (c *chunk) reset() {
	clear(c.args) // lets go of a large row
	c.rows, c.args, c.bytes = c.rows[:0], c.args[:0], c.bytes[:0]
	if cap(c.bytes) > 2*chunkBytes {
		c.bytes = nil
	}
}

// full tells whether a record with so many bytes more goes into the next chunk.
func (c *chunk) full(more int) bool {
	return len(c.rows) == chunkRows || len(c.rows) > 0 && len(c.bytes)+more > chunkBytes
}

// add takes a copy of a row. What the table cannot take is known here or when SQLite says so.
func (c *chunk) add(t *table, row *sinks.Row) {
	at := len(c.args)
	err := c.bind(t, row)
	if err != nil {
		c.args = c.args[:at]
	}
	c.note(row.Record, err)
}

// note ends an entry.
func (c *chunk) note(rec *record.Record, refused error) {
	e := entry{id: record.RecordID{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset}, refused: refused}
	if n := len(c.rows); n > 0 && c.rows[n-1].id.Topic == rec.Topic {
		e.id.Topic = c.rows[n-1].id.Topic
	} else {
		e.id.Topic = string([]byte(rec.Topic))
	}
	c.rows = append(c.rows, e)
}

func (c *chunk) bind(t *table, row *sinks.Row) error {
	if !t.mapped {
		return c.bindRecord(t, row)
	}
	if len(row.Columns) != len(t.cols) {
		return fmt.Errorf("the mapping gave %d columns, want %d", len(row.Columns), len(t.cols))
	}
	for i, v := range row.Columns {
		if err := c.value(&t.cols[i], v); err != nil {
			return err
		}
	}
	return nil
}

func (c *chunk) bindRecord(t *table, row *sinks.Row) error {
	rec := row.Record
	heads, err := appendHeaders(nil, rec.Headers)
	if err != nil {
		return err
	}
	for i := range t.cols {
		var v any
		switch i {
		case colTopic:
			v = rec.Topic
		case colPartition:
			v = int64(rec.Partition)
		case colOffset:
			v = rec.Offset
		case colTimestamp:
			v = rec.Timestamp
		case colKey:
			v = orNil(rec.Key)
		case colValue:
			v = orNil(row.Value)
		case colHeaders:
			v = heads
		}
		if err := c.value(&t.cols[i], v); err != nil {
			return err
		}
	}
	return nil
}

func orNil(b []byte) any {
	if b == nil {
		return nil
	}
	return b
}

// value binds one column. Text and bytes follow the column's declared type, so
// that one column does not hold both.
func (c *chunk) value(col *column, v any) error {
	switch x := v.(type) {
	case nil:
		if col.key {
			return fmt.Errorf("column %q is part of the key and has no value", col.name)
		}
	case string:
		if col.kind == "BLOB" {
			v = c.keep(unsafe.Slice(unsafe.StringData(x), len(x))) // only read, and only here
		} else if !utf8.ValidString(x) {
			return notText(col)
		} else {
			kept := c.keep(unsafe.Slice(unsafe.StringData(x), len(x)))
			v = unsafe.String(unsafe.SliceData(kept), len(kept)) // the chunk's own bytes, unchanged until reset
		}
	case []byte:
		kept := c.keep(x)
		v = kept
		if col.kind == "TEXT" {
			if !utf8.Valid(x) {
				return notText(col)
			}
			v = unsafe.String(unsafe.SliceData(kept), len(kept))
		}
	case bool:
		v = int64(0)
		if x {
			v = int64(1)
		}
	}
	c.args = append(c.args, driver.NamedValue{Ordinal: len(c.args)%c.cols + 1, Value: v})
	return nil
}

func notText(col *column) error {
	return fmt.Errorf("column %q takes text and this is not valid UTF-8: declare it BLOB in types", col.name)
}

// keep copies b into the chunk. The result is never nil, which SQLite would take for NULL.
func (c *chunk) keep(b []byte) []byte {
	if cap(c.bytes)-len(c.bytes) < len(b) {
		// Earlier values keep the array they lie in.
		c.bytes = make([]byte, 0, max(chunkBytes, len(b)))
	}
	at := len(c.bytes)
	c.bytes = append(c.bytes, b...)
	return c.bytes[at:len(c.bytes):len(c.bytes)]
}

// size is about what a row takes in a chunk.
func size(row *sinks.Row) int {
	n := len(row.Value)
	if len(row.Columns) == 0 {
		n += len(row.Record.Key)
		for _, h := range row.Record.Headers {
			n += len(h.Key) + len(h.Value)
		}
		return n
	}
	n = 0
	for _, v := range row.Columns {
		switch v := v.(type) {
		case string:
			n += len(v)
		case []byte:
			n += len(v)
		}
	}
	return n
}

// appendHeaders writes [["k","v"],…], null for a nil value.
func appendHeaders(b []byte, hs []record.Header) ([]byte, error) {
	b = append(b, '[')
	for i, h := range hs {
		if i > 0 {
			b = append(b, ',')
		}
		if !utf8.Valid(h.Key) || !utf8.Valid(h.Value) {
			return nil, errors.New("a header is not valid UTF-8, and the column headers is JSON")
		}
		b = append(b, '[')
		b = appendText(b, h.Key)
		b = append(b, ',')
		if h.Value == nil {
			b = append(b, "null"...)
		} else {
			b = appendText(b, h.Value)
		}
		b = append(b, ']')
	}
	return append(b, ']'), nil
}

func appendText(b, text []byte) []byte {
	b = append(b, '"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20:
			b = fmt.Appendf(b, `\u%04x`, c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
