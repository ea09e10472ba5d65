package faultfs

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
)

// Keep says what a power cut leaves of what was not synced.
type Keep struct {
	name   string
	choose func(pending []*change) chooser
}

// String names it, with its seed.
func (k Keep) String() string { return k.name }

// KeepNothing drops everything that was not synced.
func KeepNothing() Keep {
	return Keep{"nothing", func([]*change) chooser { return keepNothing }}
}

// KeepAll keeps everything, as a killed process does.
func KeepAll() Keep {
	return Keep{"all", func([]*change) chooser { return keepEverything }}
}

// KeepPrefix keeps the oldest changes up to a random one, and of that one, if it
// is a write, its first sectors.
func KeepPrefix(seed uint64) Keep {
	return Keep{fmt.Sprintf("prefix, seed %d", seed), func(pending []*change) chooser {
		rng := rand.New(rand.NewPCG(seed, 1))
		return keepPrefix(pending, rng.IntN(len(pending)+1), rng)
	}}
}

// KeepTorn keeps a random subset: any name, any sector of any write, any size
// that a file passed through. Whatever POSIX allows is possible.
func KeepTorn(seed uint64) Keep {
	return Keep{fmt.Sprintf("torn, seed %d", seed), func(pending []*change) chooser {
		return keepTorn(rand.New(rand.NewPCG(seed, 2)))
	}}
}

// fate is what a power cut does to one change.
type fate struct {
	kept    bool
	sectors []bool // of a write: which ones arrived; nil is all of them
	end     int64  // of a write: up to where the size arrived
}

type chooser func(*change) fate

func keepNothing(*change) fate { return fate{} }

func keepEverything(c *change) fate { return fate{kept: true, end: c.end()} }

// keepPrefix keeps the first n of pending, and the next one up to a sector.
func keepPrefix(pending []*change, n int, rng *rand.Rand) chooser {
	var last *change
	var torn fate
	if n < len(pending) {
		last = pending[n]
		if count := last.sectors(); count > 0 {
			torn = last.firstSectors(rng.IntN(count))
		}
	}
	kept := map[*change]bool{}
	for _, c := range pending[:n] {
		kept[c] = true
	}
	return func(c *change) fate {
		switch {
		case kept[c]:
			return keepEverything(c)
		case c == last:
			return torn
		}
		return fate{}
	}
}

// keepTorn decides each change by itself; how much survives in all differs from one state to the next.
func keepTorn(rng *rand.Rand) chooser {
	odds := []float64{0.1, 0.5, 0.9}[rng.IntN(3)]
	return func(c *change) fate {
		if rng.Float64() >= odds {
			return fate{}
		}
		count := c.sectors()
		if count == 0 || rng.IntN(3) == 0 {
			return keepEverything(c)
		}
		f := fate{kept: true, sectors: make([]bool, count), end: c.end()}
		for i := range f.sectors {
			f.sectors[i] = rng.IntN(2) == 0
		}
		if rng.IntN(2) == 0 {
			f.end = c.boundary(rng.IntN(count + 1))
		}
		return f
	}
}

// end is where a write ends.
func (c *change) end() int64 { return c.off + int64(len(c.data)) }

// sectors is how many sectors a write touches, 0 for other changes.
func (c *change) sectors() int {
	if c.kind != changeWrite || len(c.data) == 0 {
		return 0
	}
	return int((c.end()+sectorSize-1)/sectorSize - c.off/sectorSize)
}

// boundary is the offset in the file at which the i-th sector of a write begins.
func (c *change) boundary(i int) int64 {
	if i == 0 {
		return c.off
	}
	return min((c.off/sectorSize+int64(i))*sectorSize, c.end())
}

// firstSectors is the fate of a write of which n sectors arrived.
func (c *change) firstSectors(n int) fate {
	f := fate{kept: n > 0, sectors: make([]bool, c.sectors()), end: c.boundary(n)}
	for i := range n {
		f.sectors[i] = true
	}
	return f
}

// settleFile applies to s what survives of the changes of its file, in order.
func settleFile(s store, pending []*change, choose chooser) error {
	size := s.size()
	for _, c := range pending {
		f := choose(c)
		if !f.kept {
			continue
		}
		if c.kind == changeSize {
			size = c.size
			if err := s.truncate(size); err != nil {
				return err
			}
			continue
		}
		size = max(size, f.end)
		for i := range c.sectors() {
			from, to := c.boundary(i), c.boundary(i+1)
			if f.sectors == nil {
				to = c.end()
			} else if !f.sectors[i] {
				continue
			}
			if err := s.writeAt(c.data[from-c.off:to-c.off], from); err != nil {
				return err
			}
			if f.sectors == nil {
				break
			}
		}
	}
	return s.truncate(size)
}

// settleNames returns what a directory holds after a power cut.
func settleNames(n *node, choose chooser) map[string]*node {
	names := maps.Clone(n.stable)
	for _, c := range n.pending {
		if !choose(c).kept {
			continue
		}
		for _, g := range c.names {
			if g.node == nil {
				delete(names, g.name)
			} else {
				names[g.name] = g.node
			}
		}
	}
	return names
}

// unsynced lists all changes that are not durable, oldest first.
func (d *disk) unsynced() []*change {
	var all []*change
	for _, n := range d.nodes {
		all = append(all, n.pending...)
	}
	slices.SortFunc(all, func(a, b *change) int { return cmp.Compare(a.seq, b.seq) })
	return all
}

// survivors walks the tree that a power cut leaves, parents first; a directory
// that survives under two names is seen under the first.
func (d *disk) survivors(choose chooser, visit func(p string, n *node, names map[string]*node) error) error {
	seen := map[*node]bool{}
	var down func(p string, n *node) error
	down = func(p string, n *node) error {
		if !n.dir {
			return visit(p, n, nil)
		}
		if seen[n] {
			return nil
		}
		seen[n] = true
		names := settleNames(n, choose)
		if err := visit(p, n, names); err != nil {
			return err
		}
		for _, name := range sortedKeys(names) {
			if err := down(p+"/"+name, names[name]); err != nil {
				return err
			}
		}
		return nil
	}
	return down("", d.root)
}

// decided asks choose once for each change, in order, and remembers: a random
// chooser must not answer twice.
func decided(pending []*change, choose chooser) chooser {
	fates := make(map[*change]fate, len(pending))
	for _, c := range pending {
		fates[c] = choose(c)
	}
	return func(c *change) fate { return fates[c] }
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
