package torture

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/raft"

	"forebay/wal"
)

// walClaim is what must hold of the log until the next claim.
type walClaim struct {
	Phase string
	// Least and Most bound the entry that the log ends with.
	Least, Most uint64
	// First is what the log begins with at the latest.
	First uint64
	// Snap is the newest snapshot, Taken whether the log itself held all of it.
	Snap, SnapTerm uint64
	Taken          bool
	// Terms says of which term each entry is.
	Terms []termRun
}

// termRun says that entries from First on are of Term.
type termRun struct{ First, Term uint64 }

// term is that of an entry.
func (c *walClaim) term(index uint64) (term uint64) {
	for _, r := range c.Terms {
		if r.First <= index {
			term = r.Term
		}
	}
	return term
}

// entry makes entry index with bytes that only it has, of any size up to nearly a segment.
func entry(index, term uint64) *raft.Log {
	x := (index*31+term)*0x9e3779b97f4a7c15 + 1
	size := 20 + x>>40%400
	switch x >> 50 % 16 {
	case 0:
		size = 3900
	case 1, 2:
		size = 1500
	case 3:
		size = 0
	}
	return &raft.Log{
		Index: index, Term: term, Type: raft.LogCommand,
		Data: bytes.Repeat(fmt.Appendf(nil, "%d/%d.", index, term), int(size)/3+1)[:size],
	}
}

func entries(from, to, term uint64) (logs []*raft.Log) {
	for i := from; i <= to; i++ {
		logs = append(logs, entry(i, term))
	}
	return logs
}

func walConfig(dir string, c *walClaim) wal.Config {
	return wal.Config{
		Dir: filepath.Join(dir, "log"), SegmentSize: 4 << 10, RingBytes: -1, LockWait: -1, Logger: quiet(),
		SnapshotIndex: c.Snap, SnapshotTerm: c.SnapTerm, SnapshotTaken: c.Taken,
	}
}

// walWork is a child that works on a log.
type walWork struct {
	walClaim
	dir  string
	log  *wal.Log
	said *claims
	rng  *rand.Rand
}

// walWorkload opens a log and changes it in every way, at random.
func walWorkload(dir string, seed uint64, said *claims) error {
	w := &walWork{dir: dir, said: said, rng: rand.New(rand.NewPCG(seed, 1))}
	w.Terms, w.First = []termRun{{1, 1}}, 1
	if err := w.open(); err != nil {
		return err
	}
	if err := w.append(); err != nil {
		return err
	}
	steps := []func() error{w.append, w.append, w.append, w.append, w.cut, w.trim, w.reopen, w.reset}
	for range 45 {
		if err := steps[w.rng.IntN(len(steps))](); err != nil {
			return fmt.Errorf("%s: %w", w.Phase, err)
		}
	}
	return w.log.Close()
}

// claim says what holds while a phase goes on.
func (w *walWork) claim(phase string, change func(c *walClaim)) error {
	w.Phase = phase
	change(&w.walClaim)
	return w.said.say(w.walClaim)
}

func (w *walWork) last() uint64 { return w.Least }

func (w *walWork) settled() error {
	return w.claim("at rest", func(c *walClaim) { c.Most = c.Least })
}

func (w *walWork) open() error {
	if err := w.claim("open", func(*walClaim) {}); err != nil {
		return err
	}
	var err error
	if w.log, err = wal.Open(walConfig(w.dir, &w.walClaim)); err != nil {
		return err
	}
	last, err := w.log.LastIndex()
	if err != nil {
		return err
	}
	if last = max(last, w.Snap); last < w.Least || last > w.Most {
		return fmt.Errorf("opened with entry %d, claimed was %+v", last, w.walClaim)
	}
	w.Least = last
	return w.settled()
}

func (w *walWork) reopen() error {
	if err := w.claim("close", func(*walClaim) {}); err != nil {
		return err
	}
	if err := w.log.Close(); err != nil {
		return err
	}
	return w.open()
}

func (w *walWork) append() error {
	n := w.rng.Uint64N(6) + 1
	lo, term := w.last()+1, w.term(1<<60)
	if err := w.claim("append", func(c *walClaim) { c.Most = c.Least + n }); err != nil {
		return err
	}
	if err := w.log.StoreLogs(entries(lo, lo+n-1, term)); err != nil {
		return err
	}
	w.Least += n
	return w.settled()
}

// cut takes entries from the end, as for a conflict, and goes on with another term.
func (w *walWork) cut() error {
	low := max(w.Snap, w.First)
	if w.last() <= low {
		return w.append()
	}
	from := low + 1 + w.rng.Uint64N(w.last()-low)
	if err := w.claim("cut", func(c *walClaim) { c.Least = from - 1 }); err != nil {
		return err
	}
	w.log.SetApplied(low)
	if err := w.log.DeleteRange(from, w.Most); err != nil {
		return err
	}
	term := w.term(1<<60) + 1
	if err := w.settled(); err != nil {
		return err
	}
	w.Terms = append(w.Terms, termRun{from, term})
	return w.append()
}

// trim takes a snapshot, and lets go what lies below a floor.
func (w *walWork) trim() error {
	if w.last() <= w.Snap+2 || w.last() <= w.First+2 {
		return w.append()
	}
	snap := max(w.Snap, w.First) + 1 + w.rng.Uint64N(w.last()-max(w.Snap, w.First)-1)
	first := w.First + w.rng.Uint64N(snap-w.First+1)
	err := w.claim("trim", func(c *walClaim) {
		c.Snap, c.SnapTerm, c.Taken, c.First = snap, c.term(snap), true, first
	})
	if err != nil {
		return err
	}
	w.log.SetApplied(snap)
	w.log.SetFloor(first)
	if err := w.log.DeleteRange(1, snap); err != nil {
		return err
	}
	if w.rng.IntN(4) > 0 { // else the next change meets the removal half-way
		err = w.trimmed()
	}
	return errors.Join(err, w.settled())
}

// trimmed waits until the segments below the first entry are gone.
func (w *walWork) trimmed() error {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		names, err := os.ReadDir(filepath.Join(w.dir, "log", "log"))
		if err != nil || len(names) < 2 {
			return err
		}
		second, err := strconv.ParseUint(names[1].Name(), 10, 64)
		if err != nil || second > w.First {
			return err
		}
	}
	return errors.New("segments below the floor are still there after 10 s")
}

// reset installs a snapshot: beyond the log's end, or of another term in its midst.
func (w *walWork) reset() error {
	if w.last() <= w.Snap+1 {
		return w.append()
	}
	at := w.last() + w.rng.Uint64N(10) + 1
	if w.rng.IntN(3) == 0 {
		at = w.Snap + 1 + w.rng.Uint64N(w.last()-w.Snap)
	}
	term := w.term(1<<60) + 1
	held := w.Least
	err := w.claim("reset", func(c *walClaim) {
		c.Least, c.Most, c.First = at, at, at+1
		c.Snap, c.SnapTerm, c.Taken = at, term, false
		c.Terms = []termRun{{1, term}}
	})
	if err != nil {
		return err
	}
	w.log.Installed(at, term)
	if err := w.log.DeleteRange(1, held); err != nil {
		return err
	}
	if err := w.settled(); err != nil {
		return err
	}
	w.log.SetApplied(at)
	return w.append()
}

// walRepair opens a log with a torn tail, goes on with it, and opens it again.
func walRepair(dir string, seed uint64, said *claims) error {
	w := &walWork{dir: dir, said: said, rng: rand.New(rand.NewPCG(seed, 2))}
	if err := json.Unmarshal([]byte(os.Getenv(claimEnv)), &w.walClaim); err != nil {
		return err
	}
	if err := w.open(); err != nil {
		return err
	}
	if err := w.append(); err != nil {
		return err
	}
	if err := w.reopen(); err != nil {
		return err
	}
	return w.log.Close()
}
