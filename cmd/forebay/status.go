package main

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
)

func (p *program) statusCommand() *cobra.Command {
	var r remote
	c := &cobra.Command{
		Use:   "status",
		Short: "What the node is doing: intake, log, batches, sinks, partitions",
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			status, err := r.client().Status(c.Context())
			if err != nil {
				return err
			}
			return r.output.show(p.out, status, func(t *table) { statusTable(t, status) })
		},
	}
	r.register(c)
	return c
}

func statusTable(t *table, s admin.Status) {
	t.line("gateway %s, node %s, version %s", s.Gateway, s.Node, s.Version)
	if s.Ready {
		t.line("ready")
	}
	for _, reason := range s.Reasons {
		t.line("not ready: %s", reason)
	}
	for _, lane := range s.Lanes {
		t.line("")
		t.line("lane %d: %s, leader %s, term %d", lane.Lane, lane.Role, cmp.Or(lane.Leader, "unknown"), lane.Term)
		limit := "no limit"
		if lane.Intake.Limit > 0 {
			limit = fmt.Sprintf("limit %d/s", lane.Intake.Limit)
		}
		held := ""
		if lane.Intake.HeldBy != "" {
			held = ", held by " + lane.Intake.HeldBy
		}
		t.line("intake   %.0f records/s, %s/s, %s%s", lane.Intake.RecordsPerSecond, bytesText(int64(lane.Intake.BytesPerSecond)), limit, held)
		t.line("log      %s, entries %d to %d, floor %d", bytesText(lane.Log.Bytes), lane.Log.First, lane.Log.Last, lane.Log.Floor)
		t.line("batches  last cut %s, %d active", cmp.Or(lane.Batches.LastCut, "none yet"), lane.Batches.Active)
		t.line("")
		sinkTable(t, lane.Sinks)
		t.line("")
		t.row("TOPIC", "PARTITION", "NEXT", "END", "LAG", "STATE", "DETAIL")
		for _, q := range lane.Partitions {
			end, lag := "", ""
			if q.End >= 0 {
				end, lag = fmt.Sprint(q.End), fmt.Sprint(max(q.End-q.Next, 0))
			}
			t.row(q.Topic, q.Partition, q.Next, end, lag, q.State, q.Detail)
		}
	}
}

func sinkTable(t *table, sinks []admin.Sink) {
	t.row("SINK", "NEXT BATCH", "STATE", "RETRIES", "LAST SUCCESS", "PARKED", "DROPPED", "LAST ERROR")
	for _, s := range sinks {
		state := s.State
		if !s.Configured {
			state = "not configured, holds the log"
			if s.State == "paused" {
				state = "paused, " + state
			}
		}
		t.row(s.Name, s.Cursor, state, s.Retries, timeText(s.LastSuccess), s.Parked, s.Dropped, s.LastError)
	}
}

func (p *program) batchesCommand() *cobra.Command {
	var (
		r      remote
		limit  int
		before uint64
		lane   uint32
	)
	c := &cobra.Command{
		Use:   "batches",
		Short: "The batches that the log holds, newest first",
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			page, err := r.client().Batches(c.Context(), lane, before, limit)
			if err != nil {
				return err
			}
			return r.output.show(p.out, page, func(t *table) {
				t.row("BATCH", "CUT AT", "RECORDS", "BYTES", "SINK", "STATE", "ATTEMPTS", "STARTED", "DONE", "ERROR")
				for _, b := range page.Batches {
					id, cut, records, size := b.ID, timeText(&b.CutAt), fmt.Sprint(b.Records), bytesText(b.Bytes)
					if len(b.Sinks) == 0 {
						t.row(id, cut, records, size)
					}
					for _, s := range b.Sinks {
						t.row(id, cut, records, size, s.Name, s.State, s.Attempts, timeText(s.StartedAt), timeText(s.DoneAt), s.Error)
						id, cut, records, size = " ", " ", " ", " "
					}
				}
				if page.Next != nil {
					t.line("older ones: --before %d", *page.Next)
				}
			})
		},
	}
	r.register(c)
	c.Flags().IntVar(&limit, "limit", 20, "how many, at most 1000")
	c.Flags().Uint64Var(&before, "before", 0, "only batches below this sequence number")
	c.Flags().Uint32Var(&lane, "lane", 0, "the lane")
	return c
}
