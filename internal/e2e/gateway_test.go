package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"forebay/internal/admin"
	"forebay/internal/e2e/kafka"
)

// settings are what a test's configuration says beside the usual.
type settings struct {
	brokers []string
	group   string
	topics  []string
	dataDir string // default: "data" in the gateway's own directory
	files   string // of the default sink; default: "files" there
	// Further lines of each table, in TOML.
	node, wal, receiver, kafka, batch, parked string
	// sinks is TOML; the default is a file sink of jsonl in base64, "files".
	sinks string
}

// gateway is the program with its configuration, running or not. It belongs to
// one test, whose end kills it.
type gateway struct {
	t        *testing.T
	dir      string
	settings settings
	http     string
	client   *admin.Client
	run      *run // nil while it does not run
	runs     int
	// powerless are the starts whose processes had their disk taken away: what those
	// said in the end is not judged.
	powerless map[int]bool
}

// run is one process.
type run struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it is gone and code is set
	code int           // of its exit, -1 when a signal ended it
}

func newGateway(t *testing.T, s settings) *gateway {
	t.Helper()
	program(t)
	g := &gateway{t: t, dir: t.TempDir(), settings: s, http: fmt.Sprintf("127.0.0.1:%d", kafka.FreePort(t))}
	g.client = admin.NewClient(g.http, "")
	g.configure()
	t.Cleanup(g.over)
	return g
}

// over kills what runs, shows the log of a failed test, and fails one whose
// program panicked or raced on the way.
func (g *gateway) over() {
	g.kill9()
	text := g.log()
	for start, part := range strings.Split(text, startLine) {
		for _, bad := range []string{"WARNING: DATA RACE", "\npanic: ", "\nfatal error: "} {
			if i := strings.Index(part, bad); i >= 0 && !g.powerless[start] {
				g.t.Errorf("start %d of the program said:\n%s", start, part[i:min(len(part), i+6000)])
			}
		}
	}
	if g.t.Failed() {
		g.t.Logf("log of the gateway (%d starts):\n%s", g.runs, text[max(0, len(text)-12000):])
	}
}

func (g *gateway) path(name string) string { return filepath.Join(g.dir, name) }

// files is the directory of the default sink.
func (g *gateway) files() string {
	if g.settings.files != "" {
		return g.settings.files
	}
	return g.path("files")
}

func (g *gateway) dataDir() string {
	if g.settings.dataDir != "" {
		return g.settings.dataDir
	}
	return g.path("data")
}

// configure writes the configuration from the settings, for the next start.
func (g *gateway) configure() {
	g.t.Helper()
	s := &g.settings
	if s.sinks == "" {
		s.sinks = fileSink("files", g.files(), "")
	}
	var b strings.Builder
	table := func(name, more string, lines ...string) {
		fmt.Fprintf(&b, "[%s]\n", name)
		for _, line := range lines {
			if key, _, _ := strings.Cut(line, " "); !regexp.MustCompile(`(?m)^\s*` + key + `\s*=`).MatchString(more) {
				fmt.Fprintln(&b, line)
			}
		}
		fmt.Fprintln(&b, more)
	}
	table("node", s.node, fmt.Sprintf("dataDir = %q", g.dataDir()), fmt.Sprintf("http = %q", g.http))
	table("wal", s.wal, `minFree = "64MiB"`, `retention = "2h"`)
	table("receiver", s.receiver)
	table("receiver.kafka", s.kafka, "brokers = "+list(s.brokers), fmt.Sprintf("group = %q", s.group), "topics = "+list(s.topics))
	table("batch", s.batch, `interval = "200ms"`)
	table("parked", s.parked)
	fmt.Fprintln(&b, s.sinks)
	if err := os.WriteFile(g.path("forebay.toml"), []byte(b.String()), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// fileSink is a file sink in TOML; more are lines of the sink's own table.
func fileSink(name, dir, more string) string {
	return fmt.Sprintf("[sinks.%s]\n%s\n[sinks.%s.file]\ndir = %q\n", name, more, name, dir)
}

func list(items []string) string {
	text, _ := json.Marshal(items) // a list of strings is the same in TOML
	return string(text)
}

// startLine begins what each start of the program prints.
const startLine = "--- start "

// start starts the program and returns at once.
func (g *gateway) start() {
	g.t.Helper()
	if g.run != nil {
		g.t.Fatal("the gateway runs already")
	}
	out, err := os.OpenFile(g.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		g.t.Fatal(err)
	}
	g.runs++
	fmt.Fprintf(out, startLine+"%d at %s\n", g.runs, time.Now().Format("15:04:05.000"))
	r := &run{done: make(chan struct{})}
	r.cmd = exec.Command(program(g.t), "run", "-c", g.path("forebay.toml"))
	r.cmd.Stdout, r.cmd.Stderr = out, out
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	go func() {
		// Pdeathsig looks at the thread that started the process: it stays.
		runtime.LockOSThread()
		defer out.Close()
		err := r.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = r.cmd.Wait()
		r.code = r.cmd.ProcessState.ExitCode()
		close(r.done)
	}()
	if err := <-started; err != nil {
		g.t.Fatal(err)
	}
	g.run = r
}

// up starts the program and waits until it is ready.
func (g *gateway) up() {
	g.t.Helper()
	g.start()
	g.ready(30 * time.Second)
}

// ready waits until the program says that it is.
func (g *gateway) ready(within time.Duration) {
	g.t.Helper()
	var reasons []string
	var err error
	await(g.t, "the gateway to be ready", within, func() bool {
		g.alive()
		reasons, err = g.client.Ready(g.t.Context())
		return err == nil && len(reasons) == 0
	}, func() string { return fmt.Sprintf("reasons %q, error %v", reasons, err) })
}

// alive fails the test when the process has ended by itself.
func (g *gateway) alive() {
	g.t.Helper()
	select {
	case <-g.run.done:
		g.t.Fatalf("the gateway ended by itself with exit code %d", g.run.code)
	default:
	}
}

// kill9 ends the process at once, if there is one.
func (g *gateway) kill9() {
	if g.run != nil {
		_ = g.run.cmd.Process.Kill()
		<-g.run.done
		g.run = nil
	}
}

// exit waits for the process to end and gives its exit code.
func (g *gateway) exit(within time.Duration) int {
	g.t.Helper()
	select {
	case <-g.run.done:
	case <-time.After(within):
		_ = g.run.cmd.Process.Signal(syscall.SIGQUIT) // its goroutines go to the log
		<-g.run.done
		g.run = nil
		g.t.Fatalf("the gateway did not end within %s", within)
	}
	code := g.run.code
	g.run = nil
	return code
}

// stop ends the process by SIGTERM, which must succeed within its time.
func (g *gateway) stop() {
	g.t.Helper()
	_ = g.run.cmd.Process.Signal(syscall.SIGTERM)
	if code := g.exit(35 * time.Second); code != 0 {
		g.t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
}

// fails starts the program, which must end with the exit code and say the words.
func (g *gateway) fails(code int, words ...string) {
	g.t.Helper()
	before := len(g.log())
	g.start()
	if got := g.exit(30 * time.Second); got != code {
		g.t.Errorf("exit code %d, want %d", got, code)
	}
	said := strings.ReplaceAll(g.log()[before:], `\"`, `"`) // the log quotes what it quotes
	for _, word := range words {
		if !strings.Contains(said, word) {
			g.t.Errorf("it does not say %q but:\n%s", word, said)
		}
	}
}

// peakMemory is the most that the running process ever held, in bytes.
func (g *gateway) peakMemory() int64 {
	g.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.run.cmd.Process.Pid))
	if err != nil {
		g.t.Fatal(err)
	}
	match := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	if match == nil {
		g.t.Fatal("no VmHWM in /proc")
	}
	kilobytes, err := strconv.ParseInt(string(match[1]), 10, 64)
	if err != nil {
		g.t.Fatal(err)
	}
	return kilobytes << 10
}

// log is all that the processes printed.
func (g *gateway) log() string {
	text, err := os.ReadFile(g.path("log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		g.t.Error(err)
	}
	return string(text)
}

// said waits until the log has the words.
func (g *gateway) said(words string, within time.Duration) {
	g.t.Helper()
	await(g.t, fmt.Sprintf("the log to say %q", words), within, func() bool { return strings.Contains(g.log(), words) })
}

// status asks the API; the zero Status when nobody answers.
func (g *gateway) status() admin.Status {
	ctx, cancel := context.WithTimeout(g.t.Context(), 5*time.Second)
	defer cancel()
	s, _ := g.client.Status(ctx)
	return s
}

// lane is lane 0 of the status, zero when there is none yet.
func (g *gateway) lane() admin.Lane {
	if s := g.status(); len(s.Lanes) > 0 {
		return s.Lanes[0]
	}
	return admin.Lane{}
}

func (g *gateway) partition(topic string, partition int32) admin.Partition {
	for _, p := range g.lane().Partitions {
		if p.Topic == topic && p.Partition == partition {
			return p
		}
	}
	return admin.Partition{Next: -1, End: -1}
}

func (g *gateway) sink(name string) admin.Sink {
	for _, s := range g.lane().Sinks {
		if s.Name == name {
			return s
		}
	}
	return admin.Sink{}
}

// show is the status as text, for failures.
func (g *gateway) show() string {
	text, _ := json.MarshalIndent(g.status(), "", "  ")
	return string(text)
}

// command runs one of the program's commands against this gateway, and gives
// what it printed and its exit code.
func (g *gateway) command(args ...string) (stdout, stderr string, code int) {
	g.t.Helper()
	cmd := exec.CommandContext(g.t.Context(), program(g.t), args...)
	cmd.Env = append(os.Environ(), "FOREBAY_ADDR="+g.http)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		g.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// ask runs a command that must succeed, with JSON output, into answer.
func (g *gateway) ask(answer any, args ...string) {
	g.t.Helper()
	out, errs, code := g.command(append(args, "-o", "json")...)
	if code != 0 {
		g.t.Fatalf("forebay %s: exit code %d\n%s", strings.Join(args, " "), code, errs)
	}
	if err := json.Unmarshal([]byte(out), answer); err != nil {
		g.t.Fatalf("forebay %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
