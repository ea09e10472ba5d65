// Package lines turns rows into the bytes of lines, for the sinks that write
// text: JSON lines, CSV, and raw values. It appends to the caller's buffer and
// allocates nothing of its own per row.
//
// # JSON lines
//
//	{"topic":…,"partition":…,"offset":…,"timestamp":…,"key":…,"value":…,"headers":[["k",…],…]}
//
// Always all fields, in that order, in one line that ends with LF. timestamp is
// in Unix milliseconds. Key, value and header values are written by the
// encoding: base64 and utf8 as a string, json as the document itself without its
// white space; nil is null in each of them. Header keys are strings whatever the encoding. Strings escape
// what JSON requires and U+2028 and U+2029 (some readers break lines there), and
// nothing for HTML.
//
// # CSV
//
// The mapping's columns under a header row, RFC 4180 but with LF. An empty string is quoted
// and nil is not, so that readers which care can tell them apart; the nil of a table of one column
// is quoted as well, for its line would be blank otherwise. Byte columns are written by the encoding: base64, or as text.
//
// # Raw
//
// The value and LF. An empty value is an empty line; LF within a value stays.
//
// # What is refused
//
// What the encoding cannot carry: invalid UTF-8 under utf8 and json, anything but a JSON
// document under json, a header key that is not UTF-8; under raw, a nil value;
// under CSV, a string that is not UTF-8.
package lines

import (
	"encoding/base64"
	"errors"
	"fmt"
	"unicode/utf8"

	"forebay/sinks"
)

// Format is the form of a line. Its text is also the suffix of file names.
type Format string

// The formats.
const (
	JSONL Format = "jsonl"
	CSV   Format = "csv"
	Raw   Format = "raw"
)

// Encoding says how bytes are carried in a line of text.
type Encoding string

// The encodings.
const (
	Base64 Encoding = "base64"
	UTF8   Encoding = "utf8"
	JSON   Encoding = "json"
)

// Reasons of refusals.
var (
	ErrNotUTF8 = errors.New("not valid UTF-8")
	ErrNotJSON = errors.New("not a JSON document")
	ErrNil     = errors.New("nil, which raw lines cannot tell from empty")
)

// Encoder appends rows as lines. It is immutable, and safe for concurrent use.
type Encoder struct {
	format   Format
	encoding Encoding
	columns  []string
}

// New checks that format, encoding and the mapping's columns go together.
func New(format Format, encoding Encoding, columns []string) (*Encoder, error) {
	var errs []error
	switch format {
	case JSONL, Raw:
		if len(columns) > 0 {
			errs = append(errs, fmt.Errorf("format %q writes no columns: let the mapping give a value, or use format \"csv\"", format))
		}
	case CSV:
		if len(columns) == 0 {
			errs = append(errs, errors.New(`format "csv" needs a mapping that gives columns`))
		}
		for _, c := range columns {
			if !utf8.ValidString(c) {
				errs = append(errs, fmt.Errorf("column %q: %w", c, ErrNotUTF8))
			}
		}
	default:
		errs = append(errs, fmt.Errorf(`format %q: want "jsonl", "csv" or "raw"`, format))
	}
	switch encoding {
	case Base64, UTF8, JSON:
	default:
		errs = append(errs, fmt.Errorf(`encoding %q: want "base64", "utf8" or "json"`, encoding))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Encoder{format: format, encoding: encoding, columns: columns}, nil
}

// Header gives what comes before the first line: the header row of CSV, else nothing.
func (e *Encoder) Header(dst []byte) []byte {
	if e.format != CSV {
		return dst
	}
	for i, c := range e.columns {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendField(dst, c, len(e.columns) == 1)
	}
	return append(dst, '\n')
}

// Append appends the line of a row to dst. An error refuses the record, with the
// reason, and gives dst back as it was.
func (e *Encoder) Append(dst []byte, row *sinks.Row) ([]byte, error) {
	var (
		out []byte
		err error
	)
	switch e.format {
	case CSV:
		out, err = e.appendCSV(dst, row)
	case Raw:
		if row.Value == nil {
			return dst, fmt.Errorf("value: %w", ErrNil)
		}
		out = append(append(dst, row.Value...), '\n')
	default:
		out, err = e.appendJSONL(dst, row)
	}
	if err != nil {
		return dst, err
	}
	return out, nil
}

// appendBytes appends bytes that are not nil, as the value of a JSON field.
func (e *Encoder) appendBytes(dst, b []byte) ([]byte, error) {
	switch e.encoding {
	case Base64:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, b)
		return append(dst, '"'), nil
	case UTF8:
		return appendString(dst, b)
	default:
		return appendCompact(dst, b)
	}
}
