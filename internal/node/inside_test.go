package node

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestASinkInsideTheDataDirectory is refused: what it writes there would stand in the
// way of the log, and whoever takes its files away would take the log's.
func TestASinkInsideTheDataDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, c := range map[string]struct {
		path    string
		refused bool
	}{
		"the directory itself": {"data", true}, "said otherwise": {"./x/../data/", true}, "beneath a lane": {"data/lanes/0/log", true},
		"absolute": {mustAbs(t, "data/out"), true}, "around it": {".", false}, "beside it": {"data-out", false},
	} {
		for _, sink := range []string{
			fmt.Sprintf("[sinks.s.file]\ndir = %q\n", c.path),
			fmt.Sprintf("[sinks.s.sqlite]\npath = %q\ntable = \"t\"\n[sinks.s.mapping]\ncolumns = [{ name = \"v\", value = \"value\" }]\n", filepath.Join(c.path, "node.json")),
		} {
			text := "[node]\ndataDir = \"data\"\n[receiver.kafka]\nbrokers = [\"h:1\"]\ntopics = [\"t\"]\n" + sink
			_, err := Parse("forebay.toml", []byte(text))
			if refused := err != nil && strings.Contains(err.Error(), "in node.dataDir"); refused != c.refused || err != nil && !c.refused {
				t.Errorf("%s: %v\n%s", name, err, sink)
			}
		}
	}
}

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
