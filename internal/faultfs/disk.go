package faultfs

import (
	"fmt"
	"path"
	"strings"
	"syscall"
	"time"
)

// sectorSize is what a disk writes as a whole, in bytes: a write tears between sectors.
const sectorSize = 512

// disk is the model: a tree as programs see it, and per file and directory what
// of it would survive a power cut, with the changes since, in order. It is not
// safe for concurrent use.
type disk struct {
	root     *node
	nodes    map[uint64]*node
	ids      uint64 // given so far
	seq      uint64 // of the newest change
	newStore func(id uint64) store
}

// node is a file or a directory.
type node struct {
	id    uint64
	dir   bool
	perm  uint32
	mtime time.Time
	name  string // the name it was given last, in up; for traces and rules
	up    *node

	entries map[string]*node // of a directory, as programs see it
	stable  map[string]*node // of a directory, durable

	data store // of a file, durable
	size int64 // of a file, as programs see it

	pending []*change // since the last sync of this node

	links   int    // names that programs see
	refs    int    // stable names, pending changes and handles that need it
	handles int    // open ones, also counted in refs
	lookups uint64 // of the kernel
}

// change is one thing that was done to a node and not synced yet.
type change struct {
	seq  uint64
	kind changeKind
	off  int64  // of a write
	data []byte // of a write
	size int64  // of a resize
	// names are set together; a nil node unlinks the name.
	names []naming
}

type changeKind uint8

const (
	changeWrite changeKind = iota
	changeSize
	changeNames
)

type naming struct {
	name string
	node *node
}

func newDisk(newStore func(id uint64) store) *disk {
	d := &disk{nodes: map[uint64]*node{}, newStore: newStore}
	d.root = d.add(1, true, 0o755)
	d.root.links = 1
	d.ids = 16 // room for the few ids with a meaning
	return d
}

// add makes a node that has no name yet. An id of 0 takes the next one.
func (d *disk) add(id uint64, dir bool, perm uint32) *node {
	if id == 0 {
		d.ids++
		id = d.ids
	}
	d.ids = max(d.ids, id)
	n := &node{id: id, dir: dir, perm: perm & 0o7777, mtime: time.Now()}
	if dir {
		n.entries, n.stable = map[string]*node{}, map[string]*node{}
	} else {
		n.data = d.newStore(id)
	}
	d.nodes[id] = n
	return n
}

func (d *disk) change(n *node, c change) {
	d.seq++
	c.seq = d.seq
	n.pending = append(n.pending, &c)
	n.mtime = time.Now()
	for _, g := range c.names {
		if g.node != nil {
			g.node.refs++
		}
	}
}

// set names n in dir; what had the name loses it.
func (d *disk) set(dir *node, name string, n *node) {
	if old := dir.entries[name]; old != nil {
		old.links--
	}
	dir.entries[name] = n
	n.links++
	n.name, n.up = name, dir
}

func (d *disk) unset(dir *node, name string) {
	dir.entries[name].links--
	delete(dir.entries, name)
}

// create makes a file or directory with the id, 0 for a new one.
func (d *disk) create(dir *node, name string, id uint64, isDir bool, perm uint32) (*node, error) {
	if dir.entries[name] != nil {
		return nil, syscall.EEXIST
	}
	n := d.add(id, isDir, perm)
	d.set(dir, name, n)
	d.change(dir, change{kind: changeNames, names: []naming{{name, n}}})
	return n, nil
}

func (d *disk) link(n, dir *node, name string) error {
	if n.dir {
		return syscall.EPERM
	}
	if dir.entries[name] != nil {
		return syscall.EEXIST
	}
	d.set(dir, name, n)
	d.change(dir, change{kind: changeNames, names: []naming{{name, n}}})
	return nil
}

// unlink removes a name: of a directory if isDir, else of a file.
func (d *disk) unlink(dir *node, name string, isDir bool) error {
	n := dir.entries[name]
	switch {
	case n == nil:
		return syscall.ENOENT
	case isDir && !n.dir:
		return syscall.ENOTDIR
	case !isDir && n.dir:
		return syscall.EISDIR
	case isDir && len(n.entries) > 0:
		return syscall.ENOTEMPTY
	}
	d.unset(dir, name)
	d.change(dir, change{kind: changeNames, names: []naming{{name, nil}}})
	d.collect(n)
	return nil
}

func (d *disk) rename(dir *node, name string, to *node, newName string, keepOld bool) error {
	n, old := dir.entries[name], to.entries[newName]
	switch {
	case n == nil:
		return syscall.ENOENT
	case old != nil && keepOld:
		return syscall.EEXIST
	case old == n:
		return nil
	case n.dir && dir != to:
		return syscall.EXDEV
	case old != nil && old.dir && !n.dir:
		return syscall.EISDIR
	case old != nil && !old.dir && n.dir:
		return syscall.ENOTDIR
	case old != nil && old.dir && len(old.entries) > 0:
		return syscall.ENOTEMPTY
	}
	d.set(to, newName, n)
	d.unset(dir, name)
	if dir == to {
		d.change(dir, change{kind: changeNames, names: []naming{{name, nil}, {newName, n}}})
	} else {
		d.change(to, change{kind: changeNames, names: []naming{{newName, n}}})
		d.change(dir, change{kind: changeNames, names: []naming{{name, nil}}})
	}
	if old != nil {
		d.collect(old)
	}
	return nil
}

// write takes a copy of data.
func (d *disk) write(n *node, off int64, data []byte) {
	d.change(n, change{kind: changeWrite, off: off, data: append([]byte(nil), data...)})
	n.size = max(n.size, off+int64(len(data)))
}

func (d *disk) resize(n *node, size int64) {
	d.change(n, change{kind: changeSize, size: size})
	n.size = size
}

// read fills buf with what programs see, and returns how much there is.
func (d *disk) read(n *node, buf []byte, off int64) (int, error) {
	if off >= n.size {
		return 0, nil
	}
	buf = buf[:min(int64(len(buf)), n.size-off)]
	clear(buf)
	if have := n.data.size() - off; have > 0 {
		if err := n.data.readAt(buf[:min(int64(len(buf)), have)], off); err != nil {
			return 0, err
		}
	}
	for _, c := range n.pending {
		switch c.kind {
		case changeWrite:
			if at := c.off - off; at >= 0 && at < int64(len(buf)) {
				copy(buf[at:], c.data)
			} else if at < 0 && -at < int64(len(c.data)) {
				copy(buf, c.data[-at:])
			}
		case changeSize:
			if at := max(c.size-off, 0); at < int64(len(buf)) {
				clear(buf[at:])
			}
		}
	}
	return len(buf), nil
}

// sync makes what was done to n durable.
func (d *disk) sync(n *node) error {
	pending := n.pending
	n.pending = nil
	if !n.dir {
		return settleFile(n.data, pending, keepEverything)
	}
	for _, c := range pending {
		for _, g := range c.names {
			old := n.stable[g.name]
			if g.node == nil {
				delete(n.stable, g.name)
			} else {
				n.stable[g.name] = g.node // with the reference that the change held
			}
			if old != nil {
				d.unref(old)
			}
		}
	}
	return nil
}

func (d *disk) unref(n *node) {
	n.refs--
	d.collect(n)
}

// collect drops a node that nothing can reach any more, now or after a crash.
func (d *disk) collect(n *node) {
	if n.links > 0 || n.refs > 0 || n.lookups > 0 || d.nodes[n.id] != n {
		return
	}
	delete(d.nodes, n.id)
	if !n.dir {
		n.data.remove()
		return
	}
	for _, c := range n.pending {
		for _, g := range c.names {
			if g.node != nil {
				d.unref(g.node)
			}
		}
	}
	for _, child := range n.stable {
		d.unref(child)
	}
}

// used is what the files take that programs can reach, in bytes.
func (d *disk) used() int64 {
	var sum int64
	for _, n := range d.nodes {
		if !n.dir && (n.links > 0 || n.handles > 0) {
			sum += blocks(n.size)
		}
	}
	return sum
}

// blockSize is the unit in which space is counted, in bytes.
const blockSize = 4096

func blocks(size int64) int64 { return (size + blockSize - 1) / blockSize * blockSize }

// path is where n is, or was last.
func (n *node) path() string {
	if n.up == nil {
		return "/"
	}
	return path.Join(n.up.path(), n.name)
}

// walk calls visit for each node that programs see, parents first, with its path.
func (d *disk) walk(visit func(p string, n *node) error) error {
	var down func(p string, n *node) error
	down = func(p string, n *node) error {
		if err := visit(p, n); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		for _, name := range sortedKeys(n.entries) {
			if err := down(strings.TrimSuffix(p, "/")+"/"+name, n.entries[name]); err != nil {
				return err
			}
		}
		return nil
	}
	return down("/", d.root)
}
