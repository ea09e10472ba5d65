package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
)

func (p *program) parkedCommand() *cobra.Command {
	return group("parked", "Records that a sink refused and that are kept",
		p.parkedListCommand(), p.parkedShowCommand(), p.parkedDiscardCommand())
}

func (p *program) parkedListCommand() *cobra.Command {
	var r remote
	c := &cobra.Command{
		Use:   "list",
		Short: "The parked records: which, from which batch, and why",
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			parked, err := r.client().Parked(c.Context())
			if err != nil {
				return err
			}
			return r.output.show(p.out, parked, func(t *table) {
				t.row("ID", "SINK", "BATCH", "TOPIC", "PARTITION", "OFFSET", "BYTES", "PARKED AT", "REASON")
				for _, q := range parked {
					t.row(q.ID, q.Sink, q.Batch, q.Topic, q.Partition, q.Offset, q.Bytes, timeText(&q.At), q.Reason)
				}
			})
		},
	}
	r.register(c)
	return c
}

func (p *program) parkedShowCommand() *cobra.Command {
	var (
		r    remote
		lane uint32
	)
	c := &cobra.Command{
		Use:   "show ID",
		Short: "One parked record, whole",
		Args:  exactly("ID"),
		RunE: func(c *cobra.Command, args []string) error {
			ids, err := parkedIDs(args)
			if err != nil {
				return err
			}
			found, err := r.client().ParkedRecord(c.Context(), lane, ids[0])
			if err != nil {
				return err
			}
			return r.output.show(p.out, found, func(t *table) { recordTable(t, found) })
		},
	}
	r.register(c)
	c.Flags().Uint32Var(&lane, "lane", 0, "the lane")
	return c
}

func recordTable(t *table, r admin.Record) {
	quoted := func(b []byte) string {
		if b == nil {
			return "nil"
		}
		return strconv.Quote(string(b))
	}
	t.row("topic", r.Topic)
	t.row("partition", r.Partition)
	t.row("offset", r.Offset)
	t.row("timestamp", r.Timestamp)
	t.row("key", quoted(r.Key))
	for _, h := range r.Headers {
		t.row("header", quoted(h[0])+" = "+quoted(h[1]))
	}
	t.row("value", quoted(r.Value))
}

func (p *program) parkedDiscardCommand() *cobra.Command {
	var (
		r    remote
		lane uint32
	)
	c := &cobra.Command{
		Use:   "discard ID...",
		Short: "Forget parked records for good",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return wrongArguments(c, "the IDs of parked records, as parked list shows them")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			ids, err := parkedIDs(args)
			if err != nil {
				return err
			}
			if err := r.client().DiscardParked(c.Context(), lane, ids); err != nil {
				return err
			}
			return r.done(p.out, map[string]any{"discarded": ids}, "parked records discarded: %s", strings.Join(args, ", "))
		},
	}
	r.register(c)
	c.Flags().Uint32Var(&lane, "lane", 0, "the lane")
	return c
}

func parkedIDs(args []string) ([]uint64, error) {
	var ids []uint64
	for _, arg := range args {
		id, err := strconv.ParseUint(arg, 10, 64)
		if err != nil {
			return nil, usageError{fmt.Errorf("%q is no ID of a parked record (see parked list)", arg)}
		}
		ids = append(ids, id)
	}
	return ids, nil
}
