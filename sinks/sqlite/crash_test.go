package sqlite

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"forebay/internal/record"
)

// The child that is killed: it delivers batches from a number on, says "done n" after each, and
// kills itself at a step of the first one when told to.
const (
	envPath = "FOREBAY_SQLITE_CRASH_PATH"
	envFrom = "FOREBAY_SQLITE_CRASH_FROM"
	envTerm = "FOREBAY_SQLITE_CRASH_TERM"
	envStep = "FOREBAY_SQLITE_CRASH_STEP"
	// crashBatches is where a child stops by itself.
	crashBatches = 400
)

func TestMain(m *testing.M) {
	if os.Getenv(envPath) != "" {
		if err := crashChild(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// crashBatch is batch seq, the same in every process: 50 records with scores of seq.
func crashBatch(term, seq uint64) record.Batch {
	var recs []record.Record
	for i := range 50 {
		recs = append(recs, lines(int64(seq)*50+int64(i), fmt.Sprintf("p%d|%d", i%5, seq))...)
	}
	return batch(term, seq, recs...)
}

func crashChild() error {
	var term, from uint64
	if _, err := fmt.Sscan(os.Getenv(envTerm)+" "+os.Getenv(envFrom), &term, &from); err != nil {
		return err
	}
	cfg := totals(new(testing.T), os.Getenv(envPath))
	s, err := New(cfg)
	if err != nil {
		return err
	}
	if step := os.Getenv(envStep); step != "" {
		s.point = func(_ context.Context, at string) error {
			if at == step {
				return syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			return nil
		}
	}
	if err := s.Open(context.Background(), identity(term, from)); err != nil {
		return err
	}
	for seq := from; seq <= crashBatches; seq++ {
		if err := s.Deliver(context.Background(), crashBatch(term, seq), new(recorder).settle); err != nil {
			return err
		}
		fmt.Println("done", seq)
		if err := s.Advanced(context.Background(), record.BatchID{Seq: seq + 1}, record.BatchID{Seq: max(1, seq-3)}); err != nil {
			return err
		}
	}
	return s.Close()
}

// child runs one and gives the last batch that it said was done, or from-1.
func child(t *testing.T, path string, term, from uint64, step string, kill func(*os.Process, uint64)) uint64 {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envPath+"="+path, envStep+"="+step,
		envFrom+"="+strconv.FormatUint(from, 10), envTerm+"="+strconv.FormatUint(term, 10))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last := from - 1
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "done %d", &last); err != nil {
			t.Errorf("the child says %q", lines.Text())
		}
		if kill != nil {
			kill(cmd.Process, last)
		}
	}
	err = cmd.Wait()
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	killed := ok && status.Signaled() && status.Signal() == syscall.SIGKILL
	if !killed && (err != nil || last != crashBatches) {
		t.Fatalf("the child ended with %v after batch %d, neither killed nor done", err, last)
	}
	return last
}

// appliedUpTo expects the totals of batches 1 to n, each applied once.
func appliedUpTo(t *testing.T, path string, n uint64) {
	t.Helper()
	var want []string
	for p := range 5 {
		want = append(want, fmt.Sprintf("p%d|%d|%d", p, 10*n*(n+1)/2, 10*n))
	}
	expect(t, path, `SELECT page, score, n FROM pages ORDER BY 1`, strings.Join(want, "\n"))
}

// The process is killed at each step of batch 3, and batch 3 is delivered again.
func TestKilledAtEachStep(t *testing.T) {
	for _, step := range []string{"begin", "look", "rows", "ledger", "commit", "committed"} {
		t.Run(step, func(t *testing.T) {
			path := dbPath(t)
			s := newSink(t, totals(t, path))
			open(t, s, identity(1, 1))
			deliver(t, s, crashBatch(1, 1))
			deliver(t, s, crashBatch(1, 2))
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if last := child(t, path, 2, 3, step, nil); last != 2 {
				t.Fatalf("the child lived past step %q to batch %d", step, last)
			}
			want := uint64(2)
			if step == "committed" {
				want = 3
			}
			appliedUpTo(t, path, want)
			open(t, s, identity(3, 3))
			deliver(t, s, crashBatch(3, 3))
			appliedUpTo(t, path, 3)
			expect(t, path, `PRAGMA integrity_check`, "ok")
		})
	}
}

// The process is killed at random moments under load; what it had said was done
// stays, and what was in flight is delivered again.
func TestKilledAtRandomMoments(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a process for each round")
	}
	path, rng := dbPath(t), rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 7))
	next := uint64(1)
	for term := uint64(1); next <= crashBatches; term++ {
		until, wait := next+uint64(rng.IntN(80)), time.Duration(rng.IntN(3000))*time.Microsecond
		last := child(t, path, term, next, "", func(p *os.Process, last uint64) {
			if last == until {
				time.AfterFunc(wait, func() { _ = p.Kill() })
			}
		})
		if last >= crashBatches {
			break
		}
		next = last + 1 // which may be applied already: it was killed before it said so
	}
	appliedUpTo(t, path, crashBatches)
	expect(t, path, `PRAGMA integrity_check`, "ok")
}
