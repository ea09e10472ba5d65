package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Kind names the table that says what a sink is: "file", "sqlite" or "stdout",
// "" when there is none.
func (s *Sink) Kind() string {
	if kinds := s.kinds(); len(kinds) > 0 {
		return kinds[0]
	}
	return ""
}

func (s *Sink) kinds() []string {
	var kinds []string
	if s.File != nil {
		kinds = append(kinds, "file")
	}
	if s.SQLite != nil {
		kinds = append(kinds, "sqlite")
	}
	if s.Stdout != nil {
		kinds = append(kinds, "stdout")
	}
	return kinds
}

// strongest is what each kind of sink can promise.
var strongest = map[string]string{"file": "exactly-once", "sqlite": "exactly-once", "stdout": "at-least-once"}

// fillSinks gives the keys of the sinks that were left out their defaults.
func (c *Config) fillSinks() {
	orElse := func(value *string, fallback string) {
		if *value == "" {
			*value = fallback
		}
	}
	for name, sink := range c.Sinks {
		orElse(&sink.Delivery, strongest[sink.Kind()])
		if f := sink.File; f != nil {
			orElse(&f.Format, "jsonl")
			orElse(&f.Compression, "none")
			orElse(&f.Encoding, "base64")
		}
		if q := sink.SQLite; q != nil {
			orElse(&q.Mode, "insert")
			if q.Create == nil {
				create := true
				q.Create = &create
			}
		}
		if o := sink.Stdout; o != nil {
			orElse(&o.Format, "jsonl")
			orElse(&o.Encoding, "utf8")
		}
		c.Sinks[name] = sink
	}
}

func validateSink(key, sinkName string, sink *Sink, s *source) {
	if !name.MatchString(sinkName) {
		s.add(key, "a sink's name "+nameRule)
	}
	switch kinds := sink.kinds(); len(kinds) {
	case 0:
		s.add(key, "does not say what it is: add one of [%s.file], [%s.sqlite] or [%s.stdout]", key, key, key)
	case 1:
	default:
		s.add(key, "is %s at once: keep one of them", strings.Join(kinds, " and "))
	}
	if sink.Delivery != "" { // as it is where no kind gives a default
		oneOf(s, key+".delivery", sink.Delivery, "at-most-once", "at-least-once", "exactly-once")
	}
	if sink.Kind() != "" && sink.Delivery == "exactly-once" && strongest[sink.Kind()] != "exactly-once" {
		s.add(key+".delivery", "a %s sink cannot do exactly-once; the strongest it can do is %s", sink.Kind(), strongest[sink.Kind()])
	}
	topicNames(key+".topics", sink.Topics, s)
	oneOf(s, key+".refused", sink.Refused, "block", "park", "drop")
	oneOf(s, key+".startFrom", sink.StartFrom, "oldest", "newest")
	within(s, key+".timeout", sink.Timeout, Duration(time.Second), Duration(24*time.Hour), "1s", "24h")
	within(s, key+".backoff.initial", sink.Backoff.Initial, Duration(time.Millisecond), sink.Backoff.Max, "1ms", "backoff.max")
	within(s, key+".backoff.max", sink.Backoff.Max, Duration(10*time.Millisecond), Duration(time.Hour), "10ms", "1h")
	if sink.File != nil {
		validateFile(key+".file", sink, s)
	}
	if sink.SQLite != nil {
		validateSQLite(key+".sqlite", sink, s)
	}
	if sink.Stdout != nil {
		oneOf(s, key+".stdout.format", sink.Stdout.Format, "jsonl", "raw")
		oneOf(s, key+".stdout.encoding", sink.Stdout.Encoding, "base64", "utf8", "json")
	}
}

func validateFile(key string, sink *Sink, s *source) {
	f := sink.File
	required(s, key+".dir", f.Dir, `"/var/lib/forebay-out/pages"`)
	oneOf(s, key+".format", f.Format, "jsonl", "csv", "raw")
	oneOf(s, key+".compression", f.Compression, "none", "gzip", "zstd")
	oneOf(s, key+".encoding", f.Encoding, "base64", "utf8", "json")
	if f.Format == "csv" && (sink.Mapping == nil || len(sink.Mapping.Columns) == 0) {
		s.add(key+".format", "csv writes the columns of a mapping: add mapping.columns")
	}
}

func validateSQLite(key string, sink *Sink, s *source) {
	q := sink.SQLite
	required(s, key+".path", q.Path, `"/var/lib/forebay-out/pages.db"`)
	required(s, key+".table", q.Table, `"pages"`)
	oneOf(s, key+".mode", q.Mode, "insert", "upsert", "accumulate")
	if (q.Mode == "upsert" || q.Mode == "accumulate") && len(q.Key) == 0 {
		s.add(key+".key", `is required with mode = %q, such as ["page"]`, q.Mode)
	}
	if q.Mode == "insert" && len(q.Key) > 0 {
		s.add(key+".key", `has no meaning with mode = "insert"`)
	}
	if q.Mode == "accumulate" && len(q.Update) == 0 {
		s.add(key+".update", `is required with mode = "accumulate", such as { score = "score + excluded.score" }`)
	}
	if q.Mode != "accumulate" && len(q.Update) > 0 {
		s.add(key+".update", `goes with mode = "accumulate"`)
	}
	if sink.Mapping == nil || len(sink.Mapping.Columns) == 0 {
		return
	}
	columns := map[string]bool{}
	for _, column := range sink.Mapping.Columns {
		columns[column.Name] = true
	}
	check := func(key, column string) {
		if !columns[column] {
			s.add(key, "%q is not a column of the mapping", column)
		}
	}
	for i, column := range q.Key {
		check(fmt.Sprintf("%s.key[%d]", key, i), column)
	}
	for _, column := range slices.Sorted(maps.Keys(q.Update)) {
		check(key+".update."+column, column)
	}
	for _, column := range slices.Sorted(maps.Keys(q.Types)) {
		check(key+".types."+column, column)
	}
}
