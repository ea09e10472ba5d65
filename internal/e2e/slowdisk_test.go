package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"forebay/internal/faultfs"
)

// sockets counts the TCP sockets that a process has open, by asking the kernel.
func sockets(t *testing.T, pid int) int {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	names, err := os.ReadDir(dir)
	if err != nil {
		return 0 // it is gone
	}
	open := map[string]bool{}
	for _, name := range names {
		if target, err := os.Readlink(dir + "/" + name.Name()); err == nil && strings.HasPrefix(target, "socket:[") {
			open[strings.Trim(target, "socket:[]")] = true
		}
	}
	n := 0
	for _, table := range []string{"tcp", "tcp6"} {
		f, err := os.Open("/proc/net/" + table)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if fields := strings.Fields(lines.Text()); len(fields) > 9 && open[fields[9]] {
				n++
			}
		}
	}
	return n
}

// FAULTS row 18: a disk that hangs. Within wal.stallTimeout the process closes all its
// sockets, says why and ends; where the kernel keeps what is left of it, a successor waits for the
// lock and exits 75; once the disk answers, it goes on.
func TestADiskThatHangs(t *testing.T) {
	f := newFaulty(t, 45, `stallTimeout = "2s"`)
	for _, op := range []faultfs.Op{faultfs.OpSync, faultfs.OpWrite} {
		f.hangs(faultfs.Rule{Path: "**/lanes/0/log/*", Op: op, Hang: true})
	}
	f.finish()
}

// hangs starts the gateway and lets its disk hang under load, until it is gone.
func (f *faulty) hangs(rule faultfs.Rule) {
	f.t.Helper()
	f.g.up()
	ctx, cancel := context.WithCancel(f.t.Context())
	wait := f.p.stream(ctx, 2000, mixed)
	had := len(f.shelf.books)
	await(f.t, "some batches", 30*time.Second, func() bool { f.shelf.look(f.t); return len(f.shelf.books) >= had+3 })
	pid, logged := f.g.run.cmd.Process.Pid, len(f.g.log())
	if n := sockets(f.t, pid); n < 2 {
		f.t.Fatalf("%d sockets", n)
	}
	hang := f.inject(rule)
	<-hang.Hit()
	at := time.Now()
	await(f.t, "the reason", 10*time.Second, func() bool {
		return strings.Contains(f.g.log()[logged:], "has not answered within wal.stallTimeout (2s)")
	})
	await(f.t, "the sockets to be closed", 2*time.Second, func() bool { return sockets(f.t, pid) == 0 })
	if took := time.Since(at); took > 4*time.Second {
		f.t.Errorf("took %s, wal.stallTimeout is 2s", took)
	}
	f.t.Logf("%v hangs: sockets closed after %s", rule.Op, time.Since(at).Round(time.Millisecond))
	next := newGateway(f.t, f.g.settings)
	next.fails(75, "in use", f.g.dataDir())
	hang.Remove()
	if code := f.g.exit(5 * time.Second); code != 1 {
		f.t.Errorf("exit code %d, want 1", code)
	}
	cancel()
	wait()
	f.forget()
}

// FAULTS row 20: a disk of 5 MB/s. The intake slows down with it, keeps the lead, its place in
// the group and its memory, and loses nothing.
func TestASlowDisk(t *testing.T) {
	const rate = 5_000_000
	f := newFaulty(t, 46, `compression = "none"`)
	f.g.settings.node = `memory = "128MiB"`
	f.g.configure()
	f.g.up()
	f.p.send(t.Context(), 100, mixed)
	f.delivered(30 * time.Second)
	rule := f.inject(faultfs.Rule{Path: "**/data/**", Op: faultfs.OpWrite, BytesPerSecond: rate})
	member, generation, before := f.b.member(f.g.settings.group), f.g.generation(), f.g.lane().Log.Bytes
	records := size(1000, 12_000)
	at := time.Now()
	f.p.send(t.Context(), records, heavy) // some 50 KB each
	bytes := int64(records) * 50_000
	await(t, "all to be in the log", time.Duration(size(2, 10))*time.Minute, func() bool {
		f.g.alive()
		return f.g.lane().Log.Bytes-before >= bytes
	}, f.g.show)
	took := time.Since(at)
	speed := float64(bytes) / took.Seconds()
	t.Logf("%.1f MB/s, peak memory %d MiB", speed/1e6, f.g.peakMemory()>>20)
	if speed > 1.2*rate || speed < 0.5*rate {
		t.Errorf("%.1f MB/s on a disk of 5 MB/s", speed/1e6)
	}
	if now := f.b.member(f.g.settings.group); now != member || f.g.generation() != generation {
		t.Errorf("the group was %q, now it is %q", member, now)
	}
	if peak := f.g.peakMemory(); peak > 256<<20 {
		t.Errorf("peak memory %d MiB", peak>>20)
	}
	rule.Remove()
	f.delivered(time.Minute)
	f.g.kill9()
	f.forget()
	f.finish()
}
