package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/record"
)

// hurt is a kind of damage.
type hurt struct {
	name string
	do   func(t *testing.T, data string, r *rand.Rand)
}

func hurts() []hurt {
	segment := func(t *testing.T, data string, r *rand.Rand) string {
		s := segmentsOf(t, data)
		return s[r.IntN(len(s))]
	}
	flip := func(t *testing.T, data string, r *rand.Rand) {
		change(t, segment(t, data, r), func(b []byte) []byte {
			if len(b) > 0 {
				b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			}
			return b
		})
	}
	return []hurt{
		{"a flipped bit", flip},
		{"three flipped bits", func(t *testing.T, data string, r *rand.Rand) {
			for range 3 {
				flip(t, data, r)
			}
		}},
		{"a sector of zeros", func(t *testing.T, data string, r *rand.Rand) {
			change(t, segment(t, data, r), func(b []byte) []byte {
				at := r.IntN(len(b)+1) &^ 511
				clear(b[at:min(at+512, len(b))])
				return b
			})
		}},
		{"a short segment", func(t *testing.T, data string, r *rand.Rand) {
			change(t, segment(t, data, r), func(b []byte) []byte { return b[:r.IntN(len(b)+1)] })
		}},
		{"a missing segment", func(t *testing.T, data string, r *rand.Rand) {
			if err := os.Remove(segment(t, data, r)); err != nil {
				t.Fatal(err)
			}
		}},
		{"a missing end", func(t *testing.T, data string, r *rand.Rand) {
			s := segmentsOf(t, data)
			for _, path := range s[len(s)-1-r.IntN(len(s)/2):] {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"another log's segment", func(t *testing.T, data string, r *rand.Rand) {
			s := segmentsOf(t, data)
			other, _ := fixtureLane(t)
			for _, path := range segmentsOf(t, other)[1:] {
				for _, mine := range s[:len(s)-1] {
					if filepath.Base(mine) == filepath.Base(path) && r.IntN(2) == 0 {
						change(t, mine, func([]byte) []byte { b, _ := os.ReadFile(path); return b })
						return
					}
				}
			}
		}},
		{"no mark", func(t *testing.T, data string, _ *rand.Rand) {
			if err := os.Remove(filepath.Join(data, "lanes", "0", "mark")); err != nil {
				t.Fatal(err)
			}
		}},
		{"no manifest", func(t *testing.T, data string, _ *rand.Rand) {
			if err := os.Remove(filepath.Join(data, "lanes", "0", "segments")); err != nil {
				t.Fatal(err)
			}
		}},
		{"a foreign file", func(t *testing.T, data string, _ *rand.Rand) {
			if err := os.WriteFile(filepath.Join(data, "lanes", "0", "log", "lost+found"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	}
}

// testRepair hurts a log, repairs it, and starts a lane on it. Whatever the damage: no record is lost that Kafka has, no
// batch number means two things, no sink is asked to go back, and what comes twice was announced.
func testRepair(t *testing.T, data string, contents map[uint64][]string) {
	t.Helper()
	way := map[string]int{}
	for _, h := range hurts() {
		t.Run(h.name, func(t *testing.T) {
			for seed := range uint64(2) {
				t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
					hurt := copyData(t, data)
					h.do(t, hurt, rand.New(rand.NewPCG(seed, 1)))
					way[repairOne(t, hurt, contents)]++
				})
			}
		})
	}
	t.Logf("%v", way)
}

func repairOne(t *testing.T, data string, contents map[uint64][]string) string {
	t.Helper()
	code, out, say := forebay(t, "", "wal", "verify", "--data-dir", data)
	if code == exitOK {
		return "whole"
	}
	before := snapshotTree(t, data)
	if code == exitTorn {
		if code, _, say = forebay(t, "", "wal", "repair", "--data-dir", data); code != exitOK {
			t.Fatalf("repair of a torn tail: %d %s", code, say)
		}
		checkRepaired(t, data, contents, "")
		return "torn"
	}
	if code != exitFailure || !strings.Contains(out, "damaged: ") {
		t.Fatalf("verify: %d\n%s%s", code, out, say)
	}
	for _, args := range [][]string{{}, {"--lose-acknowledged"}, {"--lose-acknowledged", "--yes-lose", "another"}} {
		code, out, say = forebay(t, "no\n", append([]string{"wal", "repair", "--data-dir", data}, args...)...)
		if code != exitFailure {
			t.Fatalf("repair %v: %d\n%s%s", args, code, out, say)
		}
	}
	if after := without(snapshotTree(t, data), "repair-"); !cmp.Equal(before, after) {
		t.Fatal("a repair that was not confirmed changed something")
	}
	_ = removeReports(t, data)
	code, out, say = forebay(t, "forebay\n", "wal", "repair", "--data-dir", data, "--lose-acknowledged")
	if code != exitOK {
		if after := without(snapshotTree(t, data), "repair-"); !cmp.Equal(before, after) {
			t.Fatalf("a repair that failed changed something: %s", say)
		}
		if !strings.Contains(say, errNoWay.Error()) {
			t.Fatalf("repair: %d\n%s%s", code, out, say)
		}
		t.Log(say)
		return "refused"
	}
	if reports := removeReports(t, data); len(reports) != 1 || reports[0] != out {
		t.Fatalf("%d reports, of which the first is not what was printed", len(reports))
	}
	checkRepaired(t, data, contents, out)
	switch {
	case strings.Contains(out, "is read from Kafka again"):
		return "cut back"
	case strings.Contains(out, "goes: "):
		return "begins later"
	}
	return "nothing lost"
}

func without(files map[string]string, prefix string) map[string]string {
	for name := range files {
		if strings.HasPrefix(name, prefix) {
			delete(files, name)
		}
	}
	return files
}

func removeReports(t *testing.T, data string) []string {
	t.Helper()
	paths, _ := filepath.Glob(filepath.Join(data, "lanes", "0", "repair-*.txt"))
	var texts []string
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(b))
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	return texts
}

// checkRepaired starts the lane, and holds it against what it was.
func checkRepaired(t *testing.T, data string, contents map[uint64][]string, report string) {
	t.Helper()
	if code, out, say := forebay(t, "", "wal", "verify", "--data-dir", data); code != exitOK {
		t.Fatalf("verify after the repair: %d\n%s%s%s", code, report, out, say)
	}
	last := uint64(len(contents))
	cursors := map[string]uint64{"fast": last - 1, "slow": last - 11}
	for sink, cursor := range cursors { // as a sink's own message tells that it is ahead
		if mayHaveMore(report, sink) {
			code, out, say := forebay(t, "", "wal", "repair", "--data-dir", data, "--yes-lose", "forebay",
				"--sink-has", fmt.Sprintf("%s=0-%d", sink, cursor-1))
			if code != exitOK {
				t.Fatalf("--sink-has: %d\n%s%s", code, out, say)
			}
		}
	}
	l := startLane(t, data)
	defer l.end()
	if l.lane.Open().Records > 0 {
		l.cut()
	}
	readable := map[uint64][]string{}
	for seq := l.lane.FirstSeq(); seq <= l.lane.LastSeq(); seq++ {
		got, err := l.batch(seq)
		if err != nil {
			t.Fatalf("%sbatch %d: %v", report, seq, err)
		}
		readable[seq] = got
		if len(got) > 0 && seq <= last && !slices.Equal(got, contents[seq]) {
			t.Errorf("%sbatch %d means two things", report, seq)
		}
	}
	for sink, cursor := range cursors {
		k, _ := l.lane.Sink(sink)
		if k.Cursor < cursor {
			t.Errorf("%ssink %s had all up to %d, and is given %d", report, sink, cursor-1, k.Cursor)
		}
		checkSink(t, l, k, cursor, contents, readable, report)
	}
	l.append(0, 1, 10)
	l.cut()
	if got, err := l.batch(l.lane.LastSeq()); err != nil || len(got) != 1 || l.lane.LastSeq() <= last {
		t.Errorf("%sthe next batch is %d: %v, %v", report, l.lane.LastSeq(), got, err)
	}
}

func checkSink(t *testing.T, l *testLane, k record.SinkState, cursor uint64, contents, readable map[uint64][]string, report string) {
	t.Helper()
	had, comes := map[string]bool{}, map[string]bool{}
	for seq := uint64(1); seq < cursor; seq++ {
		for _, name := range contents[seq] {
			had[name] = true
		}
	}
	for seq, names := range readable {
		for _, name := range names {
			if seq >= k.Cursor {
				comes[name] = true
				if had[name] && !strings.Contains(sinkLineOf(report, k.Name), "AGAIN") {
					t.Fatalf("%s%s comes to %s again, and nobody said so", report, name, k.Name)
				}
			}
		}
	}
	for seq, names := range contents {
		for _, name := range names {
			partition, offset, _ := strings.Cut(name, "@")
			p, _ := strconv.ParseInt(partition, 10, 32)
			o, _ := strconv.ParseInt(offset, 10, 64)
			pos, ok := l.lane.Position("t", int32(p))
			if !had[name] && !comes[name] && ok && o < pos.Next {
				t.Fatalf("%s%s of batch %d is lost to %s", report, name, seq, k.Name)
			}
		}
	}
}

// sinkLineOf is what a report says of a sink.
func sinkLineOf(report, sink string) string {
	for line := range strings.Lines(report) {
		if strings.HasPrefix(line, "sink "+sink+" ") {
			return line
		}
	}
	return ""
}

func mayHaveMore(report, sink string) bool {
	return strings.Contains(sinkLineOf(report, sink), "it may have more")
}
