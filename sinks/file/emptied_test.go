package file

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forebay/sinks/sinktest"
)

// TestADirectoryWithoutEarlierBatchesIsSaid, as where a volume is not mounted:
// what is delivered now goes elsewhere than before.
func TestADirectoryWithoutEarlierBatchesIsSaid(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	opens := func(term, next uint64) (said int) {
		t.Helper()
		var log bytes.Buffer
		s := newSink(t, Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err := s.Open(t.Context(), sinktest.Identity(term, next)); err != nil {
			t.Fatal(err)
		}
		closeSink(t, s)
		return strings.Count(log.String(), "level=WARN")
	}
	if n := opens(1, 1); n != 0 {
		t.Errorf("%d warnings of a first directory", n)
	}
	if n := opens(2, 5); n != 0 {
		t.Errorf("%d warnings of a directory that is there", n)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if n := opens(3, 5); n != 1 {
		t.Errorf("%d warnings of a directory that was emptied", n)
	}
}
