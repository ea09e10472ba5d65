package internal_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed says what each room may import of ours. Data goes one way, and so do
// imports: the rooms of the pipeline know the nouns and nothing of one another;
// internal/node joins them.
var allowed = map[string][]string{
	"internal/record": {},
	"internal/config": {"internal/record"},
	"internal/admin":  {"internal/record"},
	"receiver":        {"internal/record"},
	"wal":             {"internal/record"},
	"replicate":       {"internal/record"},
	"batcher":         {"internal/record"},
	"sinks":           {"internal/record"},
}

func TestImportsGoOneWay(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f",
		`{{.ImportPath}}: {{join .Imports " "}} {{join .TestImports " "}} {{join .XTestImports " "}}`, "forebay/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		path, imports, _ := strings.Cut(strings.TrimSpace(line), ":")
		room := roomOf(path)
		may, bound := allowed[room]
		if !bound {
			continue
		}
		seen[room] = true
		for imported := range strings.FieldsSeq(imports) {
			target := roomOf(imported)
			if target == "" || target == room || slices.Contains(may, target) {
				continue
			}
			t.Errorf("%s imports %s: %s may import only %v of ours", path, imported, room, may)
		}
	}
	for room := range allowed {
		if !seen[room] {
			t.Errorf("no package of room %s was looked at", room)
		}
	}
}

// roomOf maps an import path of ours to its room, anything else to "".
func roomOf(path string) string {
	path, ours := strings.CutPrefix(path, "forebay/")
	if !ours {
		return ""
	}
	parts := strings.Split(path, "/")
	if parts[0] == "internal" && len(parts) > 1 {
		return parts[0] + "/" + parts[1]
	}
	return parts[0]
}
