package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"github.com/pelletier/go-toml/v2"

	"forebay/internal/record"
)

// File is a configuration with where it came from.
type File struct {
	Config
	source *source
	shown  Config
}

// Default is a configuration in which every key has its default.
func Default() Config {
	return Config{
		Node: Node{
			ID: "n1", Gateway: "forebay", HTTP: "127.0.0.1:8420", Memory: 256 << 20,
			StopTimeout: Duration(30 * time.Second), LogLevel: "info", LogFormat: "text",
		},
		WAL: WAL{
			Retention: Duration(24 * time.Hour), MaxBytes: 50 << 30, MinFree: 2 << 30,
			Compression: record.DefaultCompression.String(), InFlightBytes: 2 << 20, SnapshotBytes: 256 << 20,
			StallTimeout: Duration(10 * time.Second),
		},
		Receiver: Receiver{
			BlockBytes: 256 << 10, BlockInterval: Duration(20 * time.Millisecond),
			Kafka: Kafka{
				Group: "forebay", OffsetOutOfRange: "pause", IsolationLevel: "read_committed", StartFrom: "earliest",
				ClientID: "forebay", MetadataRefresh: Duration(time.Second), SessionTimeout: Duration(30 * time.Second),
			},
		},
		Batch:  Batch{Interval: Duration(5 * time.Second), MaxBytes: 256 << 20, MaxRecords: 10_000_000},
		Parked: Parked{MaxBytes: 256 << 20},
		Sinks:  map[string]Sink{},
	}
}

func defaultSink() Sink {
	return Sink{
		Refused: "block", StartFrom: "oldest", Timeout: Duration(5 * time.Minute),
		Backoff: Backoff{Initial: Duration(200 * time.Millisecond), Max: Duration(30 * time.Second)},
	}
}

// Load reads a file. What is wrong with its content comes as Problems, all at
// once, and with them the File as far as it was understood, for Check alone; a
// file that can't be read comes as the error of the system.
func Load(path string) (*File, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	return Parse(path, text)
}

// Parse is Load of a text; path serves for messages and for what ${file:…} is relative to.
func Parse(path string, text []byte) (*File, error) {
	var document map[string]any
	src := &source{file: path}
	if err := toml.Unmarshal(text, &document); err != nil {
		var syntax *toml.DecodeError
		if !errors.As(err, &syntax) {
			return nil, fmt.Errorf("%w: %s: %w", ErrInvalid, path, err)
		}
		line, _ := syntax.Position()
		return nil, Problems{{path, line, "", syntax.Error()[len("toml: "):]}}
	}
	src.index(text)
	f := &File{Config: Default(), source: src}
	d := &decoder{source: src, expand: true, dir: filepath.Dir(path)}
	d.decode("", document, reflect.ValueOf(&f.Config).Elem())
	f.fillSinks()
	rules := &source{file: path, lines: src.lines}
	validate(&f.Config, rules)
	src.addUnlessFollows(rules.problems)
	if err := src.err(); err != nil {
		return f, err
	}
	f.shown = Default()
	(&decoder{source: &source{}, dir: d.dir}).decode("", document, reflect.ValueOf(&f.shown).Elem())
	f.shown.fillSinks()
	return f, nil
}

// Path is the file that was read.
func (f *File) Path() string { return f.source.file }

// Report takes what is wrong with one key.
type Report func(key, format string, args ...any)

// Check adds what others find who know more than the file's own rules to what Load or Parse
// found, which may be nothing: all of it at once, each with its line, but for what
// only follows from a problem that is known already.
func (f *File) Check(known error, check func(Report)) error {
	src := &source{file: f.source.file, lines: f.source.lines}
	check(src.add)
	var problems Problems
	if known != nil && !errors.As(known, &problems) {
		return known
	}
	all := &source{problems: slices.Clone(problems)}
	all.addUnlessFollows(src.problems)
	return all.err()
}

// Render gives the configuration in force as TOML: defaults filled in, secrets
// redacted, and what came from ${env:…} or ${file:…} as it was written.
func (f *File) Render() (string, error) {
	text, err := toml.Marshal(f.shown)
	return string(text), err
}
