package demo

import (
	"database/sql"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// told is a producer's account of five lines in two partitions, and the sinks that
// hold them as they should.
func told(t *testing.T) (*producer, *gateway) {
	t.Helper()
	g := &gateway{dir: t.TempDir()}
	if err := os.Mkdir(g.files(), 0o755); err != nil {
		t.Fatal(err)
	}
	p := &producer{sent: 5, scores: map[string]int64{"a": 30, "b": -10}, lines: map[int32]map[int64]string{
		0: {0: "l00", 1: "l01", 2: "l02"}, 1: {0: "l10", 1: "l11"},
	}}
	write(t, g, 1, "0/0 l00", "1/0 l10", "0/1 l01")
	write(t, g, 2, "0/2 l02", "1/1 l11")
	table(t, g, p.scores)
	return p, g
}

// write writes a batch file; a line is "partition/offset value".
func write(t *testing.T, g *gateway, seq int, lines ...string) {
	t.Helper()
	var text strings.Builder
	for _, line := range lines {
		var partition, offset int
		var value string
		if _, err := fmt.Sscanf(line, "%d/%d %s", &partition, &offset, &value); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&text, "{\"topic\":%q,\"partition\":%d,\"offset\":%d,\"value\":%q}\n", topic, partition, offset, value)
	}
	if err := os.WriteFile(filepath.Join(g.files(), fmt.Sprintf("batch-0-%020d.jsonl", seq)), []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

func table(t *testing.T, g *gateway, scores map[string]int64) {
	t.Helper()
	os.Remove(g.database())
	db, err := sql.Open("sqlite", "file:"+g.database())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE popularity (page TEXT PRIMARY KEY, score INTEGER)"); err != nil {
		t.Fatal(err)
	}
	for page, score := range scores {
		if _, err := db.Exec("INSERT INTO popularity VALUES (?, ?)", page, score); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTheProofFindsWhatIsWrong: a proof that cannot fail proves nothing.
func TestTheProofFindsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(t *testing.T, p *producer, g *gateway)
		words string
	}{
		"all is well":                  {func(*testing.T, *producer, *gateway) {}, ""},
		"the last one is missing":      {func(t *testing.T, _ *producer, g *gateway) { t.Helper(); write(t, g, 2, "0/2 l02") }, "the files hold 4 records, Kafka confirmed 5"},
		"one in the middle is missing": {func(t *testing.T, _ *producer, g *gateway) { t.Helper(); write(t, g, 1, "0/0 l00", "1/0 l10") }, "partition 0 has offset 2 where 1 is due"},
		"one is there twice": {func(t *testing.T, _ *producer, g *gateway) {
			t.Helper()
			write(t, g, 2, "0/1 l01", "0/2 l02", "1/1 l11")
		}, "partition 0 has offset 1 where 2 is due"},
		"two are in the wrong order": {func(t *testing.T, _ *producer, g *gateway) {
			t.Helper()
			write(t, g, 1, "0/1 l01", "0/0 l00", "1/0 l10")
		}, "partition 0 has offset 1 where 0 is due"},
		"one says something else": {func(t *testing.T, _ *producer, g *gateway) { t.Helper(); write(t, g, 2, "0/2 l03", "1/1 l11") }, `partition 0 offset 2 holds "l03", the producer sent "l02"`},
		"one that nobody sent":    {func(t *testing.T, _ *producer, g *gateway) { t.Helper(); write(t, g, 3, "1/2 l12") }, `partition 1 offset 2 holds "l12", the producer sent ""`},
		"a file is gone": {func(t *testing.T, _ *producer, g *gateway) {
			t.Helper()
			os.Remove(filepath.Join(g.files(), "batch-0-00000000000000000001.jsonl"))
		}, "offset 2 where 0 is due"},
		"a total is off": {func(t *testing.T, p *producer, g *gateway) {
			t.Helper()
			off := maps.Clone(p.scores)
			off["a"]++
			table(t, g, off)
		}, "a: the table says 31 tenths, the producer 30"},
		"a page is missing":    {func(t *testing.T, _ *producer, g *gateway) { t.Helper(); table(t, g, map[string]int64{"a": 30}) }, "the table has 1 pages, the producer 2"},
		"the table is missing": {func(t *testing.T, _ *producer, g *gateway) { t.Helper(); os.Remove(g.database()) }, "the table has 0 pages"},
	} {
		t.Run(name, func(t *testing.T) {
			p, g := told(t)
			c.spoil(t, p, g)
			result, err := prove(t.Context(), p, g)
			switch {
			case c.words == "" && (err != nil || result != proof{files: 2, records: 5, pages: 2}):
				t.Errorf("got %+v, %v", result, err)
			case c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words)):
				t.Errorf("got %v, want %q", err, c.words)
			}
		})
	}
}

func TestTenths(t *testing.T) {
	for n, want := range map[int64]string{0: "0.0", 7: "0.7", -7: "-0.7", 1234: "123.4", -10: "-1.0"} {
		if got := tenths(n); got != want {
			t.Errorf("%d tenths: %s, want %s", n, got, want)
		}
	}
}
