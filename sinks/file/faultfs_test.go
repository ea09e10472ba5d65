package file

import (
	"strings"
	"sync"

	"forebay/sinks/sinktest"
)

// faults is shared by all processes over one directory: the fault that is armed.
type faults struct {
	mu    sync.Mutex
	armed *sinktest.Fault
	alive *process
}

// process is what dies in a crash.
type process struct{ dead bool }

// start begins a new process; the one before it lives on until it is crashed.
func (f *faults) start() *process {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.alive = &process{}
	return f.alive
}

func (f *faults) arm(fault *sinktest.Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = fault
}

// step is called before each step of a process.
func (f *faults) step(p *process, name string) error {
	f.mu.Lock()
	if p.dead {
		f.mu.Unlock()
		return sinktest.ErrCrashed
	}
	fault := f.armed
	if fault == nil || fault.Point != name {
		f.mu.Unlock()
		return nil
	}
	f.armed = nil
	p.dead = fault.Kind == sinktest.Crash
	close(fault.Reached)
	f.mu.Unlock()
	switch fault.Kind {
	case sinktest.Crash:
		return sinktest.ErrCrashed
	case sinktest.Hang:
		<-fault.Release
	}
	return sinktest.ErrInjected
}

// faultFS is a file system with faults at named steps, as one process has it.
type faultFS struct {
	fsys
	faults  *faults
	process *process
}

// Steps of Deliver; those of small files (identity, cursor) are not met by name.
const (
	stepCreate  = "create"
	stepWrite   = "write"
	stepSync    = "sync"
	stepLock    = "lock"
	stepPublish = "publish"
	stepUnlock  = "unlock"
	stepSyncDir = "sync directory"
	stepOther   = "other"
)

func isBatchTmp(path string) bool {
	return strings.Contains(path, tmpPrefix) && !strings.Contains(path, tmpCursor) && !strings.Contains(path, tmpIdentity)
}

func (f *faultFS) step(name string) error { return f.faults.step(f.process, name) }

func (f *faultFS) MakeDir(dir string) error {
	if err := f.step(stepOther); err != nil {
		return err
	}
	return f.fsys.MakeDir(dir)
}

func (f *faultFS) List(dir string, fn func(string)) error {
	if err := f.step(stepOther); err != nil {
		return err
	}
	return f.fsys.List(dir, fn)
}

func (f *faultFS) Remove(path string) error {
	if err := f.step(stepOther); err != nil {
		return err
	}
	return f.fsys.Remove(path)
}

func (f *faultFS) Replace(tmp, final string) error {
	if err := f.step(stepOther); err != nil {
		return err
	}
	return f.fsys.Replace(tmp, final)
}

func (f *faultFS) Create(path string) (file, error) {
	named := func(step string) string {
		if isBatchTmp(path) {
			return step
		}
		return stepOther
	}
	if err := f.step(named(stepCreate)); err != nil {
		return nil, err
	}
	inner, err := f.fsys.Create(path)
	if err != nil {
		return nil, err
	}
	return &faultFile{file: inner, step: func(step string) error { return f.step(named(step)) }}, nil
}

func (f *faultFS) Publish(tmp, final string) error {
	step := stepOther
	if isBatchTmp(tmp) {
		step = stepPublish
	}
	if err := f.step(step); err != nil {
		return err
	}
	return f.fsys.Publish(tmp, final)
}

func (f *faultFS) SyncDir(dir string) error {
	if err := f.step(stepSyncDir); err != nil {
		return err
	}
	return f.fsys.SyncDir(dir)
}

func (f *faultFS) OpenLane(path string) (laneFile, error) {
	if err := f.step(stepOther); err != nil {
		return nil, err
	}
	inner, err := f.fsys.OpenLane(path)
	if err != nil {
		return nil, err
	}
	return &faultLane{laneFile: inner, step: f.step}, nil
}

type faultFile struct {
	file
	step func(string) error
}

// Write writes half of what it is given when it fails, as a full disk does.
func (f *faultFile) Write(p []byte) (int, error) {
	if err := f.step(stepWrite); err != nil {
		n, _ := f.file.Write(p[:len(p)/2])
		return n, err
	}
	return f.file.Write(p)
}

func (f *faultFile) Sync() error {
	if err := f.step(stepSync); err != nil {
		return err
	}
	return f.file.Sync()
}

type faultLane struct {
	laneFile
	step func(string) error
}

func (l *faultLane) TryLock() (bool, error) {
	if err := l.step(stepLock); err != nil {
		return false, err
	}
	return l.laneFile.TryLock()
}

// Unlock lets go of the lock whatever happens: the kernel does so for a process that dies.
func (l *faultLane) Unlock() error {
	err := l.step(stepUnlock)
	if unlockErr := l.laneFile.Unlock(); err == nil {
		err = unlockErr
	}
	return err
}

func (l *faultLane) Write(b []byte) error {
	if err := l.step(stepOther); err != nil {
		return err
	}
	return l.laneFile.Write(b)
}
