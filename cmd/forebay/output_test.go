package main

import (
	"bytes"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestATableTakesNothingFromARecord: an error that quotes a record may hold what moves
// the cursor, colours the terminal, or looks like another row.
func TestATableTakesNothingFromARecord(t *testing.T) {
	var out bytes.Buffer
	err := outputTable.show(&out, nil, func(t *table) {
		t.row("SINK", "LAST ERROR", "STATE")
		t.row("pages", "bad\tvalue \x1b[2J\u009b31m\nother  idle", "blocked")
	})
	want := "SINK   LAST ERROR                                STATE\n" +
		`pages  bad\tvalue \x1b[2J\u009b31m\nother  idle  blocked` + "\n"
	if err != nil || out.String() != want {
		t.Errorf("%v, got\n%q, want\n%q", err, out.String(), want)
	}
}

// full is a disk without space.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestWhatCannotBeWrittenIsAFailure of every command that prints.
func TestWhatCannotBeWrittenIsAFailure(t *testing.T) {
	config := t.TempDir() + "/forebay.toml"
	if err := os.WriteFile(config, []byte("[node]\ndataDir = \"/d\"\n[receiver.kafka]\nbrokers = [\"h:1\"]\ntopics = [\"t\"]\n[sinks.s.stdout]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{"version", "validate -c " + config, "config show -c " + config} {
		var errs bytes.Buffer
		code := (&program{out: full{}, err: &errs}).run(t.Context(), strings.Fields(args))
		if code != exitFailure || !strings.Contains(errs.String(), syscall.ENOSPC.Error()) {
			t.Errorf("%s: exit code %d, %q", args, code, errs.String())
		}
	}
}
