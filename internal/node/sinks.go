package node

import (
	"io"
	"log/slog"

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
		return file.New(fileConfig(c.File, mapper, logger))
	case c.SQLite != nil:
		return sqlite.New(sqliteConfig(c.SQLite, mapper, logger))
	default:
		return stdout.New(stdoutConfig(c.Stdout, mapper, out))
	}
}

func fileConfig(c *config.FileSink, mapper sinks.Mapper, logger *slog.Logger) file.Config {
	return file.Config{
		Dir: c.Dir, Format: lines.Format(c.Format), Compression: file.Compression(c.Compression),
		Encoding: lines.Encoding(c.Encoding), Shared: c.Shared, Mapper: mapper, Logger: logger,
	}
}

func sqliteConfig(c *config.SQLiteSink, mapper sinks.Mapper, logger *slog.Logger) sqlite.Config {
	return sqlite.Config{
		Path: c.Path, Table: c.Table, Mode: sqlite.Mode(c.Mode), Key: c.Key, Update: c.Update, Types: c.Types,
		Create: *c.Create, Shared: c.Shared, Mapper: mapper, Logger: logger,
	}
}

func stdoutConfig(c *config.StdoutSink, mapper sinks.Mapper, out io.Writer) stdout.Config {
	return stdout.Config{Writer: out, Format: lines.Format(c.Format), Encoding: lines.Encoding(c.Encoding), Mapper: mapper}
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
