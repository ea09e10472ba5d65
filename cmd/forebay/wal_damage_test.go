package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestToolsOnALane tries the commands on the log of a lane that has run.
func TestToolsOnALane(t *testing.T) {
	data, contents := fixtureLane(t)
	t.Run("cat gives exactly the batch", func(t *testing.T) { testCatOfBatches(t, data, contents) })
	t.Run("every command on any damage", func(t *testing.T) { testEveryCommand(t, data, contents) })
	t.Run("import mends any damage", func(t *testing.T) { testImport(t, data) })
	t.Run("repair of any damage", func(t *testing.T) { testRepair(t, data, contents) })
	t.Run("beside a running lane", func(t *testing.T) { testBesideARunningLane(t, copyData(t, data)) })
}

// testImport hurts a log and puts in again what an export of a copy has: it is then byte for byte what it was.
// What an import cannot mend it leaves as it is.
func testImport(t *testing.T, data string) {
	t.Helper()
	export := filepath.Join(t.TempDir(), "all.fbx")
	if code, _, say := forebay(t, "", "wal", "export", "--data-dir", data, export); code != exitOK {
		t.Fatalf("export: %d %s", code, say)
	}
	entries := entriesOfLog(t, data)
	for _, h := range hurts() {
		t.Run(h.name, func(t *testing.T) {
			for seed := range uint64(2) {
				hurt := copyData(t, data)
				h.do(t, hurt, rand.New(rand.NewPCG(seed, 2)))
				before := snapshotTree(t, hurt)
				damaged, _, _ := forebay(t, "", "wal", "verify", "--data-dir", hurt)
				code, out, say := forebay(t, "", "wal", "import", "--data-dir", hurt, export)
				after, _, _ := forebay(t, "", "wal", "verify", "--data-dir", hurt)
				switch h.name {
				case "no mark":
					if code != exitOK || after != exitFailure || !cmp.Equal(before, snapshotTree(t, hurt)) {
						t.Errorf("import %d, verify %d: %s%s", code, after, out, say)
					}
				case "no manifest":
					if code != exitFailure || !strings.Contains(say, "cannot make a manifest") || !cmp.Equal(before, snapshotTree(t, hurt)) {
						t.Errorf("import %d: %s%s", code, out, say)
					}
				default:
					if code != exitOK || after != exitOK {
						t.Errorf("verify %d, import %d, verify %d: %s%s", damaged, code, after, out, say)
					}
					if diff := cmp.Diff(entries, entriesOfLog(t, hurt)); diff != "" {
						t.Error(diff)
					}
				}
			}
		})
	}
}

func entriesOfLog(t *testing.T, data string) string {
	t.Helper()
	code, out, say := forebay(t, "", "wal", "ls", "--entries", "--data-dir", data)
	if code != exitOK {
		t.Fatalf("ls: %d %s", code, say)
	}
	return out
}

// testEveryCommand: none of those that look changes anything, ends well where it should not, or goes on without a word.
func testEveryCommand(t *testing.T, data string, contents map[uint64][]string) {
	t.Helper()
	for _, h := range hurts() {
		t.Run(h.name, func(t *testing.T) {
			hurt := copyData(t, data)
			h.do(t, hurt, rand.New(rand.NewPCG(9, 3)))
			before := snapshotTree(t, hurt)
			verified, _, _ := forebay(t, "", "wal", "verify", "--data-dir", hurt)
			for _, args := range [][]string{
				{"ls"},
				{"ls", "--kinds"},
				{"ls", "--batches", "-o", "json"},
				{"ls", "--entries"},
				{"cat"},
				{"cat", "--since", "1h"},
				{"verify", "-o", "json"},
				{"export", filepath.Join(t.TempDir(), "x.fbx")},
				{"repair"},
			} {
				if args[0] == "repair" && verified == exitTorn {
					continue
				}
				code, out, say := forebay(t, "", append([]string{"wal", "--data-dir", hurt}, args...)...)
				if code == exitUsage || code == exitOK && out == "" && args[0] != "cat" || code != exitOK && out+say == "" {
					t.Errorf("%v: %d, %d bytes, %q", args, code, len(out), say)
				}
				if verified == exitFailure && code == exitOK && (args[0] == "verify" || args[0] == "repair") {
					t.Errorf("%v says that all is well: %s", args, out)
				}
			}
			for seq := range contents { // a batch comes out whole, or with an error
				code, out, say := forebay(t, "", "wal", "cat", "--data-dir", hurt, "--batch", fmt.Sprintf("0-%d", seq))
				if got := namesIn(t, out); code == exitOK && !slices.Equal(got, contents[seq]) {
					t.Errorf("batch %d: %s\n%s", seq, say, cmp.Diff(contents[seq], got))
				} else if code != exitOK && say == "" {
					t.Errorf("batch %d: %d without a word", seq, code)
				}
			}
			if diff := cmp.Diff(before, snapshotTree(t, hurt)); diff != "" {
				t.Error("something was changed")
			}
		})
	}
}

// namesIn are the records of a cat's lines, as "partition@offset".
func namesIn(t *testing.T, out string) []string {
	t.Helper()
	var names []string
	lines := bufio.NewScanner(strings.NewReader(out))
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var r struct {
			Partition int32
			Offset    int64
		}
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		names = append(names, nameOf(r.Partition, r.Offset))
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return names
}

// testCatOfBatches: what wal cat --batch prints is what sinks get, of each batch that is kept.
func testCatOfBatches(t *testing.T, data string, contents map[uint64][]string) {
	t.Helper()
	for seq, want := range contents {
		code, out, say := forebay(t, "", "wal", "cat", "--data-dir", data, "--batch", fmt.Sprintf("0-%d", seq))
		if code != exitOK {
			t.Fatalf("%d %s", code, say)
		}
		if diff := cmp.Diff(want, namesIn(t, out)); diff != "" {
			t.Errorf("batch %d: %s", seq, diff)
		}
	}
}

// testBesideARunningLane: verify finds nothing wrong, takes nothing away, and repair keeps out.
func testBesideARunningLane(t *testing.T, data string) {
	t.Helper()
	l := startLane(t, data)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 20 {
			if code, out, say := forebay(t, "", "wal", "verify", "--data-dir", data); code != exitOK || !strings.Contains(out, "a node runs on the directory") {
				t.Errorf("verify: %d\n%s%s", code, out, say)
			}
			if code, out, say := forebay(t, "", "wal", "ls", "--data-dir", data); code != exitOK {
				t.Errorf("ls: %d\n%s%s", code, out, say)
			}
		}
	}()
	for going := true; going; {
		select {
		case <-done:
			going = false
		default:
			l.append(1, 2, 500)
			l.cut()
			seq := l.lane.LastSeq()
			l.deliver("fast", seq)
			l.deliver("slow", seq)
		}
	}
	if code, _, say := forebay(t, "", "wal", "repair", "--data-dir", data); code != exitTryAgain || !strings.Contains(say, "stop the node first") {
		t.Errorf("repair: %d %s", code, say)
	}
}
