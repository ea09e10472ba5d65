package torture

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"forebay/internal/record"
)

// TestCrashPointsOfALane cuts the power in each operation of a whole lane with one voter:
// log, snapshots, and Raft's term and vote.
func TestCrashPointsOfALane(t *testing.T) {
	needsE2E(t)
	share := budget(t, 40)
	deadline := time.Now().Add(share)
	b := newBench(t, 12) // most of their time they wait for an election
	for b.seed = firstSeed(t); !b.over(deadline); b.seed++ {
		trace := recording(t, "lane", t.TempDir(), b.seed)
		b.replay(trace, time.Now().Add(share/2), &laneWitness{})
		b.wait()
	}
	b.finish("lane")
	for _, phase := range []string{"open", "append", "cut", "done", "snapshot and release", "close"} {
		if b.phases[phase] == 0 {
			t.Errorf("no crash state of %s", phase)
		}
	}
}

// laneKnown is all that was claimed of a lane.
type laneKnown struct {
	laneClaim
	Sums    map[uint64]string // of batches
	version uint64
}

// laneWitness follows the claims of a lane.
type laneWitness struct{ known laneKnown }

func (w *laneWitness) begin() {
	w.known = laneKnown{laneClaim: laneClaim{Phase: "open"}, Sums: map[uint64]string{}}
}

func (w *laneWitness) claim(mark string) error {
	var c laneClaim
	if err := json.Unmarshal([]byte(mark), &c); err != nil {
		return err
	}
	w.known = w.known.with(&c)
	return nil
}

func (w *laneWitness) now() (string, uint64, func(string) error) {
	k := w.known
	return k.Phase, k.version, func(dir string) error {
		return judgeLane(filepath.Join(dir, "lane"), &k, rand.IntN(4) == 0)
	}
}

// with adds a claim.
func (k laneKnown) with(c *laneClaim) laneKnown {
	k.version++
	k.Phase = c.Phase
	k.Next, k.MostNext = max(k.Next, c.Next), max(k.MostNext, c.MostNext)
	k.Cut, k.MostCut = max(k.Cut, c.Cut), max(k.MostCut, c.MostCut)
	k.Done, k.MostDone = max(k.Done, c.Done), max(k.MostDone, c.MostDone)
	k.Term = max(k.Term, c.Term)
	k.Bases, k.Sinks = k.Bases || c.Bases, k.Sinks || c.Sinks
	if c.Sum != "" {
		k.Sums = maps.Clone(k.Sums)
		k.Sums[c.Cut] = c.Sum
	}
	return k
}

// judgeLane opens a lane, twice if asked to, and holds it against what was claimed.
func judgeLane(dir string, k *laneKnown, twice bool) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	first, err := openAndJudge(dir, k)
	if err != nil || !twice {
		return err
	}
	second, err := openAndJudge(dir, k)
	if err != nil {
		return fmt.Errorf("second open: %w", err)
	}
	if first != second {
		return fmt.Errorf("the first open saw %+v, the second %+v", first, second)
	}
	return nil
}

// laneSeen is what an open found.
type laneSeen struct {
	next       int64
	cut, first uint64
	cursor     uint64
	open       int64
}

func openAndJudge(dir string, k *laneKnown) (seen laneSeen, err error) {
	l, err := lead(dir, time.Hour)
	if err != nil {
		return seen, err
	}
	defer func() { err = errors.Join(err, l.end()) }()
	p, based := l.Position(topic, 0)
	s, sunk := l.Sink(sink)
	if k.Bases && !based || k.Sinks && !sunk {
		return seen, fmt.Errorf("base %v, sink %v; claimed was %+v", based, sunk, k.laneClaim)
	}
	seen = laneSeen{next: p.Next, cut: l.LastSeq(), first: l.FirstSeq(), cursor: s.Cursor, open: l.Open().Records}
	switch {
	case l.term.Number() <= k.Term:
		return seen, fmt.Errorf("led in term %d, and before in %d", l.term.Number(), k.Term)
	case !k.Bases:
		return seen, nil
	case seen.next < k.Next || seen.next > k.MostNext,
		seen.cut < k.Cut || seen.cut > max(k.Cut, k.MostCut),
		seen.cursor < k.Done+1 || seen.cursor > max(k.Done, k.MostDone)+1,
		seen.first > seen.cursor:
		return seen, fmt.Errorf("the lane is at %+v, claimed was %+v", seen, k.laneClaim)
	}
	return seen, readBatches(l, &seen, k)
}

// readBatches reads every batch that is kept: their records follow one another without gap or repeat, up to
// the open batch, and each batch reads as it did before.
func readBatches(l *leading, seen *laneSeen, k *laneKnown) error {
	at := int64(-1)
	for seq := seen.first; seq <= seen.cut; seq++ {
		sum, err := sumOf(l, seq, func(r *record.Record) error {
			if at >= 0 && r.Offset != at {
				return fmt.Errorf("offset %d follows %d", r.Offset, at-1)
			}
			if !bytes.Equal(r.Value, value(r.Offset, sizeOf(r.Offset))) {
				return fmt.Errorf("offset %d has another value", r.Offset)
			}
			at = r.Offset + 1
			return nil
		})
		if err != nil {
			return fmt.Errorf("batch %d: %w", seq, err)
		}
		if want := k.Sums[seq]; want != "" && sum != want {
			return fmt.Errorf("batch %d reads as %s, and was %s", seq, sum, want)
		}
	}
	if at >= 0 && at+seen.open != seen.next {
		return fmt.Errorf("the batches end before offset %d, %d records are not cut, and the next is %d", at, seen.open, seen.next)
	}
	return nil
}
