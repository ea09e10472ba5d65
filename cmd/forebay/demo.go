package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"forebay/cmd/forebay/demo"
)

func (p *program) demoCommand() *cobra.Command {
	var (
		config demo.Config
		crash  bool
	)
	c := &cobra.Command{
		Use:   "demo",
		Short: "The whole story on this machine, without a Kafka of your own",
		Long: `Starts an embedded Kafka, a producer of user behaviour on web pages (lines
page|clicks|minutes|like), and a gateway that takes it in at a limited rate, cuts
a batch every two seconds, and delivers it to files and to running totals in
SQLite. Then it compares what arrived with what was produced.

With --crash the gateway process is killed with SIGKILL in mid-stream, again and
again, and started again: nothing may be missing, and nothing there twice.`,
		Args: exactly(),
		RunE: func(c *cobra.Command, _ []string) error {
			config.Out = p.out
			switch {
			case !crash && c.Flags().Changed("crashes"):
				return usageError{errors.New("--crashes says how often, and goes with --crash")}
			case !crash:
				config.Crashes = 0
			case config.For <= 0:
				return usageError{errors.New("--crash needs an end: give --for a duration")}
			}
			if config.Rate <= 0 || config.MaxRate < 0 || config.Crashes < 0 {
				return usageError{errors.New("--rate takes a number from 1 on, --max-rate and --crashes one from 0 on")}
			}
			return runDemo(c.Context(), config)
		},
	}
	c.Flags().BoolVar(&crash, "crash", false, "kill the gateway in mid-stream and start it again")
	c.Flags().IntVar(&config.Crashes, "crashes", 3, "how often, with --crash")
	c.Flags().DurationVar(&config.For, "for", 20*time.Second, "how long lines are produced; 0 until you press Ctrl-C")
	c.Flags().IntVar(&config.Rate, "rate", 3000, "lines produced per second")
	c.Flags().IntVar(&config.MaxRate, "max-rate", 5000, "receiver.maxRate: records taken in per second")
	c.Flags().StringVar(&config.Dir, "dir", "", "an empty directory to work in and to keep (default: a temporary one)")
	return c
}

// runDemo plays the demo in the directory that was named, or in a temporary one,
// which stays when something was not as it should be.
func runDemo(ctx context.Context, config demo.Config) error {
	var err error
	if config.Program, err = os.Executable(); err != nil {
		return fmt.Errorf("finding this program, to start the gateway: %w", err)
	}
	if config.Dir != "" {
		return demo.Run(ctx, config)
	}
	parent, err := os.MkdirTemp("", "forebay-demo-")
	if err != nil {
		return fmt.Errorf("making a directory for the demo: %w", err)
	}
	config.Dir = filepath.Join(parent, "demo")
	if err := demo.Run(ctx, config); err != nil {
		return fmt.Errorf("%w (everything is kept in %s)", err, config.Dir)
	}
	return os.RemoveAll(parent)
}
