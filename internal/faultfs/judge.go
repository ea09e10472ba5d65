package faultfs

import (
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// verdict is what the rules make of an operation.
type verdict struct {
	errno syscall.Errno
	short int // bytes of a write that are done; -1 is all
	cut   Cut
}

// judge asks the rules, and waits as long as they say. Not under mu.
func (f *FS) judge(op Op, off, bytes int64, paths []string) verdict {
	f.rulesMu.Lock()
	rules := f.rules
	f.rulesMu.Unlock()
	v := verdict{short: -1}
	for _, i := range rules {
		if !i.take(op, off, bytes, paths) {
			continue
		}
		r := i.rule
		if r.Errno != 0 {
			v.errno = r.Errno
		}
		if r.Short > 0 {
			v.short = r.Short
		}
		v.cut = max(v.cut, r.Cut)
		if r.Hang {
			select {
			case <-i.gone:
			case <-f.WasCut():
			}
		}
		if d := i.wait(bytes); d > 0 {
			slow := time.NewTimer(d)
			select {
			case <-slow.C:
			case <-i.gone:
			case <-f.WasCut():
			}
			slow.Stop()
		}
	}
	return v
}

// do carries out one operation, on so many bytes from off on if it reads or writes. at returns the paths that rules match, act does it
// and returns its event; both run under mu.
func (f *FS) do(op Op, off, bytes int64, at func() ([]string, error), act func(v verdict) (Event, error)) fuse.Status {
	f.mu.Lock()
	if f.isCut {
		f.mu.Unlock()
		return fuse.EIO
	}
	paths, err := at()
	f.mu.Unlock()
	if err != nil {
		return fuse.ToStatus(err)
	}
	v := f.judge(op, off, bytes, paths)
	f.mu.Lock()
	defer f.mu.Unlock()
	if v.cut == CutBefore {
		f.cutLocked()
	}
	if f.isCut {
		return fuse.EIO
	}
	if v.errno != 0 && v.short < 0 {
		return fuse.Status(v.errno)
	}
	e, err := act(v)
	if err != nil {
		return fuse.ToStatus(err)
	}
	if e.Op != 0 {
		f.note(e)
	}
	if v.cut == CutAfter {
		f.cutLocked()
		return fuse.EIO
	}
	return fuse.Status(v.errno)
}
