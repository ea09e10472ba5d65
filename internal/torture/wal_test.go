package torture

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"forebay/wal"
)

// TestCrashPointsOfTheLog cuts the power in each operation of a log that is
// opened, written, cut, trimmed and emptied; and again while what that left torn is repaired.
func TestCrashPointsOfTheLog(t *testing.T) {
	needsE2E(t)
	deadline := time.Now().Add(budget(t, 35))
	b := newBench(t, 3)
	torn, seed := &tornStates{}, maphash.MakeSeed()
	round := budget(t, 35) / 8
	for b.seed = firstSeed(t); !b.over(deadline); b.seed++ {
		until := time.Now().Add(round)
		trace := recording(t, "wal", t.TempDir(), b.seed)
		b.replay(trace, until, &walWitness{first: walClaim{Phase: "open", First: 1}, torn: torn, seed: seed})
		b.wait()
		for _, s := range torn.take() {
			c, err := json.Marshal(s.claim)
			if err != nil {
				t.Fatal(err)
			}
			trace := recording(t, "wal repair", s.dir, b.seed, claimEnv+"="+string(c))
			b.replay(trace, time.Now().Add(round/4), &walWitness{first: s.claim, seed: seed})
			b.wait()
		}
	}
	b.finish("log")
	for _, phase := range []string{"open", "append", "cut", "trim", "reset", "close", "repair"} {
		if b.phases[phase] == 0 {
			t.Errorf("no crash state of %s", phase)
		}
	}
}

// walWitness follows the claims of a log. Its states with a torn tail go to torn, if that is not nil.
type walWitness struct {
	first, current walClaim
	torn           *tornStates
	seed           maphash.Seed
}

func (w *walWitness) begin() { w.current = w.first }

func (w *walWitness) claim(mark string) error {
	w.current = walClaim{}
	return json.Unmarshal([]byte(mark), &w.current)
}

func (w *walWitness) now() (string, uint64, func(string) error) {
	c, phase := w.current, w.current.Phase
	if w.torn == nil {
		phase = "repair"
	}
	return phase, maphash.Comparable(w.seed, fmt.Sprintf("%+v", c)), func(dir string) error { return judgeWAL(dir, &c, w.torn) }
}

// judgeWAL opens a log, twice, and holds it against a claim.
func judgeWAL(dir string, c *walClaim, torn *tornStates) error {
	cfg := walConfig(dir, c)
	whole := torn.copyOf(dir)
	defer os.RemoveAll(whole)
	first, last, tornBytes, err := openAndRead(cfg, c)
	if err != nil {
		return err
	}
	if tornBytes > 0 {
		torn.keep(whole, *c)
	}
	if damage, err := verified(cfg.Dir); err != nil || damage != "" {
		return fmt.Errorf("verify after the open says %s, %w", damage, err)
	}
	first2, last2, tornBytes, err := openAndRead(cfg, c)
	if err != nil {
		return fmt.Errorf("second open: %w", err)
	}
	if first2 != first || last2 != last || tornBytes != 0 {
		return fmt.Errorf("first open held %d to %d, the second %d to %d and cut %d bytes", first, last, first2, last2, tornBytes)
	}
	return goesOn(cfg, max(last, c.Snap)+1, c.term(1<<60)+100)
}

// openAndRead opens a log, reads every entry, and holds it against a claim.
func openAndRead(cfg wal.Config, c *walClaim) (first, last uint64, tornBytes int64, err error) {
	l, err := wal.Open(cfg)
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if first, err = l.FirstIndex(); err != nil {
		return 0, 0, 0, err
	}
	if last, err = l.LastIndex(); err != nil {
		return 0, 0, 0, err
	}
	end := last
	if last == 0 {
		end = c.Snap
	}
	if end < c.Least || end > c.Most || last > 0 && first > c.First {
		return 0, 0, 0, fmt.Errorf("the log holds %d to %d, claimed was %+v", first, last, *c)
	}
	for i := first; i <= last && last > 0; i++ {
		var got raft.Log
		if err := l.GetLog(i, &got); err != nil {
			return 0, 0, 0, fmt.Errorf("entry %d: %w", i, err)
		}
		want := entry(i, c.term(i))
		if got.Index != i || got.Term != want.Term || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) {
			return 0, 0, 0, fmt.Errorf("entry %d is of term %d with %d bytes, want term %d with %d", i, got.Term, len(got.Data), want.Term, len(want.Data))
		}
	}
	return first, last, l.Stats().TornBytes, nil
}

// goesOn stores an entry, which the next open finds.
func goesOn(cfg wal.Config, index, term uint64) error {
	l, err := wal.Open(cfg)
	if err != nil {
		return err
	}
	if err := errors.Join(l.StoreLogs(entries(index, index+2, term)), l.Close()); err != nil {
		return fmt.Errorf("going on with entry %d: %w", index, err)
	}
	if l, err = wal.Open(cfg); err != nil {
		return fmt.Errorf("open after going on: %w", err)
	}
	last, err := l.LastIndex()
	if err == nil && last != index+2 {
		err = fmt.Errorf("the log ends with %d, %d was stored", last, index+2)
	}
	return errors.Join(err, l.Close())
}

// verified runs the offline check, and returns what it complains about.
func verified(dir string) (string, error) {
	r, err := wal.Inspect(dir)
	if err != nil {
		return "", err
	}
	report, err := r.Verify(nil)
	if err != nil {
		return "", err
	}
	if len(report.Damage) > 0 {
		return report.Damage[0].Error(), nil
	}
	if report.Torn != nil {
		return report.Torn.Error(), nil
	}
	return "", nil
}

// tornStates keeps some states with a torn tail, for their repair. A nil one keeps none.
type tornStates struct {
	mu   sync.Mutex
	kept []tornState
}

type tornState struct {
	dir   string
	claim walClaim
}

// tornKept is how many torn tails of one recording are repaired under recording.
const tornKept = 4

// copyOf copies a directory if a torn state is still wanted.
func (s *tornStates) copyOf(dir string) string {
	if s == nil {
		return ""
	}
	s.mu.Lock()
	full := len(s.kept) >= tornKept
	s.mu.Unlock()
	to := dir + "-whole"
	if full || os.CopyFS(to, os.DirFS(dir)) != nil {
		return ""
	}
	return to
}

func (s *tornStates) keep(dir string, c walClaim) {
	if s == nil || dir == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.kept) < tornKept && os.Rename(dir, dir+"-torn") == nil {
		s.kept = append(s.kept, tornState{dir + "-torn", c})
	}
}

func (s *tornStates) take() []tornState {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.kept
	s.kept = nil
	return kept
}
