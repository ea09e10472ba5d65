package faultfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"forebay/internal/faultfs"
)

const (
	// testWait bounds waiting for what must come.
	testWait = 20 * time.Second
	// workloadEnv names what the test binary does instead of testing, workloadDirEnv where.
	workloadEnv, workloadDirEnv = "FOREBAY_FAULTFS_WORKLOAD", "FOREBAY_FAULTFS_DIR"
)

// TestMain turns the test binary into the process that works in a mount: see the
// package comment for why it must be another one.
func TestMain(m *testing.M) {
	if name := os.Getenv(workloadEnv); name != "" {
		if err := workloads[name](os.Getenv(workloadDirEnv)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// mount mounts an empty file system for the test.
func mount(t *testing.T) *faultfs.FS {
	t.Helper()
	if os.Getenv("FOREBAY_E2E") == "" {
		t.Skip("needs FUSE and root: FOREBAY_E2E=1")
	}
	f, err := faultfs.Mount(t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// workload starts the test binary as a process that works in the mount.
func workload(t *testing.T, f *faultfs.FS, name string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), workloadEnv+"="+name, workloadDirEnv+"="+f.Dir())
	cmd.Stderr = &bytes.Buffer{}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// finish waits for a workload, which must come through.
func finish(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("the workload: %v: %s", err, cmd.Stderr)
	}
}

func inject(t *testing.T, f *faultfs.FS, r faultfs.Rule) *faultfs.Injection {
	t.Helper()
	i, err := f.Inject(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Remove)
	return i
}

func restore(t *testing.T, f *faultfs.FS, keep faultfs.Keep) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), testWait)
	defer cancel()
	if err := f.Restore(ctx, keep); err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, name string) *os.File {
	t.Helper()
	file, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, file *os.File, s string) {
	t.Helper()
	_, err := file.WriteString(s)
	must(t, err)
}

func syncDir(t *testing.T, dir string) {
	t.Helper()
	d, err := os.Open(dir)
	must(t, err)
	defer d.Close()
	must(t, d.Sync())
}

// tree reads everything below dir: names to contents, directories with a slash.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		rel := strings.TrimPrefix(strings.TrimPrefix(p, dir), "/")
		if err != nil || rel == "" {
			return err
		}
		if e.IsDir() {
			all[rel+"/"] = ""
			return nil
		}
		b, err := os.ReadFile(p)
		all[rel] = string(b)
		return err
	}))
	return all
}

func wantErrno(t *testing.T, err error, want syscall.Errno) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// wait waits for a channel to be closed.
func wait(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(testWait):
		t.Fatalf("%s: not after %v", what, testWait)
	}
}
