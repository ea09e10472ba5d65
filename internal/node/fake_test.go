package node

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"

	"forebay/internal/config"
	"forebay/internal/record"
	"forebay/sinks"
	"forebay/wal"
)

// fakeSink is a destination that does what a test wants of it. A nil function succeeds.
type fakeSink struct {
	name    string
	open    func(ctx context.Context, id sinks.Identity) error
	deliver func(ctx context.Context, b record.Batch) error
}

func (s *fakeSink) Open(ctx context.Context, id sinks.Identity) error {
	if s.open == nil {
		return nil
	}
	return s.open(ctx, id)
}

func (s *fakeSink) Deliver(ctx context.Context, b record.Batch, settle sinks.Settle) error {
	if err := settle(ctx, nil); err != nil {
		return err
	}
	if s.deliver == nil {
		return nil
	}
	return s.deliver(ctx, b)
}

func (s *fakeSink) Close() error               { return nil }
func (s *fakeSink) Guarantee() sinks.Guarantee { return sinks.ExactlyOnce }
func (s *fakeSink) Destination() string        { return "fake:" + s.name }

// with puts a fake in the place of the sink of its name.
func (p *place) with(fake *fakeSink) {
	before := p.machine.sink
	p.machine.sink = func(name string, c config.Sink, out io.Writer, logger *slog.Logger) (sinks.Sink, error) {
		if name == fake.name {
			return fake, nil
		}
		return before(name, c, out, logger)
	}
}

// files is the operating system's file layer, whose syncs of segments can be made
// to fail or to hang.
type files struct {
	sync atomic.Pointer[func() error]
}

func (f *files) onSync(do func() error) { f.sync.Store(&do) }

var errDisk = errors.New("the disk is on fire")

func (f *files) Open(name string, flag int) (wal.File, error) {
	file, err := os.OpenFile(name, flag, 0o640)
	if err != nil {
		return nil, err
	}
	return &fileOf{file, f, strings.Contains(name, "/log/")}, nil
}

func (f *files) List(dir string) ([]fs.DirEntry, error) { return os.ReadDir(dir) }
func (f *files) MkdirAll(dir string) error              { return os.MkdirAll(dir, 0o750) }
func (f *files) Rename(from, to string) error           { return os.Rename(from, to) }
func (f *files) Remove(name string) error               { return os.Remove(name) }
func (f *files) SyncDir(dir string) error               { return syncDir(dir) }

type fileOf struct {
	*os.File
	layer   *files
	segment bool
}

func (f *fileOf) Sync() error {
	if do := f.layer.sync.Load(); do != nil && f.segment {
		if err := (*do)(); err != nil {
			return err
		}
	}
	return f.File.Sync()
}

func (f *fileOf) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}
