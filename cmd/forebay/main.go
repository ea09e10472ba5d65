// Command forebay is the gateway and everything an operator does with it: one
// file per command, main only dispatches.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"forebay/internal/admin"
	"forebay/internal/config"
	"forebay/internal/node"
)

// Exit codes, after sysexits.h where it has one.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitTorn        = 3 // wal verify: a torn tail and nothing else
	exitUnavailable = 69
	exitTryAgain    = 75
	exitBadConfig   = 78
)

// sameSignal is how long after the first signal another is taken for the same: timeout(1)
// and a shell whose terminal hangs up send it twice.
const sameSignal = time.Second

func main() {
	told := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as under nohup
		told = append(told, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), told...)
	// A second signal ends the program at once, which is safe at every moment.
	context.AfterFunc(ctx, func() { time.AfterFunc(sameSignal, stop) })
	p := &program{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	os.Exit(p.run(ctx, os.Args[1:])) // with stop not called: a signal now would change the exit code
}

// program is one command line with its streams: what a test starts too.
type program struct {
	in       io.Reader
	out, err io.Writer
	// begun tells that the command line was understood and its command begun.
	begun bool
}

// exitError ends the program with a code of its own; its error may be nil.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}
func (e *exitError) Unwrap() error { return e.err }

// usageError marks what the caller typed wrong.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// run executes one command line and gives its exit code.
func (p *program) run(ctx context.Context, args []string) int {
	root := p.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if !p.begun {
		err = usageError{err}
	}
	p.say(err)
	return exitCode(err)
}

// say prints an error; every problem of a configuration comes as a line of its own,
// which editors understand.
func (p *program) say(err error) {
	var problems config.Problems
	if errors.As(err, &problems) {
		for _, problem := range problems {
			fmt.Fprintln(p.err, problem)
		}
		return
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(p.err, "forebay: "+text)
	}
}

func exitCode(err error) int {
	var (
		exit    *exitError
		usage   usageError
		refused *admin.AnswerError
	)
	switch {
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, config.ErrInvalid):
		return exitBadConfig
	case errors.Is(err, node.ErrInUse):
		return exitTryAgain
	case errors.Is(err, admin.ErrUnavailable):
		return exitUnavailable
	case errors.As(err, &refused) && refused.Status == 503:
		return exitTryAgain
	default:
		return exitFailure
	}
}

func (p *program) root() *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:   "forebay",
		Short: "A receiver-mode ingestion gateway with a write-ahead log",
		Long: `Forebay reads Kafka as a member of a consumer group, appends every record to a
replicated write-ahead log before it acknowledges it, cuts the log into batches
at a fixed interval, and delivers each batch to every sink, exactly once where
the sink can do that. After a crash it goes on from the log.

Data goes to stdout, logs and errors to stderr. Exit codes: 0 done, 1 failed,
2 usage, 3 a torn tail and nothing else (wal), 69 no node answers, 75 try again,
78 bad configuration.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noSuchCommand,
		RunE: func(c *cobra.Command, _ []string) error {
			if version {
				return p.versionCommand().RunE(c, nil)
			}
			return c.Help()
		},
		PersistentPreRun: func(*cobra.Command, []string) { p.begun = true },
	}
	root.Flags().BoolVar(&version, "version", false, "what the command version says")
	root.SetIn(p.in)
	root.SetOut(p.out)
	root.SetErr(p.err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w (see %s --help)", err, c.CommandPath())
	})
	root.SetHelpCommand(helpCommand(root))
	root.AddCommand(
		p.runCommand(), p.validateCommand(), p.demoCommand(), p.statusCommand(), p.batchesCommand(),
		p.sinksCommand(), p.parkedCommand(), p.gapsCommand(), p.configCommand(), p.walCommand(), p.versionCommand(),
	)
	return root
}

// helpCommand is cobra's, but for what it says to a command that is not there.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "What a command does, and its flags",
		Args: func(_ *cobra.Command, args []string) error {
			c, rest, err := root.Find(args)
			if err == nil && len(rest) > 0 {
				err = noSuchCommand(c, rest)
			}
			return err
		},
		RunE: func(_ *cobra.Command, args []string) error {
			c, _, err := root.Find(args)
			if err != nil {
				return err
			}
			c.InitDefaultHelpFlag()
			return c.Help()
		},
	}
}

// group makes a command that only holds others.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: noSuchCommand, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(children...)
	return c
}

// noSuchCommand refuses what is left over where only a command can come.
func noSuchCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		hint = fmt.Sprintf(", did you mean %q?", near[0])
	}
	return fmt.Errorf("unknown command %q for %q%s (see %s --help)", args[0], c.CommandPath(), hint, c.CommandPath())
}

// exactly asks for as many arguments as are named.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) == len(names):
			return nil
		case len(names) == 0:
			return wrongArguments(c, "no arguments, and got "+strings.Join(args, " "))
		}
		return wrongArguments(c, strings.Join(names, " "))
	}
}

// wrongArguments says what a command takes.
func wrongArguments(c *cobra.Command, takes string) error {
	return fmt.Errorf("%s takes %s (see %s --help)", strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" "), takes, c.CommandPath())
}
