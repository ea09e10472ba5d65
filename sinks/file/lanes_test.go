package file

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	"forebay/internal/record"
	"forebay/sinks"
	"forebay/sinks/sinktest"
)

func laneIdentity(lane uint32) sinks.Identity {
	id := sinktest.Identity(1, 3)
	id.Lane, id.Next = lane, record.BatchID{Lane: lane, Seq: 3}
	return id
}

// behindFS lets something happen between the first look for an identity and what follows.
type behindFS struct {
	osFS
	between func()
}

func (f *behindFS) ReadFile(path string) ([]byte, error) {
	content, err := f.osFS.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && f.between != nil {
		between := f.between
		f.between = nil
		between()
	}
	return content, err
}

// TestLaneClaimsMeanwhile: another lane claims the directory, and writes its
// cursor, just after this one found it unclaimed.
func TestLaneClaimsMeanwhile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	s := newSink(t, Config{Dir: dir})
	s.fs = &behindFS{between: func() { opened(t, Config{Dir: dir}, laneIdentity(1)) }}
	if err := s.Open(t.Context(), laneIdentity(0)); err != nil {
		t.Fatal(err)
	}
	closeSink(t, s)
}

// TestLanesOpenAtOnce: all lanes of a process open a new directory and deliver.
func TestLanesOpenAtOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b", "out")
	var g errgroup.Group
	const lanes = 6
	for lane := range uint32(lanes) {
		g.Go(func() error {
			s, err := New(Config{Dir: dir})
			if err != nil {
				return err
			}
			if err := s.Open(t.Context(), laneIdentity(lane)); err != nil {
				return err
			}
			b := sinktest.NewBatch(1, 3, sinktest.Records(0, 10))
			b.ID.Lane = lane
			return errors.Join(s.Deliver(t.Context(), b, sinktest.Accept), s.Close())
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := readDir(t, dir, "base64"); len(got) != lanes {
		t.Errorf("the directory holds %d batches, want %d", len(got), lanes)
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
