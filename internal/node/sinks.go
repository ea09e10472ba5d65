package node

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"forebay/internal/config"
	"forebay/sinks"
	"forebay/sinks/file"
	"forebay/sinks/lines"
	"forebay/sinks/mapping"
	"forebay/sinks/sqlite"
	"forebay/sinks/stdout"
)

// newSink builds one sink from its configuration, touching nothing outside the
// process. Each lane and term gets its own: a sink is for one goroutine.
func newSink(name string, c config.Sink, out io.Writer, logger *slog.Logger) (sinks.Sink, error) {
	mapper, err := newMapper(c.Mapping)
	if err != nil {
		return nil, err
	}
	logger = logger.With("sink", name)
	switch {
	case c.File != nil:
		return file.New(file.Config{
			Dir: c.File.Dir, Format: lines.Format(c.File.Format), Compression: file.Compression(c.File.Compression),
			Encoding: lines.Encoding(c.File.Encoding), Shared: c.File.Shared, Mapper: mapper, Logger: logger,
		})
	case c.SQLite != nil:
		return sqlite.New(sqlite.Config{
			Path: c.SQLite.Path, Table: c.SQLite.Table, Mode: sqlite.Mode(c.SQLite.Mode), Key: c.SQLite.Key,
			Update: c.SQLite.Update, Types: c.SQLite.Types, Create: *c.SQLite.Create, Shared: c.SQLite.Shared, Mapper: mapper, Logger: logger,
		})
	default:
		return stdout.New(stdout.Config{Writer: out, Format: lines.Format(c.Stdout.Format), Encoding: lines.Encoding(c.Stdout.Encoding), Mapper: mapper})
	}
}

// newMapper compiles a mapping. The nil interface, not a nil program, is no mapping.
func newMapper(m *config.Mapping) (sinks.Mapper, error) {
	if m == nil {
		return nil, nil
	}
	columns := make([]mapping.Column, len(m.Columns))
	for i, column := range m.Columns {
		columns[i] = mapping.Column{Name: column.Name, Value: column.Value}
	}
	return mapping.Compile(mapping.Config{When: m.When, Value: m.Value, Columns: columns})
}

// CheckMappings finds mappings that do not compile, in a configuration that may
// have other problems as well. The error lists every one with its line.
func CheckMappings(f *config.File) error {
	return f.Check(func(report func(key, format string, args ...any)) {
		for _, name := range slices.Sorted(maps.Keys(f.Sinks)) {
			checkMapping(name, f.Sinks[name].Mapping, report)
		}
	})
}

// checkMapping tells whether a mapping compiles.
func checkMapping(sink string, m *config.Mapping, report func(key, format string, args ...any)) bool {
	_, err := newMapper(m)
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			report("sinks."+sink+".mapping", "%s", strings.TrimSpace(line))
		}
	}
	return err == nil
}

// Check finds what the configuration alone does not show: certificates that cannot
// be read, mappings that do not compile, sinks that do not accept their settings,
// two sinks with one destination. It changes nothing. The error lists every
// problem with its line.
func Check(f *config.File) error {
	return f.Check(func(report func(key, format string, args ...any)) {
		if _, err := serverTLS(f.Node.TLS); err != nil {
			report("node.tls", "%v", err)
		}
		if _, err := clientTLS(f.Receiver.Kafka.TLS); err != nil {
			report("receiver.kafka.tls", "%v", err)
		}
		destinations := map[string]string{}
		for _, name := range slices.Sorted(maps.Keys(f.Sinks)) {
			checkSink(name, f.Sinks[name], destinations, report)
		}
	})
}

func checkSink(name string, c config.Sink, destinations map[string]string, report func(key, format string, args ...any)) {
	key := "sinks." + name
	if !checkMapping(name, c.Mapping, report) {
		return
	}
	sink, err := newSink(name, c, io.Discard, slog.New(slog.DiscardHandler))
	if err != nil {
		report(key+"."+c.Kind(), "%v", err)
		return
	}
	if checker, ok := sink.(interface{ Check(context.Context) error }); ok {
		if err := checker.Check(context.Background()); err != nil {
			report(key+"."+c.Kind(), "%v", err)
		}
	}
	if other, taken := destinations[sink.Destination()]; taken {
		report(key+"."+c.Kind(), "writes to the same place as sinks.%s (%s): give each sink a destination of its own", other, sink.Destination())
	}
	destinations[sink.Destination()] = name
}
