package faultfs

import (
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// handle opens a handle. For holders of mu.
func (f *FS) handle(n *node) uint64 {
	f.opened++
	f.handles[f.opened] = n
	n.handles++
	n.refs++
	return f.opened
}

func (f *FS) close(fh uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.handles[fh]
	if n == nil {
		return // of MarkName
	}
	delete(f.handles, fh)
	n.handles--
	if o, ok := n.data.(*object); ok && n.handles == 0 {
		o.idle()
	}
	f.disk.unref(n)
	f.released.Broadcast()
}

// open returns what finds the path of an open handle.
func (f *FS) open(fh uint64) func() ([]string, error) {
	return func() ([]string, error) {
		n := f.handles[fh]
		if n == nil {
			return nil, syscall.EBADF
		}
		return []string{n.path()}, nil
	}
}

func (s *service) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isCut {
		return fuse.EIO
	}
	if in.NodeId == markNode {
		fillMark(&out.Attr)
		return fuse.OK
	}
	n, err := s.node(in.NodeId)
	if err != nil {
		return fuse.ToStatus(err)
	}
	fillAttr(n, &out.Attr)
	return fuse.OK
}

func (s *service) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId == markNode {
		fillMark(&out.Attr)
		return fuse.OK
	}
	if size, ok := in.GetSize(); ok {
		if st := s.truncated(in.NodeId, int64(size)); st != fuse.OK {
			return st
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isCut {
		return fuse.EIO
	}
	n, err := s.node(in.NodeId)
	if err != nil {
		return fuse.ToStatus(err)
	}
	if mode, ok := in.GetMode(); ok {
		n.perm = mode & 0o7777
	}
	if mtime, ok := in.GetMTime(); ok {
		n.mtime = mtime
	}
	fillAttr(n, &out.Attr)
	return fuse.OK
}

// at returns what finds the path of a node.
func (f *FS) at(id uint64) func() ([]string, error) {
	return func() ([]string, error) {
		n, err := f.node(id)
		if err != nil {
			return nil, err
		}
		return []string{n.path()}, nil
	}
}

func (s *service) truncated(id uint64, size int64) fuse.Status {
	return s.do(OpTruncate, 0, 0, s.at(id), func(verdict) (Event, error) {
		n, err := s.node(id)
		if err != nil {
			return Event{}, err
		}
		return s.resized(n, OpTruncate, size)
	})
}

// resized changes the size of a file if there is room. For holders of mu.
func (f *FS) resized(n *node, op Op, size int64) (Event, error) {
	if n.dir {
		return Event{}, syscall.EISDIR
	}
	if blocks(size)-blocks(n.size) > f.room() {
		return Event{}, syscall.ENOSPC
	}
	f.disk.resize(n, size)
	return Event{Op: op, Path: n.path(), Node: n.id, Size: size}, nil
}

// room is how many bytes are free. For holders of mu.
func (f *FS) room() int64 {
	if f.capacity == 0 {
		return 1 << 62
	}
	return max(f.capacity-f.disk.used(), 0)
}

func (s *service) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.NodeId == markNode {
		out.OpenFlags = fuse.FOPEN_DIRECT_IO
		return fuse.OK
	}
	var fh uint64
	status := s.do(OpOpen, 0, 0, s.at(in.NodeId), func(verdict) (Event, error) {
		n, err := s.node(in.NodeId)
		if err != nil {
			return Event{}, err
		}
		fh = s.handle(n)
		return Event{}, nil
	})
	out.Fh = fh
	return s.opened(status, fh)
}

// opened closes the handle of an open that was done and is answered with an error
// all the same: the kernel never releases it.
func (s *service) opened(status fuse.Status, fh uint64) fuse.Status {
	if !status.Ok() && fh != 0 {
		s.close(fh)
	}
	return status
}

func (s *service) Release(_ <-chan struct{}, in *fuse.ReleaseIn) { s.close(in.Fh) }

func (s *service) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }

func (s *service) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if in.NodeId == markNode {
		return fuse.ReadResultData(nil), fuse.OK
	}
	count := 0
	st := s.do(OpRead, int64(in.Offset), int64(len(buf)), s.open(in.Fh), func(verdict) (Event, error) {
		var err error
		count, err = s.disk.read(s.handles[in.Fh], buf, int64(in.Offset))
		return Event{}, err
	})
	return fuse.ReadResultData(buf[:count]), st
}

func (s *service) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if in.NodeId == markNode {
		return s.marked(data)
	}
	st := s.do(OpWrite, int64(in.Offset), int64(len(data)), s.open(in.Fh), func(v verdict) (Event, error) {
		n, off := s.handles[in.Fh], int64(in.Offset)
		if v.short >= 0 {
			data = data[:min(v.short, len(data))]
		}
		// A disk that fills up takes what it can; the program gets ENOSPC for the rest.
		if room := blocks(n.size) + s.room(); off+int64(len(data)) > room {
			data = data[:max(room-off, 0)]
			if len(data) == 0 {
				return Event{}, syscall.ENOSPC
			}
		}
		s.disk.write(n, off, data)
		return Event{Op: OpWrite, Path: n.path(), Node: n.id, Off: off, Data: append([]byte(nil), data...)}, nil
	})
	return uint32(len(data)), st
}

// marked takes what a workload says.
func (s *service) marked(data []byte) (uint32, fuse.Status) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isCut {
		return 0, fuse.EIO
	}
	s.note(Event{Mark: string(data)})
	return uint32(len(data)), fuse.OK
}

func (s *service) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if in.NodeId == markNode {
		return fuse.OK
	}
	return s.synced(OpSync, in.Fh)
}

func (s *service) synced(op Op, fh uint64) fuse.Status {
	return s.do(op, 0, 0, s.open(fh), func(verdict) (Event, error) {
		n := s.handles[fh]
		return Event{Op: op, Path: n.path(), Node: n.id}, s.disk.sync(n)
	})
}

func (s *service) Fallocate(_ <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	const keepSize = 1 // FALLOC_FL_KEEP_SIZE
	if in.Mode&^keepSize != 0 {
		return fuse.Status(syscall.EOPNOTSUPP)
	}
	return s.do(OpAllocate, 0, 0, s.open(in.Fh), func(verdict) (Event, error) {
		n, size := s.handles[in.Fh], int64(in.Offset+in.Length)
		if blocks(size)-blocks(n.size) > s.room() {
			return Event{}, syscall.ENOSPC
		}
		if in.Mode&keepSize != 0 || size <= n.size {
			return Event{}, nil
		}
		return s.resized(n, OpAllocate, size)
	})
}
