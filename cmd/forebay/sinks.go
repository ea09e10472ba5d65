package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/record"
)

func (p *program) sinksCommand() *cobra.Command {
	return group("sinks", "List, pause, resume and remove sinks",
		p.sinksListCommand(),
		p.sinkPauseCommand("pause", "Stop deliveries to a sink after the batch in hand; its batches stay in the log", true),
		p.sinkPauseCommand("resume", "Let a paused sink go on, and retry a blocked or failed one at once", false),
		p.sinkRemoveCommand())
}

func (p *program) sinksListCommand() *cobra.Command {
	var r remote
	c := &cobra.Command{
		Use:   "list",
		Short: "Every sink with its cursor and state",
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			status, err := r.client().Status(c.Context())
			if err != nil {
				return err
			}
			if len(status.Lanes) == 0 { // an empty list would say that there are none
				return &exitError{exitTryAgain, fmt.Errorf("the node has not opened its log: %s", strings.Join(status.Reasons, "; "))}
			}
			sinks := []admin.Sink{}
			for _, lane := range status.Lanes {
				sinks = append(sinks, lane.Sinks...)
			}
			return r.output.show(p.out, sinks, func(t *table) { sinkTable(t, sinks) })
		},
	}
	r.register(c)
	return c
}

func (p *program) sinkPauseCommand(verb, short string, paused bool) *cobra.Command {
	var r remote
	c := &cobra.Command{
		Use:   verb + " NAME",
		Short: short,
		Args:  exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := r.client().PauseSink(c.Context(), args[0], paused); err != nil {
				return err
			}
			return r.done(p.out, map[string]any{"sink": args[0], "paused": paused}, "sink %s %sd", args[0], verb)
		},
	}
	r.register(c)
	return c
}

func (p *program) sinkRemoveCommand() *cobra.Command {
	var (
		r    remote
		from string
	)
	c := &cobra.Command{
		Use:   "remove NAME --gives-up-from BATCH",
		Short: "Forget a sink that is no longer configured, and with it the batches it still had to get",
		Long: `A sink that was taken out of the configuration still holds the log: nothing that
it has not got is deleted. This forgets it. --gives-up-from names the first batch
that it will never get, which must be its cursor (see sinks list): so that what
is given up is what was looked at.`,
		Args: exactly("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if from == "" {
				return usageError{errors.New("say with --gives-up-from BATCH what the sink gives up: its cursor, as `forebay sinks list` shows it")}
			}
			id, err := record.ParseBatchID(from)
			if err != nil {
				return usageError{fmt.Errorf("--gives-up-from: %w", err)}
			}
			if err := r.client().RemoveSink(c.Context(), args[0], id); err != nil {
				return err
			}
			return r.done(p.out, map[string]any{"sink": args[0], "givesUpFrom": id.String()}, "sink %s removed; it gave up the batches from %s on", args[0], id)
		},
	}
	r.register(c)
	c.Flags().StringVar(&from, "gives-up-from", "", "the first `BATCH` that it gives up, which is its cursor")
	return c
}
