// Package file is the sink that writes one file per batch into a directory.
//
// # What a consumer sees
//
//	batch-<lane>-<20 digits>.jsonl|csv|raw[.gz|.zst]    one batch, whole; never written again
//	cursor-<lane>                                       the first batch that may not be taken yet, and LF
//
// A consumer may read a file as soon as it has its name. It may move or
// delete only files below the lane's cursor: what is at the cursor or above may come
// again, and would be written anew. The rest of the directory is the sink's:
//
//	.forebay.json                         whose directory it is: gateway, log, sink
//	.lane-<lane>                          the lane's lock, with the term that holds it
//	.tmp-<lane>-<seq>-<term>-<node>       a batch that is being written
//
// # Delivery
//
// Exactly-once, by name: a batch is written to a temporary name, synced, and given its
// final name in a step that fails when the name is taken; then the directory is synced. A
// batch of which any file is there, whatever its suffix, counts as delivered.
// Terms fence: once a term has opened the sink, no lower one publishes. DESIGN.md
// of package sinks argues each crash point. A batch without records makes no file.
//
// The directory has to be on a file system with exclusive rename or hard links,
// flock, and fsync that means it: the usual local ones, and NFS version 4.
package file

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"forebay/internal/record"
	"forebay/sinks"
	"forebay/sinks/lines"
)

// Compression of whole files.
type Compression string

// The compressions.
const (
	None Compression = "none"
	Gzip Compression = "gzip"
	Zstd Compression = "zstd"
)

// suffix of a file name.
func (c Compression) suffix() string {
	return map[Compression]string{Gzip: ".gz", Zstd: ".zst"}[c]
}

// Config is the table [sinks.NAME.file], and the sink's mapping.
type Config struct {
	// Dir is the directory of this sink alone. It is made when it is missing.
	Dir string
	// Format of the files; default jsonl.
	Format lines.Format
	// Compression of the files; default none.
	Compression Compression
	// Encoding of bytes in jsonl (key, value, header values) and csv (byte
	// columns); default base64, which carries everything.
	Encoding lines.Encoding
	// Shared says that all nodes see one and the same directory, as over NFS.
	Shared bool
	// Mapper transforms each record; nil writes it as it is.
	Mapper sinks.Mapper
	// Logger carries the sink's name already; nil is none.
	Logger *slog.Logger
}

// undoTimeout bounds the removal of a failed attempt's file, and Close.
const undoTimeout = time.Second

// Sink is the file sink of one lane. See package sinks for who may call it when.
type Sink struct {
	cfg     Config
	suffix  string
	encoder *lines.Encoder
	fs      fsys

	// stubborn runs everything that the file system is asked.
	stubborn sinks.Stubborn
	through  compressor
	lines    []byte
	chunk    []byte

	// Between Open and Close:
	open bool
	id   sinks.Identity
	lane laneFile
	// next is the cursor: what is below it is delivered.
	next uint64
	// there holds the batches at or above next that have a file. No other may
	// come to be, as lower terms are fenced, unless unsure is set: a publication ended without saying how.
	there  map[uint64]struct{}
	unsure bool
}

// New checks cfg. It touches nothing outside the process.
func New(cfg Config) (*Sink, error) {
	var errs []error
	if cfg.Format == "" {
		cfg.Format = lines.JSONL
	}
	if cfg.Compression == "" {
		cfg.Compression = None
	}
	if cfg.Encoding == "" {
		cfg.Encoding = lines.Base64
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Dir == "" {
		errs = append(errs, errors.New("dir is missing"))
	} else if dir, err := filepath.Abs(cfg.Dir); err != nil {
		errs = append(errs, fmt.Errorf("dir: %w", err))
	} else {
		cfg.Dir = dir
	}
	encoder, err := lines.New(cfg.Format, cfg.Encoding, sinks.Columns(cfg.Mapper))
	if err != nil {
		errs = append(errs, err)
	}
	switch cfg.Compression {
	case None, Gzip, Zstd:
	default:
		errs = append(errs, fmt.Errorf(`compression %q: want "none", "gzip" or "zstd"`, cfg.Compression))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Sink{
		cfg: cfg, encoder: encoder, fs: osFS{},
		suffix: "." + string(cfg.Format) + cfg.Compression.suffix(),
	}, nil
}

// Guarantee is exactly-once.
func (s *Sink) Guarantee() sinks.Guarantee { return sinks.ExactlyOnce }

// Destination is the directory.
func (s *Sink) Destination() string { return s.cfg.Destination() }

// Destination is that of the sink, whatever else is wrong with its settings.
func (c *Config) Destination() string {
	dir, _ := filepath.Abs(c.Dir) // fails only where there is no working directory, and New says so
	return "file:" + dir
}

// Open claims the directory for the lane, fences lower terms, removes what they
// left behind, and brings the lane's cursor up to the log's.
func (s *Sink) Open(ctx context.Context, id sinks.Identity) error {
	if s.open {
		return errors.New("the sink is open already")
	}
	if id.Node == "" || strings.ContainsAny(id.Node, "/\x00") {
		return sinks.Permanent(fmt.Errorf("node %q cannot be part of a file name", id.Node))
	}
	if id.Next.Seq == 0 {
		id.Next = record.BatchID{Lane: id.Lane, Seq: 1}
	}
	s.id, s.next, s.there, s.unsure = id, 0, map[uint64]struct{}{}, false
	if err := s.openDir(ctx); err != nil {
		return fmt.Errorf("opening %s: %w", s.cfg.Dir, errors.Join(explain(err), s.closeLane()))
	}
	s.open = true
	return nil
}

func (s *Sink) openDir(ctx context.Context) error {
	id := &s.id
	if s.through == nil {
		through, err := newCompressor(s.cfg.Compression)
		if err != nil {
			return sinks.Permanent(err)
		}
		s.through = through
	}
	if err := s.do(ctx, func() error { return s.fs.MakeDir(s.cfg.Dir) }); err != nil {
		return err
	}
	if err := s.claim(ctx, id); err != nil {
		return err
	}
	path := s.path(fmt.Sprintf("%s%d", lanePrefix, id.Lane))
	var lane laneFile
	err := s.do(ctx, func() (err error) {
		lane, err = s.fs.OpenLane(path)
		return err
	})
	if err != nil {
		return err
	}
	s.lane = lane
	if err := s.fence(ctx); err != nil {
		return err
	}
	cursor, err := s.readCursor(ctx, id.Lane)
	if err != nil {
		return err
	}
	if cursor.Seq > id.Next.Seq {
		return sinks.Permanent(fmt.Errorf("%w: its next batch is %v, the log's is %v: deliver into another directory, or remove %s%d if batches from %v on may be written again",
			sinks.ErrAhead, cursor, id.Next, cursorPrefix, id.Lane, id.Next))
	}
	s.next = cursor.Seq
	if err := s.tidy(ctx); err != nil {
		return err
	}
	for seq := range s.there {
		if err := id.CheckHeld(seq, "deliver into another directory, or remove that file and all above it, whose records are then written again"); err != nil {
			return err
		}
	}
	return s.advance(ctx, id.Next)
}

// tidy removes what earlier terms left behind and learns which batches are there.
func (s *Sink) tidy(ctx context.Context) error {
	var leftovers []string
	if err := s.scan(ctx, func(name string) {
		if stale(name, &s.id) {
			leftovers = append(leftovers, name)
		}
	}); err != nil {
		return err
	}
	for _, name := range leftovers {
		if err := s.do(ctx, func() error { return removeIfThere(s.fs, s.path(name)) }); err != nil {
			return fmt.Errorf("removing what an attempt left behind: %w", err)
		}
	}
	if len(leftovers) > 0 {
		s.cfg.Logger.InfoContext(ctx, "removed what unfinished attempts left behind",
			"lane", s.id.Lane, "files", len(leftovers))
	}
	return nil
}

// scan lists the directory, notes the lane's batches at or above the cursor,
// and passes every other name to fn.
func (s *Sink) scan(ctx context.Context, fn func(name string)) error {
	there := map[uint64]struct{}{}
	lane, from := s.id.Lane, max(s.next, s.id.Next.Seq)
	err := s.do(ctx, func() error {
		return s.fs.List(s.cfg.Dir, func(name string) {
			if id, ok := parseFinal(name); !ok {
				fn(name)
			} else if id.Lane == lane && id.Seq >= from {
				there[id.Seq] = struct{}{}
			}
		})
	})
	if err != nil {
		return fmt.Errorf("listing the directory: %w", err)
	}
	s.there, s.unsure = there, false
	return nil
}

// Close gives up the lane's lock. A file system that hangs is left to itself.
func (s *Sink) Close() error {
	s.open = false
	return s.closeLane()
}

func (s *Sink) closeLane() error {
	lane := s.lane
	s.lane = nil
	if lane == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), undoTimeout)
	defer cancel()
	return s.do(ctx, lane.Close)
}

// do asks the file system, which may not answer before ctx ends.
func (s *Sink) do(ctx context.Context, op func() error) error {
	return s.stubborn.Do(ctx, op)
}

func (s *Sink) path(name string) string { return filepath.Join(s.cfg.Dir, name) }
