package e2e_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"forebay/internal/e2e/kafka"
	"forebay/internal/faultfs"
)

// The disk fails, or the power, at each change of a first start, when nothing is
// acknowledged yet: the process says why it ends, and the next start makes the
// directory its own as if nothing had been there.
func TestAFirstStartThatFailsAnywhere(t *testing.T) {
	if os.Getenv(kafka.Require) == "" {
		t.Skipf("skipped: a disk that fails needs FUSE and root: %s=1", kafka.Require)
	}
	random := newRandom(t)
	disk, dir := faultyDisk(t)
	s := away(t)
	s.dataDir, s.files = filepath.Join(dir, "data"), filepath.Join(dir, "files")
	g := newGateway(t, s)
	f := &faulty{oracle: &oracle{t: t, g: g}, disk: disk}
	up := func() bool {
		code, body := g.answer("/-/ready")
		return code == 503 && strings.Contains(body, s.brokers[0])
	}
	// A quick run takes every fifth change, another one each time.
	n, stride := 1+random.IntN(size(5, 1)), size(5, 1)
	for ; ; n += stride {
		rule := faultfs.Rule{Path: "**", Op: faultfs.OpChange | faultfs.OpSync | faultfs.OpSyncDir, Nth: n, Times: 1, Errno: syscall.EIO}
		if n/stride%2 == 0 {
			rule.Errno, rule.Cut = 0, faultfs.CutAfter
		}
		injection, cut := f.inject(rule), disk.WasCut()
		before := len(g.log())
		g.start()
		ended := func() bool {
			select {
			case <-g.run.done:
				return true
			default:
				return false
			}
		}
		await(t, "the start to end or to get through", 20*time.Second, func() bool {
			select {
			case <-cut:
				return true
			default:
				return ended() || up()
			}
		})
		hit := injection.Hits() > 0
		injection.Remove()
		switch {
		case rule.Cut != faultfs.NoCut && hit:
			f.powerBack(keeps(random.IntN(4), random.Uint64()))
		case ended():
			f.ends(time.Second, "input/output error", dir)
		default:
			g.kill9() // got through all the same, or further than that
		}
		if !hit {
			break
		}
		g.start()
		await(t, "the next start to get through", 20*time.Second, func() bool { g.alive(); return up() }, func() string { return g.log()[before:] })
		g.kill9()
		for _, name := range []string{s.dataDir, s.files} {
			if err := os.RemoveAll(name); err != nil {
				t.Fatal(err)
			}
		}
		if err := disk.Restore(context.Background(), faultfs.KeepAll()); err != nil { // all of it durable
			t.Fatal(err)
		}
	}
	t.Logf("%d starts; the last change is below the %d. one", g.runs, n)
	if n < 30 {
		t.Errorf("a first start took fewer than %d changes", n)
	}
}
