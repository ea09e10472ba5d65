package demo

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"forebay/internal/admin"
)

// gateway is a `forebay run` of its own: a process that can be killed.
type gateway struct {
	program, dir, address string
	client                *admin.Client

	process *exec.Cmd
	ended   chan error // gets the outcome when the process is gone
}

// newGateway writes the configuration, which is an example to start from.
func newGateway(program, dir string, brokers []string, maxRate int) (*gateway, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	g := &gateway{program: program, dir: dir, address: address, client: admin.NewClient(address, "")}
	quoted := make([]string, len(brokers))
	for i, broker := range brokers {
		quoted[i] = fmt.Sprintf("%q", broker)
	}
	text := fmt.Sprintf(configuration, filepath.Join(dir, "data"), address, maxRate, strings.Join(quoted, ", "), topic, g.files(), g.database())
	return g, os.WriteFile(g.config(), []byte(text), 0o644)
}

const configuration = `[node]
dataDir = %q
http    = %q

[wal]
minFree = "64MiB"

[receiver]
maxRate = %d # records per second

[receiver.kafka]
brokers = [%s]
topics  = [%q]

[batch]
interval = "2s"

# Every record, as it came: a file per batch, never written twice.
[sinks.files.file]
dir      = %q
encoding = "utf8"

# The running popularity of each page in whole tenths, so that sums do not
# depend on the order: 0.8 x clicks + 0.8 x minutes + like.
[sinks.popularity.mapping]
columns = [
  { name = "page", value = 'split(value, "|")[0]' },
  { name = "score", value = '8 * int(split(value, "|")[1]) + 8 * int(split(value, "|")[2]) + 10 * int(split(value, "|")[3])' },
]

[sinks.popularity.sqlite]
path   = %q
table  = "popularity"
mode   = "accumulate"
key    = ["page"]
update = { score = "score + excluded.score" }
types  = { page = "TEXT", score = "INTEGER" }
`

func (g *gateway) config() string   { return filepath.Join(g.dir, "forebay.toml") }
func (g *gateway) files() string    { return filepath.Join(g.dir, "files") }
func (g *gateway) database() string { return filepath.Join(g.dir, "popularity.db") }
func (g *gateway) log() string      { return filepath.Join(g.dir, "gateway.log") }

// start begins the process. Linux ends it together with the thread that started
// it, which is kept for that: the gateway does not outlive the demo, however that
// ends. It has a process group of its own: Ctrl-C is for the demo to act on.
func (g *gateway) start() error {
	log, err := os.OpenFile(g.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	process := exec.Command(g.program, "run", "--config", g.config())
	process.Stdout, process.Stderr = log, log
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer log.Close()
		err := process.Start()
		started <- err
		if err == nil {
			ended <- process.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting the gateway: %w", err)
	}
	g.process, g.ended = process, ended
	return nil
}

// kill ends the process as a power cut would end it, but for the page cache.
func (g *gateway) kill() {
	_ = g.process.Process.Kill()
	_ = <-g.ended
}

// stop ends the process gracefully.
func (g *gateway) stop() error {
	_ = g.process.Process.Signal(syscall.SIGTERM)
	if err := <-g.ended; err != nil {
		return fmt.Errorf("the gateway ended with %w; its log is %s", err, g.log())
	}
	return nil
}

// died tells whether the process has ended by itself.
func (g *gateway) died() error {
	select {
	case err := <-g.ended:
		g.ended <- err
		if err == nil {
			return fmt.Errorf("the gateway ended by itself, and with success; its log is %s", g.log())
		}
		return fmt.Errorf("the gateway ended by itself (%w); its log is %s", err, g.log())
	default:
		return nil
	}
}

// ready waits until the gateway is.
func (g *gateway) ready(ctx context.Context) error {
	for {
		if reasons, err := g.client.Ready(ctx); err == nil && len(reasons) == 0 {
			return nil
		}
		if err := g.died(); err != nil {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
