package bench

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// rounds is how often each figure is measured, in turn with the others; the
// table has the medians.
const rounds = 3

// TestFigures prints the table. It is long and wants the machine for itself, so
// it runs only when asked for.
func TestFigures(t *testing.T) {
	if os.Getenv("FOREBAY_BENCH") == "" {
		t.Skip("skipped: measures for minutes; run it with `make bench`")
	}
	whole := newWholeWay(t)
	var disk, raft, end []float64
	var runs []outcome
	for round := range rounds {
		disk = append(disk, rawDisk(t))
		raft = append(raft, throughRaft(t))
		o := whole.run(t)
		runs, end = append(runs, o), append(end, o.mib)
		t.Logf("round %d: disk %.0f, log %.0f, whole way %.0f MiB/s", round+1, disk[round], raft[round], end[round])
	}
	slices.SortFunc(runs, func(a, b outcome) int { return int(a.mib - b.mib) })
	middle := runs[len(runs)/2]
	base := median(disk)
	var table strings.Builder
	fmt.Fprintf(&table, "| what | MiB/s (median of %d) | lowest, highest | of the bare disk |\n|---|---|---|---|\n", rounds)
	for _, row := range []struct {
		what    string
		figures []float64
	}{
		{"bare disk: 1 MiB appends, fdatasync after each", disk},
		{"the log through Raft: 256 KiB blocks, 2 MiB in flight, synced", raft},
		{fmt.Sprintf("the whole way: %d records of %d B from a real Kafka into exactly-once files", records, recordBytes), end},
	} {
		m := median(row.figures)
		fmt.Fprintf(&table, "| %s | %.0f | %.0f, %.0f | %.2f |\n", row.what, m, slices.Min(row.figures), slices.Max(row.figures), m/base)
	}
	fmt.Fprintf(&table, "\nThe whole way: %.0f records/s, %.1f CPU s per GiB, %.0f MiB peak memory (the broker runs on the same machine).\n",
		middle.perSecond, middle.cpuPerGiB, middle.peakMiB)
	fmt.Println(table.String())
}

func median(figures []float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	return sorted[len(sorted)/2]
}
