package wal

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"github.com/tidwall/wal"
	"golang.org/x/sys/unix"
)

// A process whose files may not grow beyond a limit has its writes taken in part, as
// those to a full disk are: for real, the library's own as well.
const (
	limitedDirEnv = "FOREBAY_WAL_TEST_LIMITED" // our log
	bareDirEnv    = "FOREBAY_WAL_TEST_BARE"    // the bare library
	fileLimit     = 50_000
)

// limitFiles limits the size of this process's files, in bytes.
func limitFiles(limit uint64) {
	signal.Ignore(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: unix.RLIM_INFINITY}); err != nil {
		giveUp(err)
	}
}

func giveUp(err error) {
	fmt.Println(err)
	os.Exit(2)
}

// child runs this test binary as the process that env asks for, and scans what it prints.
func child(t *testing.T, env, dir string, results ...any) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), env+"="+dir)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := fmt.Sscan(string(out), results...); err != nil {
		t.Fatalf("the child said %q: %v", out, err)
	}
}

// writeUntilFull appends to our log until that fails, and once more.
func writeUntilFull(dir string) {
	limitFiles(fileLimit)
	cfg := testConfig(dir)
	cfg.SegmentSize = 1 << 20
	l, err := Open(cfg)
	if err != nil {
		giveUp(err)
	}
	for next := uint64(1); ; next++ {
		if err := l.StoreLog(testEntry(next, 1, 3000)); err != nil {
			again := l.StoreLog(testEntry(next, 1, 30))
			fmt.Println(next-1, errors.Is(err, syscall.EFBIG), errors.Is(again, err))
			os.Exit(0)
		}
	}
}

// writeBareUntilFull appends to a bare log until that fails, makes room, and goes
// on. It tells how many entries read as something else, and whether the log opens again.
func writeBareUntilFull(dir string) {
	limitFiles(fileLimit)
	options := &wal.Options{NoSync: true, AllowEmpty: true}
	w, err := wal.Open(dir, options)
	if err != nil {
		giveUp(err)
	}
	next := uint64(1)
	for ; w.Write(next, testEntry(next, 1, 3000).Data) == nil; next++ {
	}
	limitFiles(unix.RLIM_INFINITY)
	for range 5 {
		if err := w.Write(next, testEntry(next, 1, 3000).Data); err != nil {
			giveUp(err)
		}
		next++
	}
	wrong := 0
	for i := uint64(1); i < next; i++ {
		if data, err := w.Read(i); err != nil || string(data) != string(testEntry(i, 1, 3000).Data) {
			wrong++
		}
	}
	_ = w.Close()
	_, err = wal.Open(dir, options)
	fmt.Println(wrong, err == nil)
	os.Exit(0)
}

// TestFileSizeLimit makes the library's own write fail for real, part-way.
func TestFileSizeLimit(t *testing.T) {
	dir := t.TempDir()
	var acked uint64
	var tooBig, same bool
	child(t, limitedDirEnv, dir, &acked, &tooBig, &same)
	if !tooBig || !same || acked < 10 {
		t.Fatalf("acknowledged up to %d; failed for the size: %t; the same error again: %t", acked, tooBig, same)
	}
	cfg := testConfig(dir)
	l := mustOpen(t, cfg)
	wantEntries(t, l, 1, acked, 1, 3000)
	if l.Stats().TornBytes == 0 {
		t.Fatal("the write that failed left nothing: it did not fail part-way")
	}
}
