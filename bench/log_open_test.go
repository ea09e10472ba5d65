package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"forebay/replicate"
	"forebay/wal"
)

const (
	openRounds = 5
	// openTail is how much of the log follows the newest snapshot, in bytes: nearly what
	// wal.snapshotBytes allows by default.
	openTail = 248 << 20
)

// TestLogOpen measures how a start depends on the size of the log: the log's own open, and
// the program from exec until it is ready, with what it reads in the page cache and not.
// The logs are full of what no sink has got, the sink being paused, and end with as much behind the
// newest snapshot as may be.
func TestLogOpen(t *testing.T) {
	forFigures(t)
	var table strings.Builder
	table.WriteString("| log GB (segments) | what | warm, s | cold, s | of reading the same | read warm, MB | from disk cold, MB | peak MiB |\n|---|---|---|---|---|---|---|---|\n")
	for _, gb := range [...]float64{0.1, 1, 10} {
		g := newGateway(t)
		segments := g.fill(t, int64(gb*1e9))
		for _, what := range []struct {
			name  string
			start func(t *testing.T) opening
		}{{"wal.Open", g.openLog}, {"forebay run", g.run}} {
			var warm, cold []opening
			var against []float64
			for range openRounds {
				forget(t, g.data)
				c := what.start(t)
				read := g.readEnd(t, c.fromDisk)
				cold, against = append(cold, c), append(against, c.seconds/read.Seconds())
				what.start(t) // brings back what readEnd did not
				warm = append(warm, what.start(t))
			}
			w, c := middle(warm), middle(cold)
			fmt.Fprintf(&table, "| %g (%d) | %s | %.2f | %.2f | %.2f | %.0f | %.0f | %.0f |\n", gb, segments, what.name,
				w.seconds, c.seconds, median(against), w.read/1e6, c.fromDisk/1e6, max(w.peakMiB, c.peakMiB))
		}
		if err := os.RemoveAll(g.dir); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Printf("\nStart, medians of %d; cold: the page cache has nothing of the data directory (but for names and sizes).\n\n%s\n", openRounds, table.String())
}

// opening is one start of a process.
type opening struct {
	seconds, read, fromDisk, peakMiB float64
}

func middle(all []opening) opening {
	slices.SortFunc(all, func(a, b opening) int { return int((a.seconds - b.seconds) * 1e9) })
	return all[len(all)/2]
}

// openVariable makes this test's program a process that opens a log and tells when it has.
const openVariable = "FOREBAY_BENCH_OPEN"

// TestLogOpenChild is the process that openLog starts.
func TestLogOpenChild(t *testing.T) {
	dir := os.Getenv(openVariable)
	if dir == "" {
		t.Skip("skipped: TestLogOpen starts it in a process of its own")
	}
	start := time.Now()
	newest, err := replicate.NewestSnapshot(dir)
	if err != nil {
		t.Fatal(err)
	}
	l := openLog(t, wal.Config{Dir: dir, SnapshotIndex: newest.Index, SnapshotTerm: newest.Term, SnapshotTaken: newest.TakenHere})
	o := ioOf(t, os.Getpid())
	o.seconds = time.Since(start).Seconds()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("opened %g %g %g %g\n", o.seconds, o.read, o.fromDisk, o.peakMiB)
}

// openLog opens the lane's log alone, in a process of its own.
func (g *gateway) openLog(t *testing.T) opening {
	t.Helper()
	process := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestLogOpenChild$")
	process.Env = append(os.Environ(), openVariable+"="+g.lane)
	out, err := process.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var o opening
	at := strings.Index(string(out), "opened ")
	if _, err := fmt.Sscanf(string(out[max(at, 0):]), "opened %g %g %g %g", &o.seconds, &o.read, &o.fromDisk, &o.peakMiB); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return o
}

// run starts the program, waits until it is ready, and kills it.
func (g *gateway) run(t *testing.T) opening {
	t.Helper()
	start := time.Now()
	process, log := g.start(t)
	g.awaitReady(t, log)
	seconds := time.Since(start).Seconds()
	o := ioOf(t, process.Process.Pid)
	o.seconds = seconds
	if err := process.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = process.Wait() // killed
	return o
}

// ioOf is what a process has read so far, and the most memory that it has had. (What wait tells
// begins with the memory of the process that it was forked from.)
func ioOf(t *testing.T, pid int) opening {
	t.Helper()
	field := func(file, name string) float64 {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(`(?m)^` + name + `:\s+(\d+)`).FindSubmatch(text)
		if m == nil {
			t.Fatalf("no %s in %s", name, text)
		}
		n, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return opening{read: field("io", "rchar"), fromDisk: field("io", "read_bytes"), peakMiB: field("status", "VmHWM") / 1024}
}

// readEnd reads as many bytes from the end of the log as a cold start read, and as cold.
func (g *gateway) readEnd(t *testing.T, bytes float64) time.Duration {
	t.Helper()
	forget(t, g.data)
	names, err := filepath.Glob(filepath.Join(g.lane, "log", "*"))
	if err != nil {
		t.Fatal(err)
	}
	from, sum := len(names), int64(0)
	for from > 0 && float64(sum) < bytes {
		from--
		info, err := os.Stat(names[from])
		if err != nil {
			t.Fatal(err)
		}
		sum += info.Size()
	}
	buf := make([]byte, 1<<20)
	start := time.Now()
	for _, name := range names[from:] {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buf); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return time.Since(start)
}

// fill appends to the gateway's stopped lane until its log has size bytes and ends with
// openTail behind the newest snapshot, if it is that large. It returns how many segments there are.
func (g *gateway) fill(t *testing.T, size int64) int {
	t.Helper()
	newest, err := replicate.NewestSnapshot(g.lane)
	if err != nil {
		t.Fatal(err)
	}
	files := &watchedFiles{}
	files.quick.Store(true)
	l := openLog(t, wal.Config{
		Dir: g.lane, Files: files, SnapshotIndex: newest.Index, SnapshotTerm: newest.Term, SnapshotTaken: newest.TakenHere,
	})
	lane, err := replicate.Open(replicate.Config{
		NodeID: g.node, Gateway: g.name, Lanes: 1, Dir: g.lane, Store: l, Retention: time.Hour, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = lane.Lead(ctx, func(ctx context.Context, term *replicate.Term) {
		defer cancel()
		w := newBlockWriter(ctx, t, term)
		for enough := false; !enough && !t.Failed(); {
			w.append(16)
			newest, err := replicate.NewestSnapshot(g.lane)
			if err != nil {
				t.Error(err)
			}
			enough = l.Bytes() >= size && (newest.Index == 0 || l.BytesSince(newest.Index) >= openTail)
		}
	})
	if ctx.Err() == nil {
		t.Fatal(err)
	}
	if err := lane.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	segments := l.Stats().Segments
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return segments
}

// nodeOf reads which node a data directory belongs to.
func nodeOf(t *testing.T, data string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(data, "node.json"))
	if err != nil {
		t.Fatal(err)
	}
	var owner struct{ Node string }
	if err := json.Unmarshal(text, &owner); err != nil {
		t.Fatal(err)
	}
	return owner.Node
}
