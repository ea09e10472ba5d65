package file

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// chunkBytes is how much is handed to the kernel at once.
	chunkBytes = 256 << 10
	// keepBytes bounds the buffer that is kept from one batch to the next.
	keepBytes = 4 << 20
)

// compressor is what a compressed file goes through; it is used for batch after batch.
type compressor interface {
	io.WriteCloser
	Reset(w io.Writer)
}

func newCompressor(c Compression) (compressor, error) {
	switch c {
	case Gzip:
		return gzip.NewWriterLevel(io.Discard, gzip.DefaultCompression)
	case Zstd:
		// One goroutine, and a window that keeps the writer within some 10 MiB.
		return zstd.NewWriter(io.Discard, zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20))
	default:
		return nil, nil
	}
}

// output is the temporary file of one attempt: lines, then the compressor if
// any, then chunks for the kernel. It comes into being with its first byte.
type output struct {
	ctx  context.Context
	sink *Sink
	path string
	file file
	// begun tells that the file was made, or that this was tried.
	begun bool
	// lines gathers encoded lines; chunk gathers what the compressor gives.
	lines, chunk []byte
	through      compressor
}

// wrote takes back o.lines with whole lines appended.
func (o *output) wrote(lines []byte) error {
	o.lines = lines
	if len(lines) < chunkBytes {
		return nil
	}
	return o.flush()
}

// flush passes the gathered lines on.
func (o *output) flush() error {
	if o.through == nil {
		err := o.write(o.lines)
		o.lines = o.lines[:0]
		return err
	}
	_, err := o.through.Write(o.lines)
	o.lines = o.lines[:0]
	return err
}

// Write takes the compressor's output.
func (o *output) Write(p []byte) (int, error) {
	o.chunk = append(o.chunk, p...)
	if len(o.chunk) < chunkBytes {
		return len(p), nil
	}
	err := o.write(o.chunk)
	o.chunk = o.chunk[:0]
	return len(p), err
}

func (o *output) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	return o.sink.do(o.ctx, func() error {
		_, err := o.file.Write(b)
		return err
	})
}

// create makes the file. What a failed attempt of this term left under the
// name goes first: a file of ours is never written through an older attempt's hands.
func (o *output) create() error {
	fsys, path := o.sink.fs, o.path
	o.begun = true
	var f file
	err := o.sink.do(o.ctx, func() (err error) {
		if err := removeIfThere(fsys, path); err != nil {
			return err
		}
		f, err = fsys.Create(path)
		return err
	})
	if err != nil {
		return fmt.Errorf("creating the temporary file: %w", err)
	}
	o.file = f
	if o.through != nil {
		o.through.Reset(o)
	}
	return nil
}

// finish writes what is left, syncs, and closes.
func (o *output) finish() error {
	if err := o.flush(); err != nil {
		return err
	}
	if o.through != nil {
		if err := o.through.Close(); err != nil {
			return err
		}
		if err := o.write(o.chunk); err != nil {
			return err
		}
		o.chunk = o.chunk[:0]
	}
	f := o.file
	o.file = nil
	return o.sink.do(o.ctx, func() error { return errors.Join(f.Sync(), f.Close()) })
}

// discard undoes what the attempt wrote, as far as the file system still answers;
// what stays is removed by the next attempt or by Open.
func (o *output) discard() {
	if !o.begun {
		return
	}
	f, fsys, path := o.file, o.sink.fs, o.path
	o.sink.undo(o.ctx, func() error {
		if f != nil {
			f.Close()
		}
		return removeIfThere(fsys, path)
	})
}

// takeBuffers lends the sink's buffers to an attempt.
func (s *Sink) takeBuffers(o *output) {
	o.lines, o.chunk = s.lines[:0], s.chunk[:0]
	s.lines, s.chunk = nil, nil
}

// giveBuffers takes them back for the next one.
func (s *Sink) giveBuffers(o *output) {
	if s.stubborn.Hung() {
		return // the kernel may still be reading them
	}
	if cap(o.lines) <= keepBytes {
		s.lines = o.lines
	}
	if cap(o.chunk) <= keepBytes {
		s.chunk = o.chunk
	}
}
