package faultfs_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"forebay/internal/faultfs"
)

func TestNthSyncOfAPathFails(t *testing.T) {
	f := mount(t)
	rule := inject(t, f, faultfs.Rule{Path: "**/seg*", Op: faultfs.OpSync, Nth: 3, Times: 1, Errno: syscall.EIO})
	file, other := create(t, filepath.Join(f.Dir(), "segment")), create(t, filepath.Join(f.Dir(), "other"))
	for i := 1; i <= 5; i++ {
		must(t, other.Sync())
		err := file.Sync()
		if i == 3 {
			wantErrno(t, err, syscall.EIO)
		} else {
			must(t, err)
		}
	}
	if rule.Hits() != 1 {
		t.Errorf("%d hits", rule.Hits())
	}
}

func TestEachOperationFails(t *testing.T) {
	cases := map[faultfs.Op]func(dir string) error{
		faultfs.OpCreate:   func(dir string) error { return os.WriteFile(dir+"/new", nil, 0o600) },
		faultfs.OpOpen:     func(dir string) error { _, err := os.ReadFile(dir + "/file"); return err },
		faultfs.OpRead:     func(dir string) error { _, err := os.ReadFile(dir + "/file"); return err },
		faultfs.OpWrite:    func(dir string) error { return os.WriteFile(dir+"/file", []byte("x"), 0o600) },
		faultfs.OpTruncate: func(dir string) error { return os.Truncate(dir+"/file", 1) },
		faultfs.OpMkdir:    func(dir string) error { return os.Mkdir(dir+"/sub", 0o700) },
		faultfs.OpRename:   func(dir string) error { return os.Rename(dir+"/file", dir+"/other") },
		faultfs.OpLink:     func(dir string) error { return os.Link(dir+"/file", dir+"/other") },
		faultfs.OpUnlink:   func(dir string) error { return os.Remove(dir + "/file") },
		faultfs.OpReadDir:  func(dir string) error { _, err := os.ReadDir(dir); return err },
		faultfs.OpStatFS:   func(dir string) error { var st syscall.Statfs_t; return syscall.Statfs(dir, &st) },
		faultfs.OpAllocate: func(dir string) error {
			file, err := os.OpenFile(dir+"/file", os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer file.Close()
			return syscall.Fallocate(int(file.Fd()), 0, 0, 100)
		},
		faultfs.OpSyncDir: func(dir string) error {
			d, err := os.Open(dir)
			if err != nil {
				return err
			}
			defer d.Close()
			return d.Sync()
		},
	}
	for op, do := range cases {
		t.Run(op.String(), func(t *testing.T) {
			f := mount(t)
			must(t, os.WriteFile(f.Dir()+"/file", []byte("content"), 0o600))
			rule := inject(t, f, faultfs.Rule{Op: op, Errno: syscall.EDQUOT})
			wantErrno(t, do(f.Dir()), syscall.EDQUOT)
			if rule.Hits() == 0 {
				t.Error("not hit")
			}
			rule.Remove()
			must(t, do(f.Dir()))
		})
	}
}

func TestShortWriteThenError(t *testing.T) {
	f := mount(t)
	for name, errno := range map[string]syscall.Errno{"short count": 0, "error": syscall.EIO} {
		t.Run(name, func(t *testing.T) {
			file := create(t, filepath.Join(f.Dir(), "file"))
			rule := inject(t, f, faultfs.Rule{Path: "file", Op: faultfs.OpWrite, Short: 600, Errno: errno})
			n, err := syscall.Write(int(file.Fd()), []byte(strings.Repeat("x", 1000)))
			if errno == 0 && (n != 600 || err != nil) || errno != 0 && !errors.Is(err, errno) {
				t.Errorf("got %d, %v", n, err)
			}
			rule.Remove()
			if b, err := os.ReadFile(file.Name()); err != nil || string(b) != strings.Repeat("x", 600) {
				t.Errorf("the file holds %d bytes, %v", len(b), err)
			}
		})
	}
}

func TestHangUntilReleased(t *testing.T) {
	for name, release := range map[string]func(*faultfs.FS, *faultfs.Injection){
		"removed":   func(_ *faultfs.FS, i *faultfs.Injection) { i.Remove() },
		"power cut": func(f *faultfs.FS, _ *faultfs.Injection) { f.PowerCut() },
	} {
		t.Run(name, func(t *testing.T) {
			f := mount(t)
			file := create(t, filepath.Join(f.Dir(), "file"))
			rule := inject(t, f, faultfs.Rule{Path: "file", Op: faultfs.OpSync, Hang: true})
			done := make(chan error, 1)
			go func() { done <- file.Sync() }()
			wait(t, "the sync", rule.Hit())
			// Not this file: the kernel keeps writers out of a file that is being synced.
			write(t, create(t, filepath.Join(f.Dir(), "other")), "goes on")
			select {
			case err := <-done:
				t.Fatalf("the sync came back: %v", err)
			default:
			}
			release(f, rule)
			err := <-done
			if name == "removed" {
				must(t, err)
			} else {
				wantErrno(t, err, syscall.EIO)
			}
		})
	}
}

func TestBandwidth(t *testing.T) {
	f := mount(t)
	inject(t, f, faultfs.Rule{Op: faultfs.OpWrite, BytesPerSecond: 1 << 20})
	file := create(t, filepath.Join(f.Dir(), "file"))
	begin := time.Now()
	for range 4 {
		write(t, file, strings.Repeat("x", 64<<10))
	}
	if took := time.Since(begin); took < 240*time.Millisecond || took > testWait {
		t.Errorf("256 KiB at 1 MiB/s took %v", took)
	}
}

func TestDiskFull(t *testing.T) {
	f := mount(t)
	f.SetCapacity(1 << 20)
	file := create(t, filepath.Join(f.Dir(), "file"))
	n, err := io.Copy(file, io.LimitReader(zeros{}, 2<<20))
	wantErrno(t, err, syscall.ENOSPC)
	if n != 1<<20 {
		t.Errorf("%d bytes fit", n)
	}
	var st syscall.Statfs_t
	must(t, syscall.Statfs(f.Dir(), &st))
	if st.Bavail != 0 || st.Blocks*uint64(st.Bsize) != 1<<20 {
		t.Errorf("statfs says %d of %d blocks are free", st.Bavail, st.Blocks)
	}
	_, err = file.WriteAt([]byte("in place"), 0) // needs no room
	must(t, err)
	wantErrno(t, os.WriteFile(filepath.Join(f.Dir(), "more"), []byte("x"), 0o600), syscall.ENOSPC)
	must(t, file.Truncate(100))
	must(t, syscall.Statfs(f.Dir(), &st))
	if free := st.Bavail * uint64(st.Bsize); free != 1<<20-4096 {
		t.Errorf("%d bytes are free again", free)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestPowerCutByRule(t *testing.T) {
	for name, c := range map[string]struct {
		cut  faultfs.Cut
		want string
	}{
		"before the second sync": {faultfs.CutBefore, "1"},
		"after the second sync":  {faultfs.CutAfter, "12"},
	} {
		t.Run(name, func(t *testing.T) {
			f := mount(t)
			file := create(t, filepath.Join(f.Dir(), "file"))
			syncDir(t, f.Dir())
			inject(t, f, faultfs.Rule{Path: "file", Op: faultfs.OpSync, Nth: 2, Cut: c.cut})
			cut := f.WasCut()
			write(t, file, "1")
			must(t, file.Sync())
			write(t, file, "2")
			wantErrno(t, file.Sync(), syscall.EIO)
			wait(t, "the power cut", cut)
			must(t, file.Close())
			restore(t, f, faultfs.KeepNothing())
			b, err := os.ReadFile(file.Name())
			if err != nil || string(b) != c.want {
				t.Errorf("the file holds %q, %v", b, err)
			}
		})
	}
}

// TestReadFails: an unreadable sector is met although the page cache had it.
func TestReadFails(t *testing.T) {
	f := mount(t)
	name := filepath.Join(f.Dir(), "file")
	must(t, os.WriteFile(name, []byte("content"), 0o600))
	file, err := os.Open(name)
	must(t, err)
	defer file.Close()
	buf := make([]byte, 7)
	_, err = file.ReadAt(buf, 0)
	must(t, err)
	rule := inject(t, f, faultfs.Rule{Path: "file", Op: faultfs.OpRead})
	_, err = file.ReadAt(buf, 0)
	wantErrno(t, err, syscall.EIO)
	rule.Remove()
	_, err = file.ReadAt(buf, 0)
	must(t, err)
}
