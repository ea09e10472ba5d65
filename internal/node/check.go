package node

import (
	"context"
	"errors"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"forebay/internal/config"
	"forebay/sinks"
	"forebay/sinks/file"
	"forebay/sinks/sqlite"
	"forebay/sinks/stdout"
)

// Load reads a configuration and checks all that can be checked without touching
// anything outside: besides the file's own rules, certificates that cannot be read,
// mappings that do not compile, sinks that do not accept their settings, two sinks
// with one destination. The error lists every problem with its line, as
// config.Problems; a file that cannot be read gives the error of the system.
func Load(path string) (*config.File, error) {
	f, err := config.Load(path)
	return check(f, err)
}

// Parse is Load of a text.
func Parse(path string, text []byte) (*config.File, error) {
	f, err := config.Parse(path, text)
	return check(f, err)
}

// check adds to what is known to be wrong with f, which is nil if it could not be understood at all.
func check(f *config.File, known error) (*config.File, error) {
	if f == nil {
		return nil, known
	}
	err := f.Check(known, func(report config.Report) {
		if _, err := serverTLS(f.Node.TLS); err != nil {
			report("node.tls", "%v", err)
		}
		if _, err := clientTLS(f.Receiver.Kafka.TLS); err != nil {
			report("receiver.kafka.tls", "%v", err)
		}
		destinations := map[string]string{}
		for _, name := range slices.Sorted(maps.Keys(f.Sinks)) {
			checkSink(name, f.Sinks[name], destinations, report)
			checkPlace(name, f.Sinks[name], f.Node.DataDir, report)
		}
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// checkSink checks the mapping, then the settings that go with it, then whether another
// sink has the same destination. A sink of no kind or of two was reported already.
func checkSink(name string, c config.Sink, destinations map[string]string, report config.Report) {
	key := "sinks." + name
	mapper, err := newMapper(c.Mapping)
	if err != nil {
		reportSettings(key+".mapping", err, report)
		mapper = standIn(&c)
	}
	destination, err := checkSettings(c, mapper)
	key += "." + c.Kind()
	reportSettings(key, err, report)
	if destination == "" {
		return
	}
	if other, taken := destinations[destination]; taken {
		report(key+map[string]string{"file": ".dir", "sqlite": ".path"}[c.Kind()], "writes to the same place as sinks.%s (%s): give each sink a destination of its own", other, destination)
	}
	destinations[destination] = name
}

// checkPlace refuses a destination inside the data directory: what is written there
// would stand in the way of the log, and whoever takes a sink's files away take the log's.
func checkPlace(name string, c config.Sink, dataDir string, report config.Report) {
	key, path := "", ""
	switch {
	case c.File != nil:
		key, path = "file.dir", c.File.Dir
	case c.SQLite != nil:
		key, path = "sqlite.path", c.SQLite.Path
	}
	if path == "" || dataDir == "" {
		return
	}
	place, err1 := filepath.Abs(path)
	data, err2 := filepath.Abs(dataDir)
	within, err3 := filepath.Rel(data, place)
	if errors.Join(err1, err2, err3) == nil && filepath.IsLocal(within) {
		report("sinks."+name+"."+key, "lies in node.dataDir (%s), where nothing but the log may be: give it a place outside", data)
	}
}

// checkSettings gives the destination, "" where the settings do not say it, and
// everything that is wrong.
func checkSettings(c config.Sink, mapper sinks.Mapper) (destination string, err error) {
	switch c.Kind() {
	case "file":
		cfg := fileConfig(c.File, mapper, nil)
		if cfg.Dir != "" {
			destination = cfg.Destination()
		}
		_, err = file.New(cfg)
	case "sqlite":
		cfg := sqliteConfig(c.SQLite, mapper, nil)
		if cfg.Path != "" && cfg.Table != "" {
			destination = cfg.Destination()
		}
		err = sqlite.Check(context.Background(), cfg)
	case "stdout":
		var s *stdout.Sink
		if s, err = stdout.New(stdoutConfig(c.Stdout, mapper, io.Discard)); err == nil {
			destination = s.Destination()
		}
	}
	return destination, err
}

// standIn serves in place of a mapping that does not compile: it has the columns that
// anything names, so that the settings can be checked for all else.
func standIn(c *config.Sink) sinks.Mapper {
	var names []string
	add := func(name string) {
		if name != "" && !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) }) {
			names = append(names, name)
		}
	}
	for _, column := range c.Mapping.Columns {
		add(column.Name)
	}
	if c.SQLite != nil {
		for _, name := range slices.Concat(c.SQLite.Key, slices.Sorted(maps.Keys(c.SQLite.Update)), slices.Sorted(maps.Keys(c.SQLite.Types))) {
			add(name)
		}
	}
	m := config.Mapping{When: "true"}
	for _, name := range names {
		m.Columns = append(m.Columns, config.Column{Name: name, Value: "nil"})
	}
	mapper, err := newMapper(&m)
	if err != nil { // names only, each once
		panic("node: a mapping of names does not compile: " + err.Error())
	}
	return mapper
}

// reportSettings reports each setting that err speaks of, below key.
func reportSettings(key string, err error, report config.Report) {
	sinks.EachSetting(err, func(setting string, reason error) {
		at := key
		if setting != "" {
			at += "." + setting
		}
		for line := range strings.Lines(reason.Error()) {
			report(at, "%s", strings.TrimSpace(line))
		}
	})
}
