package bench

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/tidwall/wal"

	forebay "forebay/wal"
)

const (
	// appendRounds is how often each way of appending has its turn at one size.
	appendRounds = 7
	// appendSlice is about how much one turn writes, in bytes.
	appendSlice = 48 << 20
)

// A way to make a group of equal entries durable, with one sync.
type way struct {
	name  string
	store func(count int) error
	close func() error
}

// TestLogAppend measures what the log costs over the library that it stands on,
// and over the bare file. With n entries outstanding n are waiting when a sync ends, so
// n are the next group, as Raft makes it.
func TestLogAppend(t *testing.T) {
	forFigures(t)
	var table strings.Builder
	table.WriteString("| entry, outstanding | file | library | log | log/library | CPU s/GiB: file | library | log | log/library |\n|---|---|---|---|---|---|---|---|---|\n")
	var rates, costs []float64
	for _, size := range [...]int{64 << 10, 256 << 10, 1 << 20} {
		for _, outstanding := range [...]int{1, 8, 32} {
			turns := takeTurns(t, size, outstanding)
			rate, cost := ratio(turns[2], turns[1], spent.rate), ratio(turns[2], turns[1], spent.cpuPerGiB)
			rates, costs = append(rates, rate), append(costs, cost)
			fmt.Fprintf(&table, "| %d KiB, %d |", size>>10, outstanding)
			for _, w := range turns {
				fmt.Fprintf(&table, " %.0f |", medianOf(w, spent.rate))
			}
			fmt.Fprintf(&table, " %.2f |", rate)
			for _, w := range turns {
				fmt.Fprintf(&table, " %.2f |", medianOf(w, spent.cpuPerGiB))
			}
			fmt.Fprintf(&table, " %.2f |\n", cost)
		}
	}
	fmt.Printf("\nAppend and sync, MiB/s, medians of %d turns; ratios are medians over turns taken one after the other.\n\n%s\nOver all nine: log/library %.2f in rate, %.2f in CPU.\n",
		appendRounds, table.String(), median(rates), median(costs))
}

// takeTurns measures file, library and log in turn.
func takeTurns(t *testing.T, size, outstanding int) [3][]spent {
	t.Helper()
	dir := t.TempDir()
	data := noise(size)
	ways := [3]way{fileWay(t, dir, data), libraryWay(t, dir, data), logWay(t, dir, data, outstanding)}
	groups := max(appendSlice/(size*outstanding), 2)
	var turns [3][]spent
	for round := range appendRounds + 1 {
		for i := range ways {
			w := &ways[(i+round)%len(ways)]
			s := measure(t, func() (int64, error) {
				for range groups {
					if err := w.store(outstanding); err != nil {
						return 0, fmt.Errorf("%s: %w", w.name, err)
					}
				}
				return int64(groups * outstanding * size), nil
			})
			if round > 0 { // the first is for warming up
				turns[(i+round)%len(ways)] = append(turns[(i+round)%len(ways)], s)
			}
		}
	}
	for _, w := range ways {
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	return turns
}

func fileWay(t *testing.T, dir string, data []byte) way {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "raw"))
	if err != nil {
		t.Fatal(err)
	}
	return way{"file", func(count int) error {
		for range count {
			if _, err := f.Write(data); err != nil {
				return err
			}
		}
		return syscall.Fdatasync(int(f.Fd()))
	}, f.Close}
}

// libraryWay is tidwall/wal with the log's own settings: it syncs each segment that
// it ends, and we sync once after each group.
func libraryWay(t *testing.T, dir string, data []byte) way {
	t.Helper()
	w, err := wal.Open(filepath.Join(dir, "library"), &wal.Options{
		NoSync: true, SegmentSize: forebay.DefaultSegmentSize, SegmentCacheSize: 1, NoCopy: true, AllowEmpty: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	var batch wal.Batch
	next := uint64(1)
	return way{"library", func(count int) error {
		for range count {
			batch.Write(next, data)
			next++
		}
		if err := w.WriteBatch(&batch); err != nil {
			return err
		}
		return w.Sync()
	}, w.Close}
}

func logWay(t *testing.T, dir string, data []byte, most int) way {
	t.Helper()
	l := openLog(t, forebay.Config{Dir: filepath.Join(dir, "log")})
	next := uint64(1)
	group := make([]*raft.Log, most)
	for i := range group {
		group[i] = &raft.Log{Term: 1, Type: raft.LogCommand, Data: data}
	}
	return way{"log", func(count int) error {
		for i := range count {
			group[i].Index = next
			next++
		}
		return l.StoreLogs(group[:count])
	}, l.Close}
}

func openLog(t *testing.T, cfg forebay.Config) *forebay.Log {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	l, err := forebay.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// spent is what one turn took.
type spent struct {
	bytes int64
	wall  time.Duration
	cpu   time.Duration
}

// rate in MiB/s.
func (s spent) rate() float64 { return float64(s.bytes) / (1 << 20) / s.wall.Seconds() }

// cpuPerGiB in seconds of all cores, user and system.
func (s spent) cpuPerGiB() float64 { return s.cpu.Seconds() / (float64(s.bytes) / (1 << 30)) }

func measure(t *testing.T, work func() (bytes int64, err error)) spent {
	t.Helper()
	cpu, start := cpuTime(t), time.Now()
	bytes, err := work()
	if err != nil {
		t.Fatal(err)
	}
	return spent{bytes, time.Since(start), cpuTime(t) - cpu}
}

// cpuTime is what this process has used so far.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func medianOf(turns []spent, figure func(spent) float64) float64 {
	var all []float64
	for _, s := range turns {
		all = append(all, figure(s))
	}
	return median(all)
}

// ratio is the median of a figure of a over that of b, turn by turn.
func ratio(a, b []spent, figure func(spent) float64) float64 {
	var all []float64
	for i := range min(len(a), len(b)) {
		all = append(all, figure(a[i])/figure(b[i]))
	}
	slices.Sort(all)
	return median(all)
}

// forFigures skips a test that measures for minutes unless figures are asked for.
func forFigures(t *testing.T) {
	t.Helper()
	if os.Getenv("FOREBAY_BENCH") == "" {
		t.Skip("skipped: measures for minutes; run it with `make bench-log`")
	}
}
