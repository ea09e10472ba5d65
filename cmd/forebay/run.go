package main

import (
	"io"
	"log/slog"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"forebay/internal/config"
	"forebay/internal/node"
)

func (p *program) runCommand() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the gateway until it is told to stop (SIGINT, SIGTERM, SIGHUP)",
		Args:  exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			file, err := loadConfig(path)
			if err != nil {
				return err
			}
			// Who reads the log or a stdout sink may go away: that is an error of the
			// write, and no end of the gateway.
			signal.Ignore(syscall.SIGPIPE)
			err = node.Run(c.Context(), node.Options{
				Config: file,
				Logger: newLogger(p.err, file.Node),
				Stdout: p.out,
			})
			if err != nil {
				return &exitError{code: exitCode(err)} // the log has said it
			}
			return nil
		},
	}
	configFlag(c, &path)
	return c
}

func newLogger(w io.Writer, n config.Node) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(n.LogLevel)) // one of four words: validated
	options := &slog.HandlerOptions{Level: level}
	if n.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
