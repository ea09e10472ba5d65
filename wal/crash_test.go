package wal

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestKilledAtEachStep runs each change of the log and kills it in front of each
// of its file operations; the state left behind is opened again, itself killed
// at each of its steps, and must hold what the invariant of the change says.
func TestKilledAtEachStep(t *testing.T) {
	const term, size = 1, 300
	cases := map[string]struct {
		change  func(l *Log) error
		snap    termed // at the next open, when the change came through
		allowed func(first, last uint64) bool
	}{
		"append": {
			func(l *Log) error { return l.StoreLogs(testEntries(121, 160, term, size)) },
			termed{},
			func(first, last uint64) bool { return first == 1 && last >= 120 && last <= 160 },
		},
		"trim": {
			func(l *Log) error {
				l.mu.Lock() // by hand, so that the log's own goroutine does not trim
				l.first = 100
				l.mu.Unlock()
				return l.trim()
			},
			termed{60, term},
			func(first, last uint64) bool { return (first == 1 || first == 97) && last == 120 },
		},
		"cut": {
			func(l *Log) error { l.SetApplied(60); return l.DeleteRange(70, 120) },
			termed{},
			func(first, last uint64) bool { return first == 1 && last >= 69 && last <= 120 },
		},
		"cut at a border": {
			func(l *Log) error { l.SetApplied(60); return l.DeleteRange(73, 120) },
			termed{},
			func(first, last uint64) bool { return first == 1 && last >= 72 && last <= 120 },
		},
		"reset": {
			func(l *Log) error { l.Installed(80, 3); return l.DeleteRange(1, 120) },
			termed{80, 3},
			// All of it or nothing: an open knows the snapshot, and empties what is left of the old log.
			func(first, last uint64) bool { return first == 0 && last == 0 },
		},
	}
	states := 0
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			image := damagedLog(t)
			for n := int64(0); ; n++ {
				cfg := image
				cfg.Dir = copyDir(t, image.Dir)
				finished := dieAfter(t, cfg, n, c.change)
				if c.snap.index > 0 {
					cfg.SnapshotIndex, cfg.SnapshotTerm = c.snap.index, c.snap.term
				}
				if c.snap.index == 60 {
					cfg.SnapshotIndex = 100
				}
				states += reopenKilled(t, cfg, c.allowed)
				if finished {
					break
				}
			}
		})
	}
	t.Logf("%d crash states tried", states)
	if states < 100 {
		t.Errorf("only %d crash states: the changes did not go through the file layer", states)
	}
}

// dieAfter opens the log, runs change, and lets the process die before its n-th
// file operation. It tells whether the change came through.
func dieAfter(t *testing.T, cfg Config, n int64, change func(*Log) error) bool {
	t.Helper()
	files, done := dyingFiles(1 << 40)
	cfg.Files = files
	l := mustOpen(t, cfg)
	before := files.before
	done.Store(0)
	files.before = func(op, name string) error {
		if done.Load() >= n {
			return errDead
		}
		return before(op, name)
	}
	err := change(l)
	if err != nil && !errors.Is(err, errDead) {
		t.Fatalf("step %d: %v", n, err)
	}
	_ = l.Close() // a dead process closes nothing more; its lock is free
	return err == nil
}

// reopenKilled opens the log, killed at each step of the open, until one comes
// through. It returns how many states it tried.
func reopenKilled(t *testing.T, cfg Config, allowed func(first, last uint64) bool) int {
	t.Helper()
	states := 0
	for n := int64(0); ; n++ {
		states++
		cfg.Files, _ = dyingFiles(n)
		l, err := Open(cfg)
		if errors.Is(err, errDead) {
			continue
		}
		if err != nil {
			t.Fatalf("open after a kill, itself killed %d times: %v", n, err)
		}
		first, _ := l.FirstIndex()
		last, _ := l.LastIndex()
		if !allowed(first, last) {
			t.Fatalf("log holds %d to %d", first, last)
		}
		for i := first; i <= last && last > 0; i++ {
			e := testEntry(i, 1, 300)
			if err := l.GetLog(i, e); err != nil {
				t.Fatal(err)
			}
			if err := sameEntry(e, testEntry(i, 1, 300)); err != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, l)
		return states
	}
}

// TestNewDirectoryKilledAtEachStep makes a new log, killed at each step.
func TestNewDirectoryKilledAtEachStep(t *testing.T) {
	cfg := testConfig(t.TempDir())
	for n := int64(0); ; n++ {
		files, _ := dyingFiles(n)
		cfg.Files = files
		l, err := Open(cfg)
		if errors.Is(err, errDead) {
			continue
		}
		if err != nil {
			t.Fatalf("after %d kills: %v", n, err)
		}
		files.before = func(string, string) error { return nil }
		if n < 5 {
			t.Fatalf("a new log after %d steps", n)
		}
		fill(t, l, 1, 20, 1, 300)
		mustClose(t, l)
		break
	}
	wantEntries(t, mustOpen(t, cfg), 1, 20, 1, 300)
}

const writerDirEnv = "FOREBAY_WAL_TEST_WRITER"

// TestMain turns the test binary into the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(writerDirEnv); dir != "" {
		writeUntilKilled(dir)
	}
	if dir := os.Getenv(limitedDirEnv); dir != "" {
		writeUntilFull(dir)
	}
	if dir := os.Getenv(bareDirEnv); dir != "" {
		writeBareUntilFull(dir)
	}
	os.Exit(m.Run())
}

// writeUntilKilled appends groups of growing entries and prints each index that
// was acknowledged, and trims now and then.
func writeUntilKilled(dir string) {
	cfg := testConfig(dir)
	cfg.SegmentSize = 64 << 10
	cfg.SnapshotIndex, cfg.SnapshotTerm = newestSnapshot(dir)
	l, err := Open(cfg)
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	last, _ := l.LastIndex()
	last = max(last, cfg.SnapshotIndex)
	fmt.Println("opened", last)
	for {
		n := rand.Uint64N(8) + 1
		if err := l.StoreLogs(testEntries(last+1, last+n, 1, rand.IntN(20_000))); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		last += n
		fmt.Println("acked", last)
		if rand.IntN(20) == 0 && last > 50 {
			// A snapshot is taken first, then the log is compacted.
			name := filepath.Join(dir, "snapshot")
			if os.WriteFile(name+".new", []byte(strconv.FormatUint(last-20, 10)), 0o600) == nil {
				_ = os.Rename(name+".new", name)
			}
			l.SetFloor(last - 30)
			_ = l.DeleteRange(1, last-20)
		}
	}
}

func newestSnapshot(dir string) (index, term uint64) {
	b, err := os.ReadFile(filepath.Join(dir, "snapshot"))
	if err != nil {
		return 0, 0
	}
	if index, err = strconv.ParseUint(string(b), 10, 64); err != nil {
		return 0, 0
	}
	return index, 1
}

// TestKillMinusNine kills a writing process at random moments, again and again
// on one directory: nothing that it acknowledged is ever missing.
func TestKillMinusNine(t *testing.T) {
	dir := t.TempDir()
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	var acked uint64
	for range rounds {
		acked = max(acked, killOnce(t, dir))
		cfg := testConfig(dir)
		cfg.SnapshotIndex, cfg.SnapshotTerm = newestSnapshot(dir)
		l := mustOpen(t, cfg)
		last, _ := l.LastIndex()
		if last < acked {
			t.Fatalf("entry %d was acknowledged, the log ends with %d", acked, last)
		}
		if st := l.Stats(); st.TornBytes > 0 {
			t.Logf("cut %d torn bytes", st.TornBytes)
		}
		mustClose(t, l)
		r, err := Inspect(dir)
		if err != nil {
			t.Fatal(err)
		}
		rep, err := r.Verify(nil)
		if err != nil || len(rep.Damage) > 0 || rep.Torn != nil || rep.Last != last {
			t.Fatalf("verify: %+v, %v", rep, err)
		}
	}
	if acked < 20 {
		t.Fatalf("only %d entries were acknowledged", acked)
	}
}

// killOnce runs a writer, kills it, and returns the last index that it acknowledged.
func killOnce(t *testing.T, dir string) (acked uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writerDirEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func() { _ = cmd.Process.Kill() }
	limit := time.AfterFunc(testWait, kill)
	defer limit.Stop()
	lines := bufio.NewScanner(out)
	for after := rand.IntN(60); lines.Scan(); after-- {
		word, n, _ := strings.Cut(lines.Text(), " ")
		if word == "failed:" {
			t.Errorf("the writer %s", lines.Text())
			break
		}
		if acked, err = strconv.ParseUint(n, 10, 64); err != nil {
			t.Errorf("the writer said %q", lines.Text())
		}
		if after == 0 {
			// Not right after an answer, but somewhere in the next ones.
			time.AfterFunc(time.Duration(rand.IntN(3000))*time.Microsecond, kill)
		}
	}
	_ = cmd.Wait() // it was killed
	return acked
}

// TestCopyOfARunningLog copies the directory while a writer runs (mark first,
// then manifest, then segments): every entry that was acknowledged before is in
// the copy. The offline reader on the running log agrees.
func TestCopyOfARunningLog(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.Files = quickFiles{}
	l := mustOpen(t, cfg)
	mustStore(t, l, testEntries(1, 10, 1, 300)...)
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for next := uint64(11); ; next += 3 {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := l.StoreLogs(testEntries(next, next+2, 1, 300)); err != nil {
				stopped <- err
				return
			}
		}
	}()
	for range 6 {
		acked, err := l.LastIndex()
		if err != nil {
			t.Fatal(err)
		}
		r, err := Inspect(cfg.Dir)
		if err != nil {
			t.Fatal(err)
		}
		rep, err := r.Verify(nil)
		if err != nil || len(rep.Damage) > 0 || rep.Last < acked {
			t.Fatalf("verify of the running log, acknowledged up to %d: %+v, %v", acked, rep, err)
		}
		to := t.TempDir()
		p := pathsOf(cfg.Dir)
		if err := os.Mkdir(pathsOf(to).segments, 0o750); err != nil {
			t.Fatal(err)
		}
		putFile(t, pathsOf(to).mark, readFile(t, p.mark))
		putFile(t, pathsOf(to).manifest, readFile(t, p.manifest))
		for _, s := range segmentFiles(t, cfg.Dir) {
			putFile(t, filepath.Join(pathsOf(to).segments, filepath.Base(s)), readFile(t, s))
		}
		copied := cfg
		copied.Dir = to
		c := mustOpen(t, copied)
		last, err := c.LastIndex()
		if err != nil || last < acked {
			t.Fatalf("copy ends with %d, acknowledged up to %d: %v", last, acked, err)
		}
		mustClose(t, c)
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}
