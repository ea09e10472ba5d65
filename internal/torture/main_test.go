package torture

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"forebay/internal/faultfs"
)

// The environment of a child: what it does, where, and with which seed.
const (
	workloadEnv = "FOREBAY_TORTURE_WORKLOAD"
	dirEnv      = "FOREBAY_TORTURE_DIR"
	seedEnv     = "FOREBAY_TORTURE_SEED"
	claimEnv    = "FOREBAY_TORTURE_CLAIM"
)

// workload is what a child does in dir. It says what it claims to w.
type workload func(dir string, seed uint64, w *claims) error

func TestMain(m *testing.M) {
	all := map[string]workload{"wal": walWorkload, "wal repair": walRepair, "lane": laneWorkload, "lane damage": laneDamage}
	if name := os.Getenv(workloadEnv); name != "" {
		if err := child(all[name]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(work workload) error {
	dir := os.Getenv(dirEnv)
	seed, err := strconv.ParseUint(os.Getenv(seedEnv), 10, 64)
	if err != nil {
		return err
	}
	w := &claims{w: io.Discard}
	if f, err := os.OpenFile(filepath.Join(dir, faultfs.MarkName), os.O_WRONLY, 0); err == nil {
		defer f.Close()
		w.w = f
	}
	return work(dir, seed, w)
}

// claims is where a child says what must hold from now on.
type claims struct {
	mu sync.Mutex
	w  io.Writer
}

// say writes one claim; what was done before it is before it in the recording.
func (c *claims) say(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err = c.w.Write(b)
	return err
}

// start makes a child that does work in dir.
func start(t *testing.T, work, dir string, seed uint64, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), workloadEnv+"="+work, dirEnv+"="+dir, seedEnv+"="+strconv.FormatUint(seed, 10))
	cmd.Env = append(cmd.Env, env...)
	return cmd
}

// recording has a child work in a file system that begins with what is in backing, and
// returns what it did there.
func recording(t *testing.T, work, backing string, seed uint64, env ...string) *faultfs.Trace {
	t.Helper()
	fs, err := faultfs.Mount(backing, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := fs.Record(); err != nil {
		t.Fatal(err)
	}
	cmd := start(t, work, fs.Dir(), seed, env...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s, seed %d: %v\n%s", work, seed, err, &said)
	}
	trace := fs.Trace()
	if name := os.Getenv("FOREBAY_TORTURE_LINES"); name != "" {
		if err := os.WriteFile(fmt.Sprintf("%s-%s-%d", name, work, seed), []byte(lines(trace)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return trace
}

// needsE2E skips what needs more than Go.
func needsE2E(t *testing.T) {
	t.Helper()
	if os.Getenv("FOREBAY_E2E") == "" {
		t.Skip("needs FUSE and root: FOREBAY_E2E=1")
	}
}

// budget is how long a test may take: its share, in percent, of FOREBAY_TORTURE, or of a quick cut.
func budget(t *testing.T, percent int) time.Duration {
	t.Helper()
	total := 50 * time.Second
	if s := os.Getenv("FOREBAY_TORTURE"); s != "" {
		var err error
		if total, err = time.ParseDuration(s); err != nil {
			t.Fatalf("FOREBAY_TORTURE: %v", err)
		}
	}
	return total * time.Duration(percent) / 100
}

// firstSeed is where the seeds of a run begin: FOREBAY_TORTURE_FIRST_SEED, or any number.
func firstSeed(t *testing.T) uint64 {
	t.Helper()
	seed := rand.Uint64N(1 << 40)
	if s := os.Getenv("FOREBAY_TORTURE_FIRST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("FOREBAY_TORTURE_FIRST_SEED: %v", err)
		}
	}
	t.Logf("seeds from %d on (FOREBAY_TORTURE_FIRST_SEED)", seed)
	return seed
}

// trial is one crash state to judge.
type trial struct {
	state faultfs.State
	event string // the last operation before the cut
	phase string
	judge func(dir string) error
}

// bench judges trials on a few goroutines, in directories in memory, and counts.
type bench struct {
	t      *testing.T
	root   string
	seed   uint64
	trials chan trial
	wg     sync.WaitGroup
	queued sync.WaitGroup // trials

	mu     sync.Mutex
	seen   map[uint64]bool // sums, with what was claimed
	tried  int
	same   int
	phases map[string]int
	failed int
}

// maxFailures ends a run: what comes behind is likely the same again.
const maxFailures = 5

func newBench(t *testing.T, workers int) *bench {
	t.Helper()
	b := &bench{t: t, root: memoryDir(t), trials: make(chan trial, workers), seen: map[uint64]bool{}, phases: map[string]int{}}
	for range workers {
		b.wg.Go(func() {
			for tr := range b.trials {
				b.try(tr)
				b.queued.Done()
			}
		})
	}
	return b
}

// memoryDir is a directory where syncs cost nothing, if there is one.
func memoryDir(t *testing.T) string {
	t.Helper()
	if _, err := os.Stat("/dev/shm"); err == nil {
		t.Setenv("TMPDIR", "/dev/shm")
	}
	return t.TempDir()
}

// add queues a trial, if its state was not tried under the same claim.
func (b *bench) add(tr trial, claim uint64) {
	b.mu.Lock()
	key := tr.state.Sum ^ claim*0x9e3779b97f4a7c15
	if b.seen[key] {
		b.same++
		b.mu.Unlock()
		return
	}
	b.seen[key] = true
	b.mu.Unlock()
	b.queued.Add(1)
	b.trials <- tr
}

// wait waits for the trials that were queued.
func (b *bench) wait() { b.queued.Wait() }

func (b *bench) try(tr trial) {
	dir, err := os.MkdirTemp(b.root, "state-")
	if err == nil {
		err = tr.state.Write(dir)
	}
	if err == nil {
		err = tr.judge(dir)
	}
	b.mu.Lock()
	b.tried++
	b.phases[tr.phase]++
	if err != nil {
		b.failed++
		if b.failed <= maxFailures {
			b.t.Errorf("seed %d, %s, power cut after %s, %s kept: %v", b.seed, tr.phase, tr.event, tr.state.How, err)
		}
	}
	b.mu.Unlock()
	os.RemoveAll(dir)
}

func (b *bench) over(deadline time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed >= maxFailures || time.Now().After(deadline)
}

// finish waits for what is queued and prints the count.
func (b *bench) finish(what string) {
	close(b.trials)
	b.wg.Wait()
	var words []string
	for _, phase := range slices.Sorted(maps.Keys(b.phases)) {
		words = append(words, fmt.Sprintf("%s %d", phase, b.phases[phase]))
	}
	b.t.Logf("%s: %d crash states tried (%d more were equal to one of them): %s", what, b.tried, b.same, strings.Join(words, ", "))
	if b.tried < 200 {
		b.t.Errorf("only %d crash states", b.tried)
	}
}

// witness follows the claims of a recording.
type witness interface {
	// begin goes back to the beginning.
	begin()
	// claim takes one claim of the child.
	claim(mark string) error
	// now gives what a state of this moment is held against: in words, as a number that differs
	// where the claims differ, and as the judgement.
	now() (phase string, claim uint64, judge func(dir string) error)
}

// strides is in how many rounds the operations are first gone through, so that a
// short time still reaches the end of a recording.
const strides = 7

// replay makes crash states of a recording until deadline or until all passes are done:
// first each operation with little, then with more.
func (b *bench) replay(trace *faultfs.Trace, deadline time.Time, w witness) {
	rng := rand.New(rand.NewPCG(b.seed, 7))
	for round := range strides {
		b.pass(trace, deadline, w, rng, 2, func(at int) bool { return at%strides == round })
	}
	for _, most := range []int{12, 40} {
		b.pass(trace, deadline, w, rng, most, func(int) bool { return true })
	}
}

func (b *bench) pass(trace *faultfs.Trace, deadline time.Time, w witness, rng *rand.Rand, most int, here func(at int) bool) {
	w.begin()
	for r := trace.Replay(); !b.over(deadline); {
		e, ok, err := r.Next()
		if err != nil {
			b.t.Fatal(err)
		}
		if !ok {
			return
		}
		if e.Op == 0 {
			if err := w.claim(e.Mark); err != nil {
				b.t.Fatalf("claim %q: %v", e.Mark, err)
			}
		}
		if !here(r.At()) {
			continue
		}
		phase, claim, judge := w.now()
		for s, err := range r.States(rng, most) {
			if err != nil {
				b.t.Fatal(err)
			}
			b.add(trial{state: s, event: fmt.Sprintf("operation %d, %v", r.At(), e), phase: phase, judge: judge}, claim)
		}
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// lines writes a recording, for people.
func lines(trace *faultfs.Trace) string {
	var all strings.Builder
	for i, e := range trace.Events {
		fmt.Fprintf(&all, "%4d %.200s\n", i+1, e)
	}
	return all.String()
}
