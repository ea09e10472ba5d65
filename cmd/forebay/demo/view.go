package demo

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"forebay/internal/admin"
)

// view tells in words and figures what happens, once after each batch.
type view struct {
	out   io.Writer
	start time.Time
	last  string // the batch that was shown
}

func (v *view) say(format string, args ...any) {
	fmt.Fprintf(v.out, "%6.1fs  %s\n", time.Since(v.start).Seconds(), fmt.Sprintf(format, args...))
}

// look shows the newest batch that every sink has, if it was not shown yet.
func (v *view) look(ctx context.Context, p *producer, g *gateway) {
	status, err := g.client.Status(ctx)
	if err != nil || len(status.Lanes) == 0 {
		return // killed, or not up yet
	}
	page, err := g.client.Batches(ctx, 0, 0, 5)
	if err != nil {
		return
	}
	for _, batch := range page.Batches {
		if delay, done := deliveredAfter(batch); done {
			if batch.ID != v.last {
				v.last = batch.ID
				v.batch(ctx, p, g, status.Lanes[0], batch, delay)
			}
			return
		}
	}
}

// deliveredAfter is how long after the cut the last sink had a batch.
func deliveredAfter(b admin.Batch) (time.Duration, bool) {
	var delay time.Duration
	for _, s := range b.Sinks {
		if s.DoneAt == nil {
			return 0, false
		}
		delay = max(delay, s.DoneAt.Sub(b.CutAt))
	}
	return delay, len(b.Sinks) > 0
}

func (v *view) batch(ctx context.Context, p *producer, g *gateway, lane admin.Lane, b admin.Batch, delay time.Duration) {
	var waiting int64
	for _, q := range lane.Partitions {
		waiting += max(q.End-q.Next, 0)
	}
	v.say("intake %.0f records/s of at most %d (held by %s) | produced %d, waiting in Kafka %d | log %.1f MiB",
		lane.Intake.RecordsPerSecond, lane.Intake.Limit, cmp.Or(lane.Intake.HeldBy, "nothing"), p.confirmed(), waiting, float64(lane.Log.Bytes)/(1<<20))
	v.say("batch %s: %d records, in both sinks %s after its cut", b.ID, b.Records, delay.Round(time.Millisecond))
	top, err := topPages(ctx, g.database(), 10)
	if err != nil || len(top) == 0 {
		return
	}
	for i := 0; i < len(top); i += 5 {
		var cells []string
		for _, page := range top[i:min(i+5, len(top))] {
			cells = append(cells, fmt.Sprintf("%s %9s", page.name, tenths(page.score)))
		}
		fmt.Fprintf(v.out, "         %s\n", strings.Join(cells, "  "))
	}
}

// tenths writes whole tenths as a decimal number.
func tenths(n int64) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	return fmt.Sprintf("%s%d.%d", sign, n/10, n%10)
}
