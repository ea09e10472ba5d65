package e2e_test

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"forebay/internal/faultfs"
)

// FAULTS row 17: an error of the disk, wherever the log writes or syncs: that block is
// never acknowledged, the process ends with a clear error, and the next start goes on.
func TestDiskErrorsEndTheProcess(t *testing.T) {
	f := newFaulty(t, 42, `retention = "1s"
snapshotBytes = "1MiB"
compression = "none"`)
	const log = "**/lanes/0/log/*"
	cases := []struct {
		name    string
		rule    faultfs.Rule
		atStart bool // the rule is there before the process is
		words   []string
	}{
		{"write to a segment", faultfs.Rule{Path: log, Op: faultfs.OpWrite, Errno: syscall.EIO}, false, []string{"input/output error", "lanes/0/log"}},
		{"half a write to a segment", faultfs.Rule{Path: log, Op: faultfs.OpWrite, Short: 5000, Errno: syscall.ENOSPC}, false, []string{"no space left", "lanes/0/log"}},
		{"sync of a segment", faultfs.Rule{Path: log, Op: faultfs.OpSync, Errno: syscall.EIO}, false, []string{"input/output error", "lanes/0/log"}},
		{"a new segment", faultfs.Rule{Path: log, Op: faultfs.OpCreate, Errno: syscall.ENOSPC}, false, []string{"no space left", "lanes/0/log"}},
		{"sync of the directory", faultfs.Rule{Path: "**/lanes/0/log", Op: faultfs.OpSyncDir, Errno: syscall.EIO}, false, []string{"input/output error", "lanes/0/log"}},
		{"write of the mark", faultfs.Rule{Path: "mark", Op: faultfs.OpWrite, Errno: syscall.EIO}, false, []string{"input/output error", "mark"}},
		{"write to the manifest", faultfs.Rule{Path: "**/lanes/0/segments", Op: faultfs.OpWrite, Errno: syscall.EIO}, false, []string{"input/output error", "segments"}},
		{"removal of a segment", faultfs.Rule{Path: log, Op: faultfs.OpUnlink, Errno: syscall.EIO}, false, []string{"input/output error", "lanes/0"}},
		{"write to stable.db", faultfs.Rule{Path: "stable.db", Op: faultfs.OpWrite, Errno: syscall.EIO}, true, []string{"input/output error", "stable.db"}},
		{"sync of stable.db", faultfs.Rule{Path: "stable.db", Op: faultfs.OpSync, Errno: syscall.EIO}, true, []string{"input/output error", "stable.db"}},
	}
	f.g.up()
	f.delivered(30 * time.Second)
	f.g.stop()
	ctx, cancel := context.WithCancel(t.Context())
	wait := f.p.stream(ctx, 400, heavy)
	for _, c := range cases {
		t.Log(c.name)
		var rule *faultfs.Injection
		if c.atStart {
			rule = f.inject(c.rule)
			f.g.start()
		} else {
			f.g.up()
			rule = f.inject(c.rule)
		}
		f.ends(20*time.Second, c.words...)
		if rule.Hits() == 0 {
			t.Errorf("%s: was not met", c.name)
		}
		rule.Remove()
	}
	cancel()
	wait()
	f.forget()
	f.finish()
}

// Snapshots and files of a sink that cannot be written end nothing: both are made again.
func TestDiskErrorsThatAreTriedAgain(t *testing.T) {
	f := newFaulty(t, 43, `retention = "1s"
snapshotBytes = "1MiB"
compression = "none"`)
	ctx, cancel := context.WithCancel(t.Context())
	wait := f.p.stream(ctx, 400, heavy)
	f.g.up()
	const snapshots, files = "**/lanes/0/snapshots/*", "**/files/*"
	for _, c := range []struct {
		name, path string
		op         faultfs.Op
		errno      syscall.Errno
		words      string
		slow       bool // a snapshot is tried again after 10 s
	}{
		{"write of a file", files, faultfs.OpWrite, syscall.ENOSPC, "sink failed, trying again", false},
		{"sync of a file", files, faultfs.OpSync, syscall.EIO, "sink failed, trying again", false},
		{"publishing a file", files, faultfs.OpRename | faultfs.OpLink, syscall.EIO, "sink failed, trying again", false},
		{"sync of the directory of files", "**/files", faultfs.OpSyncDir, syscall.EIO, "sink failed, trying again", false},
		{"sync of a snapshot", snapshots, faultfs.OpSync, syscall.EIO, "snapshot failed", false},
		{"write of a snapshot", snapshots, faultfs.OpWrite, syscall.ENOSPC, "snapshot failed", true},
		{"name of a snapshot", snapshots, faultfs.OpRename, syscall.EIO, "snapshot failed", true},
	} {
		if c.slow && !soak() {
			continue
		}
		before := len(f.g.log())
		rule := f.inject(faultfs.Rule{Path: c.path, Op: c.op, Errno: c.errno, Times: 1})
		await(t, c.name+" to fail", 30*time.Second, func() bool {
			f.g.alive()
			return rule.Hits() > 0 && strings.Contains(f.g.log()[before:], c.words)
		}, f.g.show)
		rule.Remove()
	}
	cancel()
	wait()
	f.delivered(time.Minute)
	f.g.kill9()
	f.forget()
	f.finish()
}

// The disk fails at any operation, in any way, under load, again and again: nothing that failed is
// acknowledged, nothing acknowledged is lost, and each start goes on.
func TestTheDiskFailsAtRandom(t *testing.T) {
	f := newFaulty(t, 44, `retention = "1s"
snapshotBytes = "1MiB"
compression = "none"`)
	random := newRandom(t)
	ends := 0
	for range size(6, 80) {
		ctx, cancel := context.WithCancel(t.Context())
		wait := f.p.stream(ctx, 400, heavy)
		rule := faultfs.Rule{
			Path: "**/data/lanes/**", Op: faultfs.OpChange | faultfs.OpSync | faultfs.OpSyncDir,
			Nth: 1 + random.IntN(200), Probability: 0.05, Seed: random.Uint64(),
			Errno: []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EDQUOT}[random.IntN(3)],
		}
		if random.IntN(2) == 0 {
			rule.Short = 1 + random.IntN(20_000)
		}
		injection := f.inject(rule)
		f.g.start()
		select {
		case <-f.g.run.done:
			ends++
			if code := f.g.exit(time.Second); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
		case <-time.After(5 * time.Second): // perhaps what failed was made again
			f.g.kill9()
		}
		injection.Remove()
		cancel()
		wait()
		f.forget()
	}
	t.Logf("%d times the process ended by itself", ends)
	f.finish()
}
