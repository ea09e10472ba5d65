package sinks

import "forebay/internal/record"

// Row is what a sink writes for one record. Everything in it is valid until the
// Row is filled again or the record that it came from is given back.
type Row struct {
	// Record is the record as it was read: topic, partition, offset, timestamp,
	// key and headers are written from here, whatever the mapping does.
	Record *record.Record
	// Value is what is written as the value: the record's own or the mapping's.
	// Nil is kept apart from empty.
	Value []byte
	// Columns holds one value for each of the mapping's columns, in their order: nil, bool,
	// int64, float64, string or []byte. It is empty when the mapping has no columns.
	Columns []any
}

// Mapper is the operator's transform of one record. It is deterministic, it
// touches nothing outside its arguments, and it is used by one goroutine at a time.
type Mapper interface {
	// Columns names the columns that Map fills, in order; empty when the mapping
	// gives a value only. It is the same for the life of the Mapper.
	Columns() []string
	// Map fills row for rec, every field of it; the slices that row comes with may be used again.
	// Without keep the mapping leaves the record out by the operator's own word
	// (when), which is no refusal. An error refuses this record, with that reason.
	Map(rec *record.Record, row *Row) (keep bool, err error)
}

// Map fills row through m. A nil m keeps the record as it is.
func Map(m Mapper, rec *record.Record, row *Row) (keep bool, err error) {
	if m != nil {
		return m.Map(rec, row)
	}
	row.Record, row.Value, row.Columns = rec, rec.Value, row.Columns[:0]
	return true, nil
}

// Columns names the columns of m, none for a nil m.
func Columns(m Mapper) []string {
	if m == nil {
		return nil
	}
	return m.Columns()
}
