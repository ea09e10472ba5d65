package file

import (
	"bytes"
	"io/fs"
	"path/filepath"
	"sync"

	"forebay/sinks/sinktest"
)

// memDisk is a directory on a disk that can lose its power: what was not synced,
// names included, is kept apart from what was.
type memDisk struct {
	mu sync.Mutex
	// names are the entries as processes see them, durable those on the platter.
	names, durable map[string]*inode
	locks          map[*inode]*memLane

	// left counts down to the step that fails; below zero nothing does.
	left  int
	crash bool
	dead  bool
	steps int
}

type inode struct{ data, synced []byte }

func newMemDisk() *memDisk {
	return &memDisk{names: map[string]*inode{}, durable: map[string]*inode{}, locks: map[*inode]*memLane{}, left: -1}
}

// step counts, and fails when its turn has come. The caller holds mu.
func (d *memDisk) step() error {
	if d.dead {
		return sinktest.ErrCrashed
	}
	d.steps++
	d.left--
	if d.left != -1 {
		return nil
	}
	d.dead = d.crash
	if d.crash {
		return sinktest.ErrCrashed
	}
	return sinktest.ErrInjected
}

// cut is what a power cut leaves of unsynced things.
type cut uint8

const (
	// keepAll is no power cut but kill -9: the page cache survives.
	keepAll cut = iota
	// dropAll loses every name and byte that was not synced.
	dropAll
	// keepNames loses bytes, but not names: files turn out short.
	keepNames
	// keepContents loses names, but no bytes of files whose names are there.
	keepContents
)

func (c cut) String() string {
	return [...]string{"kill -9", "all unsynced lost", "names kept", "bytes kept"}[c]
}

// restart gives the disk to a new process, after a cut.
func (d *memDisk) restart(c cut) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead, d.left = false, -1
	clear(d.locks)
	if c == keepAll {
		return
	}
	if c == dropAll || c == keepContents {
		d.names = copyNames(d.durable)
	}
	for _, n := range d.names {
		if c == dropAll || c == keepNames {
			n.data = bytes.Clone(n.synced)
		}
		n.synced = bytes.Clone(n.data)
	}
	d.durable = copyNames(d.names)
}

func copyNames(m map[string]*inode) map[string]*inode {
	c := make(map[string]*inode, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

func (d *memDisk) MakeDir(string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.step()
}

func (d *memDisk) List(_ string, fn func(string)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	for name := range d.names {
		fn(name)
	}
	return nil
}

func (d *memDisk) ReadFile(path string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return nil, err
	}
	n, ok := d.names[filepath.Base(path)]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(n.data), nil
}

func (d *memDisk) Create(path string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return nil, err
	}
	name := filepath.Base(path)
	if _, ok := d.names[name]; ok {
		return nil, fs.ErrExist
	}
	n := &inode{}
	d.names[name] = n
	return &memFile{disk: d, inode: n}, nil
}

func (d *memDisk) rename(from, to string, over bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	from, to = filepath.Base(from), filepath.Base(to)
	n, ok := d.names[from]
	if !ok {
		return fs.ErrNotExist
	}
	if _, taken := d.names[to]; taken && !over {
		return fs.ErrExist
	}
	delete(d.names, from)
	d.names[to] = n
	return nil
}

func (d *memDisk) Publish(tmp, final string) error { return d.rename(tmp, final, false) }
func (d *memDisk) Replace(tmp, final string) error { return d.rename(tmp, final, true) }

func (d *memDisk) Remove(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	name := filepath.Base(path)
	if _, ok := d.names[name]; !ok {
		return fs.ErrNotExist
	}
	delete(d.names, name)
	return nil
}

func (d *memDisk) SyncDir(string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	d.durable = copyNames(d.names)
	return nil
}

func (d *memDisk) OpenLane(path string) (laneFile, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return nil, err
	}
	name := filepath.Base(path)
	if d.names[name] == nil {
		d.names[name] = &inode{}
	}
	return &memLane{memFile{disk: d, inode: d.names[name]}}, nil
}

type memFile struct {
	disk  *memDisk
	inode *inode
}

func (f *memFile) Write(p []byte) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	wasDead := f.disk.dead
	if err := f.disk.step(); err != nil {
		if wasDead {
			return 0, err
		}
		f.inode.data = append(f.inode.data, p[:len(p)/2]...)
		return len(p) / 2, err
	}
	f.inode.data = append(f.inode.data, p...)
	return len(p), nil
}

func (f *memFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.step(); err != nil {
		return err
	}
	f.inode.synced = bytes.Clone(f.inode.data)
	return nil
}

func (f *memFile) Close() error { return nil }

type memLane struct{ memFile }

func (l *memLane) TryLock() (bool, error) {
	l.disk.mu.Lock()
	defer l.disk.mu.Unlock()
	if err := l.disk.step(); err != nil {
		return false, err
	}
	if holder := l.disk.locks[l.inode]; holder != nil && holder != l {
		return false, nil
	}
	l.disk.locks[l.inode] = l
	return true, nil
}

func (l *memLane) Unlock() error {
	l.disk.mu.Lock()
	defer l.disk.mu.Unlock()
	delete(l.disk.locks, l.inode)
	return l.disk.step()
}

func (l *memLane) Read() ([]byte, error) {
	l.disk.mu.Lock()
	defer l.disk.mu.Unlock()
	if err := l.disk.step(); err != nil {
		return nil, err
	}
	return bytes.Clone(l.inode.data), nil
}

func (l *memLane) Write(b []byte) error {
	l.disk.mu.Lock()
	defer l.disk.mu.Unlock()
	if err := l.disk.step(); err != nil {
		return err
	}
	l.inode.data = bytes.Clone(b)
	l.inode.synced = bytes.Clone(b)
	return nil
}
