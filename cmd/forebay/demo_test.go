package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// built makes the program as a user would: what demo starts and kills is a process
// of its own.
func built(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "forebay")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	return path
}

// TestDemoCrash plays the whole story, short: three kills in mid-stream, and the
// proof that every record is there once and that the totals are the producer's.
func TestDemoCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: the demo with its crashes takes about 15 s and a build of the program")
	}
	program := built(t)
	dir := filepath.Join(t.TempDir(), "demo")
	cmd := exec.CommandContext(t.Context(), program, "demo", "--crash", "--for", "9s", "--rate", "2000", "--dir", dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, out.String(), errs.String())
	}
	text := out.String()
	for pattern, times := range map[string]int{
		`(?m)^ *\d+\.\ds  kill -9: the gateway is gone`:                                  3,
		`(?m)started again, ready after .*; it goes on from its log$`:                    3,
		`(?m)proved: \d+ records in \d+ files, each once, in order, as it was produced$`: 1,
		`(?m)proved: the popularity of \d+ pages equals the producer's own arithmetic$`:  1,
	} {
		if got := len(regexp.MustCompile(pattern).FindAllString(text, -1)); got != times {
			t.Errorf("%q is there %d times, want %d", pattern, got, times)
		}
	}
	if !regexp.MustCompile(`batch 0-\d{20}: \d+ records, in both sinks .* after its cut`).MatchString(text) {
		t.Error("no batch is shown")
	}
	if errs.Len() > 0 {
		t.Errorf("on stderr:\n%s", errs.String())
	}
	// What is kept is a directory that other commands understand.
	verify := exec.CommandContext(t.Context(), program, "wal", "verify", "-c", filepath.Join(dir, "forebay.toml"))
	if text, err := verify.CombinedOutput(); err != nil || !strings.Contains(string(text), "whole") {
		t.Errorf("wal verify: %v\n%s", err, text)
	}
	if t.Failed() {
		t.Logf("the demo said:\n%s", text)
	}
}

// TestDemoInADirectoryThatIsNotEmpty: what is there is somebody's.
func TestDemoInADirectoryThatIsNotEmpty(t *testing.T) {
	d := t.TempDir()
	if err := exec.Command("touch", filepath.Join(d, "mine")).Run(); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code := (&program{out: &out, err: &errs}).run(t.Context(), []string{"demo", "--dir", d})
	if code != exitFailure || errs.String() != "forebay: "+d+" is not empty: the demo begins in an empty directory\n" {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
}
