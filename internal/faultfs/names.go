package faultfs

import (
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// markNode is the node of MarkName.
const markNode = 2

// service answers the kernel. What is asked of a name is here, of a file in files.go.
type service struct {
	fuse.RawFileSystem
	*FS
}

func (s *service) String() string { return "faultfs" }

// node finds a node of the kernel. For holders of mu.
func (f *FS) node(id uint64) (*node, error) {
	if n := f.disk.nodes[id]; n != nil {
		return n, nil
	}
	return nil, syscall.ESTALE
}

// below returns what finds the path of a name in a directory.
func (f *FS) below(id uint64, name string) func() ([]string, error) {
	return func() ([]string, error) {
		dir, err := f.node(id)
		if err != nil {
			return nil, err
		}
		return []string{join(dir, name)}, nil
	}
}

func join(dir *node, name string) string {
	return strings.TrimSuffix(dir.path(), "/") + "/" + name
}

// entry answers with a node, of which the kernel now knows.
func (f *FS) entry(n *node, out *fuse.EntryOut) {
	n.lookups++
	out.NodeId, out.Generation = n.id, 1
	fillAttr(n, &out.Attr)
}

func fillAttr(n *node, out *fuse.Attr) {
	out.Ino = n.id
	out.Mode = syscall.S_IFREG | n.perm
	out.Nlink = uint32(n.links)
	if n.dir {
		out.Mode = syscall.S_IFDIR | n.perm
		out.Nlink += 1
	}
	out.Size = uint64(n.size)
	out.Blocks = uint64(blocks(n.size) / 512)
	out.Blksize = blockSize
	out.SetTimes(&n.mtime, &n.mtime, &n.mtime)
}

func fillMark(out *fuse.Attr) {
	out.Ino, out.Mode, out.Nlink = markNode, syscall.S_IFREG|0o666, 1
}

func (s *service) Lookup(_ <-chan struct{}, header *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isCut {
		return fuse.EIO
	}
	dir, err := s.node(header.NodeId)
	if err != nil {
		return fuse.ToStatus(err)
	}
	if dir.id == fuse.FUSE_ROOT_ID && name == MarkName {
		out.NodeId, out.Generation = markNode, 1
		fillMark(&out.Attr)
		return fuse.OK
	}
	n := dir.entries[name]
	if n == nil {
		return fuse.ENOENT
	}
	s.entry(n, out)
	return fuse.OK
}

func (s *service) Forget(id, lookups uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.disk.nodes[id]; n != nil && id != fuse.FUSE_ROOT_ID {
		n.lookups -= min(lookups, n.lookups)
		s.disk.collect(n)
	}
}

func (s *service) Access(<-chan struct{}, *fuse.AccessIn) fuse.Status { return fuse.OK }

// made creates a file or directory and tells the kernel.
func (s *service) made(op Op, dirID uint64, name string, mode uint32, out *fuse.EntryOut, then func(*node)) fuse.Status {
	return s.do(op, 0, 0, s.below(dirID, name), func(verdict) (Event, error) {
		dir, err := s.node(dirID)
		if err != nil {
			return Event{}, err
		}
		n, err := s.disk.create(dir, name, 0, op == OpMkdir, mode)
		if err != nil {
			return Event{}, err
		}
		s.entry(n, out)
		if then != nil {
			then(n)
		}
		return Event{Op: op, Path: n.path(), Node: n.id, Dir: dir.id, Name: name}, nil
	})
}

func (s *service) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return s.made(OpMkdir, in.NodeId, name, in.Mode, out, nil)
}

func (s *service) Mknod(_ <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	if in.Mode&syscall.S_IFMT != syscall.S_IFREG {
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	return s.made(OpCreate, in.NodeId, name, in.Mode, out, nil)
}

func (s *service) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	var fh uint64
	status := s.made(OpCreate, in.NodeId, name, in.Mode, &out.EntryOut, func(n *node) { fh = s.handle(n) })
	out.Fh = fh
	return s.opened(status, fh)
}

func (s *service) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	return s.do(OpLink, 0, 0, s.below(in.NodeId, name), func(verdict) (Event, error) {
		dir, err := s.node(in.NodeId)
		if err != nil {
			return Event{}, err
		}
		n, err := s.node(in.Oldnodeid)
		if err != nil {
			return Event{}, err
		}
		if err := s.disk.link(n, dir, name); err != nil {
			return Event{}, err
		}
		s.entry(n, out)
		return Event{Op: OpLink, Path: join(dir, name), Node: n.id, Dir: dir.id, Name: name}, nil
	})
}

func (s *service) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return s.unlinked(OpUnlink, in.NodeId, name)
}

func (s *service) Rmdir(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	return s.unlinked(OpRmdir, in.NodeId, name)
}

func (s *service) unlinked(op Op, dirID uint64, name string) fuse.Status {
	return s.do(op, 0, 0, s.below(dirID, name), func(verdict) (Event, error) {
		dir, err := s.node(dirID)
		if err != nil {
			return Event{}, err
		}
		n := dir.entries[name]
		if err := s.disk.unlink(dir, name, op == OpRmdir); err != nil {
			return Event{}, err
		}
		return Event{Op: op, Path: join(dir, name), Node: n.id, Dir: dir.id, Name: name}, nil
	})
}

func (s *service) Rename(_ <-chan struct{}, in *fuse.RenameIn, name, newName string) fuse.Status {
	const noReplace = 1 // RENAME_NOREPLACE
	if in.Flags&^noReplace != 0 {
		return fuse.EINVAL
	}
	both := func() ([]string, error) {
		from, err := s.below(in.NodeId, name)()
		if err != nil {
			return nil, err
		}
		to, err := s.below(in.Newdir, newName)()
		return append(from, to...), err
	}
	return s.do(OpRename, 0, 0, both, func(verdict) (Event, error) {
		dir, err := s.node(in.NodeId)
		if err != nil {
			return Event{}, err
		}
		to, err := s.node(in.Newdir)
		if err != nil {
			return Event{}, err
		}
		n := dir.entries[name]
		if err := s.disk.rename(dir, name, to, newName, in.Flags&noReplace != 0); err != nil {
			return Event{}, err
		}
		return Event{
			Op: OpRename, Path: join(dir, name), Node: n.id,
			Dir: dir.id, Name: name, NewDir: to.id, NewName: newName,
		}, nil
	})
}

func (s *service) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isCut {
		return fuse.EIO
	}
	n, err := s.node(in.NodeId)
	if err != nil {
		return fuse.ToStatus(err)
	}
	out.Fh = s.handle(n)
	return fuse.OK
}

func (s *service) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return s.do(OpReadDir, 0, 0, s.open(in.Fh), func(verdict) (Event, error) {
		dir := s.handles[in.Fh]
		names := append([]string{".", ".."}, sortedKeys(dir.entries)...)
		for i := in.Offset; i < uint64(len(names)); i++ {
			e := fuse.DirEntry{Name: names[i], Mode: syscall.S_IFDIR, Ino: dir.id, Off: i + 1}
			if n := dir.entries[names[i]]; n != nil {
				e.Ino = n.id
				if !n.dir {
					e.Mode = syscall.S_IFREG
				}
			}
			if !out.AddDirEntry(e) {
				break
			}
		}
		return Event{}, nil
	})
}

func (s *service) ReleaseDir(in *fuse.ReleaseIn) { s.close(in.Fh) }

func (s *service) FsyncDir(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return s.synced(OpSyncDir, in.Fh)
}

func (s *service) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	root := func() ([]string, error) { return []string{"/"}, nil }
	return s.do(OpStatFS, 0, 0, root, func(verdict) (Event, error) {
		if s.capacity == 0 {
			var st syscall.Statfs_t
			if err := syscall.Statfs(s.backing, &st); err != nil {
				return Event{}, err
			}
			out.FromStatfsT(&st)
			return Event{}, nil
		}
		free := uint64(max(s.capacity-s.disk.used(), 0) / blockSize)
		*out = fuse.StatfsOut{
			Blocks: uint64(s.capacity / blockSize), Bfree: free, Bavail: free,
			Files: 1 << 20, Ffree: 1 << 19, Bsize: blockSize, Frsize: blockSize, NameLen: 255,
		}
		return Event{}, nil
	})
}
