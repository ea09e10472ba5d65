package faultfs

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// objectsDir is where the backing directory keeps what files hold while it is mounted.
const objectsDir = ".faultfs-objects"

// FS is a mounted file system. All methods may be called by anyone at any time.
type FS struct {
	backing, dir string
	server       *fuse.Server

	mu       sync.Mutex
	disk     *disk
	handles  map[uint64]*node
	opened   uint64     // handles given so far
	released *sync.Cond // on mu: a handle was closed
	cut      chan struct{}
	isCut    bool
	capacity int64
	trace    *Trace

	rulesMu sync.Mutex
	rules   []*Injection
}

// Mount mounts the files of backing, which count as durable, at mountpoint. Both must
// be there. While it is mounted, backing is not to be touched; after Close it holds the tree.
func Mount(backing, mountpoint string) (*FS, error) {
	f := &FS{backing: backing, dir: mountpoint, handles: map[uint64]*node{}, cut: make(chan struct{})}
	f.released = sync.NewCond(&f.mu)
	objects := filepath.Join(backing, objectsDir)
	if err := os.Mkdir(objects, 0o700); err != nil {
		return nil, fmt.Errorf("making room for the files of %s: %w", backing, err)
	}
	f.disk = newDisk(func(id uint64) store {
		return &object{name: filepath.Join(objects, strconv.FormatUint(id, 10))}
	})
	if err := f.adopt(); err != nil {
		return nil, fmt.Errorf("taking over %s: %w", backing, err)
	}
	server, err := fuse.NewServer(&service{RawFileSystem: fuse.NewDefaultRawFileSystem(), FS: f}, mountpoint, &fuse.MountOptions{
		FsName: "faultfs", Name: "faultfs",
		DirectMountStrict: true, AllowOther: true, DisableXAttrs: true, DisableReadDirPlus: true,
		MaxWrite: 1 << 20,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mounting %s (needs root and /dev/fuse): %w", mountpoint, err), f.settle())
	}
	f.server = server
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		return nil, errors.Join(fmt.Errorf("mounting %s: %w", mountpoint, err), f.Close())
	}
	return f, nil
}

// Dir is where it is mounted.
func (f *FS) Dir() string { return f.dir }

// Close ends all rules, unmounts, and leaves the tree, as programs saw it last,
// in the backing directory. If a process still uses the mount, the mount is
// detached all the same, and that is an error.
func (f *FS) Close() error {
	f.rulesMu.Lock()
	rules := slices.Clone(f.rules)
	f.rulesMu.Unlock()
	for _, r := range rules {
		r.Remove()
	}
	if err := f.server.Unmount(); err != nil {
		f.PowerCut()
		_ = unix.Unmount(f.dir, unix.MNT_DETACH) // the first error is the one to tell
		return fmt.Errorf("unmounting %s: %w", f.dir, err)
	}
	return f.settle()
}

// adopt takes the files of the backing directory.
func (f *FS) adopt() error {
	dirs := map[string]*node{".": f.disk.root}
	err := filepath.WalkDir(f.backing, func(p string, entry fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(f.backing, p)
		if err = errors.Join(err, relErr); err != nil {
			return err
		}
		if rel == objectsDir {
			return fs.SkipDir
		}
		if rel == "." {
			return nil
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		up := dirs[filepath.Dir(rel)]
		n, err := f.disk.create(up, entry.Name(), 0, entry.IsDir(), uint32(info.Mode().Perm()))
		if err != nil {
			return err
		}
		if entry.IsDir() {
			dirs[rel] = n
			return nil
		}
		o := n.data.(*object)
		n.size, o.length = info.Size(), info.Size()
		return os.Rename(p, o.name)
	})
	for _, dir := range dirs {
		err = errors.Join(err, f.disk.sync(dir))
	}
	for rel := range dirs {
		if rel != "." && filepath.Dir(rel) == "." {
			err = errors.Join(err, os.RemoveAll(filepath.Join(f.backing, rel)))
		}
	}
	return err
}

// settle writes the tree into the backing directory.
func (f *FS) settle() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.disk.walk(func(p string, n *node) error {
		to := filepath.Join(f.backing, p)
		if n.dir {
			return os.MkdirAll(to, 0o700|fs.FileMode(n.perm))
		}
		if err := f.disk.sync(n); err != nil {
			return err
		}
		o := n.data.(*object)
		if err := o.open(); err != nil { // also makes an empty one
			return err
		}
		o.idle()
		return errors.Join(os.Chmod(o.name, fs.FileMode(n.perm)), os.Link(o.name, to))
	})
	return errors.Join(err, os.RemoveAll(filepath.Join(f.backing, objectsDir)))
}

// Inject puts a rule to work. Rules are asked in the order in which they came; each one
// counts the operations that match it, and those that are hit add up.
func (f *FS) Inject(r Rule) (*Injection, error) {
	i, err := newInjection(r, func(i *Injection) {
		f.rulesMu.Lock()
		defer f.rulesMu.Unlock()
		f.rules = slices.DeleteFunc(slices.Clone(f.rules), func(other *Injection) bool { return other == i })
	})
	if err != nil {
		return nil, err
	}
	f.rulesMu.Lock()
	f.rules = append(slices.Clone(f.rules), i)
	f.rulesMu.Unlock()
	if i.rule.Op&OpRead != 0 {
		f.forgetCached(i.matches)
	}
	return i, nil
}

// forgetCached empties the page cache of the files that match. Not under mu: the kernel may wait for a read.
func (f *FS) forgetCached(matches func(string) bool) {
	f.mu.Lock()
	var ids []uint64
	for id, n := range f.disk.nodes {
		if !n.dir && n.lookups > 0 && matches(n.path()) {
			ids = append(ids, id)
		}
	}
	f.mu.Unlock()
	for _, id := range ids {
		f.server.InodeNotify(id, 0, 0)
	}
}

// SetCapacity makes the disk bytes large, for statfs and for writes, which get
// ENOSPC beyond it; what is there may already take more. 0 is no limit but the backing directory's.
func (f *FS) SetCapacity(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.capacity = bytes
}

// Used is what the files take, in bytes, each rounded up to 4 KiB.
func (f *FS) Used() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.disk.used()
}

// PowerCut makes every operation fail from now on, those that hang by a rule too.
func (f *FS) PowerCut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutLocked()
}

func (f *FS) cutLocked() {
	if !f.isCut {
		f.isCut = true
		close(f.cut)
	}
}

// WasCut is closed when the power is cut, by PowerCut or by a rule. After Restore it is another channel.
func (f *FS) WasCut() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cut
}

// Restore brings the power back after a PowerCut, which it makes if none was. It
// waits, until ctx ends, for the processes that had files open here to be dead, and
// leaves of what was not synced what keep says; all of it is then durable. Rules stay.
func (f *FS) Restore(ctx context.Context, keep Keep) error {
	defer context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.released.Broadcast()
	})()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutLocked()
	for len(f.handles) > 0 && ctx.Err() == nil {
		f.released.Wait()
	}
	if len(f.handles) > 0 {
		return fmt.Errorf("restoring %s: %d files are still open, %s among them: %w", f.dir, len(f.handles), f.someOpen(), context.Cause(ctx))
	}
	if err := f.disk.crash(keep); err != nil {
		return fmt.Errorf("restoring %s: %w", f.dir, err)
	}
	f.isCut, f.cut = false, make(chan struct{})
	f.trace = nil
	return nil
}

func (f *FS) someOpen() string {
	for _, n := range f.handles {
		return n.path()
	}
	return "none"
}

// crash makes the disk what a power cut leaves of it.
func (d *disk) crash(keep Keep) error {
	pending := d.unsynced()
	choose := decided(pending, keep.choose(pending))
	left := newDisk(d.newStore)
	left.ids, left.seq = d.ids, d.seq
	made := map[*node]*node{d.root: left.root}
	err := d.survivors(choose, func(_ string, old *node, names map[string]*node) error {
		dir := made[old]
		for name, child := range names {
			n := made[child]
			if n != nil && n.dir {
				continue // under another name already
			}
			if n == nil {
				left.ids++ // a new id: nothing the kernel remembers of the old one counts
				n = &node{id: left.ids, dir: child.dir, perm: child.perm, mtime: time.Now()}
				left.nodes[n.id] = n
				made[child] = n
				if n.dir {
					n.entries, n.stable = map[string]*node{}, map[string]*node{}
				} else {
					n.data = child.data
					if err := settleFile(n.data, child.pending, choose); err != nil {
						return err
					}
					n.size = n.data.size()
				}
			}
			left.set(dir, name, n)
			dir.stable[name] = n
			n.refs++
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, old := range d.nodes {
		if !old.dir && made[old] == nil {
			old.data.remove()
		}
	}
	*d = *left
	return nil
}

// Record begins a trace, and drops the one before. What is there now counts as durable in it.
func (f *FS) Record() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	start, err := f.disk.image()
	if err != nil {
		return err
	}
	f.trace = &Trace{start: start, seed: maphash.MakeSeed()}
	return nil
}

// Trace ends the recording and returns it, nil if there was none.
func (f *FS) Trace() *Trace {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.trace
	f.trace = nil
	return t
}

// note adds an event to the trace. For holders of mu.
func (f *FS) note(e Event) {
	if f.trace != nil {
		f.trace.Events = append(f.trace.Events, e)
	}
}
