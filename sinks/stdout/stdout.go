// Package stdout is the sink for people and pipes: it writes the lines of each
// batch to a stream.
//
// Its best is at-least-once: a stream keeps nothing that could say how far an attempt
// came. A batch is read twice, first to find what the encoding refuses, so that
// nothing is written before it is settled, then to write. Lines are written whole, so that
// those of several lanes of one process do not run into each other; after
// a write that stopped within a line, the next attempt begins on a new one.
package stdout

import (
	"context"
	"errors"
	"fmt"
	"io"

	"forebay/internal/record"
	"forebay/sinks"
	"forebay/sinks/lines"
)

const (
	// chunkBytes is how much is written at once, or the line that is longer.
	chunkBytes = 64 << 10
	// keepBytes bounds the buffer that is kept from one batch to the next.
	keepBytes = 4 << 20
)

// Config is the table [sinks.NAME.stdout], and the sink's mapping.
type Config struct {
	// Writer takes the lines; os.Stdout in the program. Each Write must be whole
	// before another's begins when several lanes share it, as an *os.File's is.
	Writer io.Writer
	// Format is jsonl (the default) or raw.
	Format lines.Format
	// Encoding of bytes in jsonl; default utf8, as people read it.
	Encoding lines.Encoding
	// Mapper transforms each record; nil writes it as it is.
	Mapper sinks.Mapper
}

// Sink is the stdout sink of one lane. See package sinks for who may call it when.
type Sink struct {
	cfg     Config
	encoder *lines.Encoder
	// stubborn runs the writes: a pipe that nobody reads blocks for ever.
	stubborn sinks.Stubborn
	buf      []byte
	open     bool
	id       sinks.Identity
	// torn tells that the last write stopped within a line.
	torn bool
}

// New checks cfg.
func New(cfg Config) (*Sink, error) {
	var errs []error
	if cfg.Format == "" {
		cfg.Format = lines.JSONL
	}
	if cfg.Encoding == "" {
		cfg.Encoding = lines.UTF8
	}
	if cfg.Writer == nil {
		errs = append(errs, errors.New("writer is missing"))
	}
	if cfg.Format == lines.CSV {
		errs = append(errs, errors.New(`format "csv": want "jsonl" or "raw"`))
	}
	encoder, err := lines.New(cfg.Format, cfg.Encoding, sinks.Columns(cfg.Mapper))
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, err
	}
	return &Sink{cfg: cfg, encoder: encoder}, nil
}

// Guarantee is at-least-once.
func (s *Sink) Guarantee() sinks.Guarantee { return sinks.AtLeastOnce }

// Destination is the process's one standard output.
func (s *Sink) Destination() string { return "stdout" }

// Open takes note of the identity; a stream belongs to nobody.
func (s *Sink) Open(_ context.Context, id sinks.Identity) error {
	s.open, s.id = true, id
	return nil
}

// Close leaves the stream open: it is not the sink's.
func (s *Sink) Close() error {
	s.open = false
	return nil
}

// Deliver writes the batch's lines.
func (s *Sink) Deliver(ctx context.Context, b record.Batch, settle sinks.Settle) error {
	if !s.open {
		return sinks.ErrNotOpen
	}
	if err := s.id.CheckBatch(&b); err != nil {
		return err
	}
	if err := s.stubborn.Wait(ctx); err != nil {
		return err
	}
	var refusals sinks.Refusals
	err := s.each(ctx, &b, refusals.Add, func(buf []byte) ([]byte, error) { return buf[:0], nil })
	if err != nil {
		return fmt.Errorf("checking batch %v: %w", b.ID, err)
	}
	if err := settle(ctx, refusals.List()); err != nil {
		return err
	}
	// What is refused now was refused then.
	skip := func(*record.Record, error) error { return nil }
	err = s.each(ctx, &b, skip, func(buf []byte) ([]byte, error) {
		if len(buf) < chunkBytes {
			return buf, nil
		}
		return s.write(ctx, buf)
	})
	if err == nil {
		s.buf, err = s.write(ctx, s.buf)
	}
	if err != nil {
		return fmt.Errorf("writing batch %v: %w", b.ID, err)
	}
	return nil
}

// each encodes the batch line by line into s.buf; line is called after each with
// what has gathered, and gives back what is to be appended to.
func (s *Sink) each(ctx context.Context, b *record.Batch, refuse func(*record.Record, error) error, line func(buf []byte) ([]byte, error)) error {
	var row sinks.Row
	if s.buf = s.buf[:0]; cap(s.buf) > keepBytes {
		s.buf = nil
	}
	return b.Read(ctx, func(rec *record.Record) error {
		keep, err := sinks.Map(s.cfg.Mapper, rec, &row)
		if err != nil {
			return refuse(rec, err)
		}
		if !keep {
			return nil
		}
		buf, err := s.encoder.Append(s.buf, &row)
		if err != nil {
			return refuse(rec, err)
		}
		s.buf, err = line(buf)
		return err
	})
}

// write writes whole lines. It gives the buffer back empty, unless the stream
// may still be reading it.
func (s *Sink) write(ctx context.Context, buf []byte) ([]byte, error) {
	if s.torn {
		buf = append(buf, 0)
		copy(buf[1:], buf)
		buf[0] = '\n'
	}
	var n int
	err := s.stubborn.Do(ctx, func() (err error) {
		n, err = s.cfg.Writer.Write(buf)
		return err
	})
	switch {
	case err == nil:
		s.torn = false
		return buf[:0], nil
	case s.stubborn.Hung():
		s.torn = true
		return nil, err
	}
	if n > 0 && n <= len(buf) {
		s.torn = buf[n-1] != '\n'
	}
	return buf[:0], err
}
