package faultfs

import (
	"fmt"
	"hash/maphash"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// Replay walks through a trace, and makes the states that a power cut could
// leave at each step. It is not safe for concurrent use; its states are.
type Replay struct {
	d     *disk
	trace *Trace
	at    int
}

// Replay begins at the trace's beginning.
func (t *Trace) Replay() *Replay {
	d := newDisk(func(uint64) store { return &memory{} })
	made := map[uint64]*node{d.root.id: d.root}
	for _, in := range t.start[1:] {
		n := d.add(in.id, in.dir, 0o700)
		if !in.dir {
			n.data, n.size = &memory{slices.Clip(in.data), true}, int64(len(in.data))
		}
		n.refs++ // it may be open for as long as the trace lasts
		made[in.id] = n
	}
	for _, in := range t.start {
		for _, name := range sortedKeys(in.names) {
			child := made[in.names[name]]
			d.set(made[in.id], name, child)
			made[in.id].stable[name] = child
			child.refs++
		}
	}
	return &Replay{d: d, trace: t}
}

// At is how many events were applied.
func (r *Replay) At() int { return r.at }

// Next applies the next event and returns it; false at the end. An event that does not fit is a
// defect of the recording, and an error.
func (r *Replay) Next() (Event, bool, error) {
	if r.at == len(r.trace.Events) {
		return Event{}, false, nil
	}
	e := r.trace.Events[r.at]
	r.at++
	if err := r.apply(e); err != nil {
		return e, false, fmt.Errorf("replaying event %d, %v: %w", r.at, e, err)
	}
	return e, true, nil
}

func (r *Replay) apply(e Event) error {
	d := r.d
	n, dir := d.nodes[e.Node], d.nodes[e.Dir]
	missing := func(n *node) bool { return n == nil }
	switch e.Op {
	case 0:
		return nil
	case OpCreate, OpMkdir:
		if missing(dir) {
			return os.ErrNotExist
		}
		n, err := d.create(dir, e.Name, e.Node, e.Op == OpMkdir, 0o700)
		if err == nil {
			n.refs++ // as above
		}
		return err
	case OpUnlink, OpRmdir:
		if missing(dir) {
			return os.ErrNotExist
		}
		return d.unlink(dir, e.Name, e.Op == OpRmdir)
	}
	if missing(n) {
		return os.ErrNotExist
	}
	switch e.Op {
	case OpWrite:
		d.write(n, e.Off, e.Data)
	case OpTruncate, OpAllocate:
		d.resize(n, e.Size)
	case OpSync, OpSyncDir:
		return d.sync(n)
	case OpLink:
		return d.link(n, dir, e.Name)
	case OpRename:
		return d.rename(dir, e.Name, d.nodes[e.NewDir], e.NewName, false)
	default:
		return fmt.Errorf("%v is no change", e.Op)
	}
	return nil
}

// State is a tree that a power cut could leave.
type State struct {
	// How says what was kept, for people.
	How string
	// Sum is equal for equal trees.
	Sum   uint64
	files []stateFile
}

type stateFile struct {
	path string
	dir  bool
	data []byte
}

// States makes crash states of this moment: everything unsynced dropped; all of it
// kept; and up to most others, at random where there are more: kept up to each
// change and each sector of each write, with one change alone kept or lost, and torn at random.
func (r *Replay) States(rng *rand.Rand, most int) iter.Seq2[State, error] {
	pending := r.d.unsynced()
	return func(yield func(State, error) bool) {
		if !yield(r.state("nothing", keepNothing)) || len(pending) == 0 || !yield(r.state("all", keepEverything)) {
			return
		}
		var ways []way
		for i, c := range pending {
			ways = append(ways, alone(c, i), without(c, i))
			for sectors := range max(c.sectors(), 1) {
				ways = append(ways, prefix(pending, i, sectors))
			}
		}
		rng.Shuffle(len(ways), func(i, j int) { ways[i], ways[j] = ways[j], ways[i] })
		torn := max(most/3, most-len(ways))
		for _, w := range ways[:min(most-torn, len(ways))] {
			if !yield(r.state(w.how, w.choose)) {
				return
			}
		}
		for range torn {
			if !yield(r.state("torn", decided(pending, keepTorn(rng)))) {
				return
			}
		}
	}
}

// way is a way to lose changes.
type way struct {
	how    string
	choose chooser
}

func alone(c *change, i int) way {
	return way{fmt.Sprintf("change %d alone", i), func(other *change) fate {
		if other == c {
			return keepEverything(c)
		}
		return fate{}
	}}
}

func without(c *change, i int) way {
	return way{fmt.Sprintf("all but change %d", i), func(other *change) fate {
		if other == c {
			return fate{}
		}
		return keepEverything(other)
	}}
}

// prefix keeps what is before the i-th change, and of that one so many sectors.
func prefix(pending []*change, i, sectors int) way {
	return way{fmt.Sprintf("%d changes and %d sectors", i, sectors), func(c *change) fate {
		switch {
		case c.seq < pending[i].seq:
			return keepEverything(c)
		case c == pending[i] && sectors > 0:
			return c.firstSectors(sectors)
		}
		return fate{}
	}}
}

// state makes the tree that is left.
func (r *Replay) state(how string, choose chooser) (State, error) {
	s := State{How: how}
	var sum maphash.Hash
	sum.SetSeed(r.trace.seed)
	err := r.d.survivors(choose, func(p string, n *node, _ map[string]*node) error {
		f := stateFile{path: p, dir: n.dir}
		if !n.dir {
			m := n.data.(*memory)
			if len(n.pending) > 0 {
				m = &memory{slices.Clone(m.b), false}
				if err := settleFile(m, n.pending, choose); err != nil {
					return err
				}
			}
			m.shared = true
			f.data = m.b
		}
		s.files = append(s.files, f)
		maphash.WriteComparable(&sum, p)
		maphash.WriteComparable(&sum, len(f.data))
		_, err := sum.Write(f.data)
		return err
	})
	s.Sum = sum.Sum64()
	return s, err
}

// Write makes the tree in dir, which must be there and empty.
func (s *State) Write(dir string) error {
	for _, f := range s.files {
		name := filepath.Join(dir, f.path)
		var err error
		if f.dir {
			err = os.MkdirAll(name, 0o750)
		} else {
			err = os.WriteFile(name, f.data, 0o640)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
