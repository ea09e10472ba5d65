package node

import (
	"fmt"
	"os"
	"testing"
)

// TestADestinationThatWasEmptiedIsSaid, as where a volume is not mounted: once for
// each sink, with its name.
func TestADestinationThatWasEmptiedIsSaid(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	p.sinks += fmt.Sprintf("[sinks.rows.sqlite]\npath = %q\ntable = \"rows\"\n", p.path("rows.db"))
	r := p.up()
	b.produce("clicks", 0, numbers(0, 5)...)
	r.awaitDelivered("files", 5)
	r.awaitDelivered("rows", 5)
	r.stop()
	for _, name := range []string{"files", "rows.db", "rows.db-wal", "rows.db-shm"} {
		if err := os.RemoveAll(p.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	r = p.up()
	for _, sink := range []string{"files", "rows"} {
		if got := r.logs.lines("level=WARN", "sink="+sink, "none of its earlier batches"); len(got) != 1 {
			t.Errorf("the log says of %s: %q", sink, got)
		}
	}
}
