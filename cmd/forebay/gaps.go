package main

import (
	"fmt"
	"regexp"
	"strconv"

	"github.com/spf13/cobra"
)

func (p *program) gapsCommand() *cobra.Command {
	return group("gaps", "Offsets that were never read, and why", p.gapsListCommand(), p.gapsSkipCommand())
}

func (p *program) gapsListCommand() *cobra.Command {
	var r remote
	c := &cobra.Command{
		Use:   "list",
		Short: "Every gap, those that wait for an operator included",
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			gaps, err := r.client().Gaps(c.Context())
			if err != nil {
				return err
			}
			return r.output.show(p.out, gaps, func(t *table) {
				t.row("TOPIC", "PARTITION", "FIRST", "LAST", "REASON", "RECORDED AT", "STATE")
				for _, g := range gaps {
					state := "passed"
					if g.Pending {
						state = "pending: the partition waits (gaps skip)"
					}
					t.row(g.Topic, g.Partition, g.First, g.Last, g.Reason, timeText(g.At), state)
				}
			})
		},
	}
	r.register(c)
	return c
}

func (p *program) gapsSkipCommand() *cobra.Command {
	var r remote
	c := &cobra.Command{
		Use:   "skip TOPIC PARTITION",
		Short: "Let a partition that waits go on: behind the offsets that are gone, or behind the record that cannot be kept",
		Args:  exactly("TOPIC", "PARTITION"),
		RunE: func(c *cobra.Command, args []string) error {
			partition, err := strconv.ParseUint(args[1], 10, 31)
			if err != nil {
				return usageError{notAPartition(args[1])}
			}
			gap, err := r.client().SkipGap(c.Context(), args[0], int32(partition))
			if err != nil {
				return err
			}
			return r.done(p.out, gap, "recorded the gap %s/%d offsets %d to %d (%s); the partition goes on", gap.Topic, gap.Partition, gap.First, gap.Last, gap.Reason)
		},
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if negative := negativeNumber.FindStringSubmatch(err.Error()); negative != nil {
			return notAPartition(negative[1])
		}
		return c.Root().FlagErrorFunc()(c, err)
	})
	r.register(c)
	return c
}

// negativeNumber is how the flags complain of a number below 0 among the arguments.
var negativeNumber = regexp.MustCompile(`^unknown shorthand flag: '\d' in (-\d+)$`)

func notAPartition(typed string) error {
	return fmt.Errorf("%q is no partition's number (see gaps list)", typed)
}
