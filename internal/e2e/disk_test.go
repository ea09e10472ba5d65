package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"forebay/internal/e2e/kafka"
)

// cannot skips a test that lacks something of the machine, and fails it where the
// whole suite was asked for.
func cannot(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv(kafka.Require) != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf("skipped: "+format, args...)
}

// smallDisk mounts an ext4 of its own for the test. It takes root.
func smallDisk(t *testing.T, bytes int64) (dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		cannot(t, "a small disk is a loop mount, which takes root")
	}
	image := filepath.Join(t.TempDir(), "disk")
	dir = t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, bytes); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"mkfs.ext4", "-q", "-m", "0", image},
		{"mount", "-o", "loop", image, dir},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			cannot(t, "a small disk needs loop mounts, and %s says: %v %s", args[0], err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	return dir
}

func free(t *testing.T, dir string) int64 {
	t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	return int64(s.Bavail) * s.Bsize
}

// ballast leaves so much space on a disk, and gives what takes the ballast away.
func ballast(t *testing.T, dir string, leave int64) (remove func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const last = 1 << 20 // the file's own blocks take some of the space too
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, free(t, dir)-max(leave, last)); err != nil {
		t.Fatal(err)
	}
	for leave == 0 {
		if _, err := f.WriteAt(make([]byte, 512), mustSize(t, f)); err != nil {
			break // to the last byte
		}
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

func mustSize(t *testing.T, f *os.File) int64 {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// FAULTS row 16: on a disk that is nearly full the intake pauses, says why, and
// keeps its place in the group; it goes on by itself when there is room, and
// nothing is lost.
func TestADiskNearlyFullPausesTheIntake(t *testing.T) {
	disk := smallDisk(t, 256<<20)
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 2)
	s := b.settings(topic)
	s.dataDir = filepath.Join(disk, "data")
	s.wal = `minFree = "40MiB"`
	s.kafka = `sessionTimeout = "6s"`
	g := newGateway(t, s)
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, 18)
	p.send(t.Context(), 500, mixed)
	o.delivered(30 * time.Second)
	if out, errs, code := g.command("sinks", "pause", "files"); code != 0 {
		t.Fatalf("sinks pause exits %d: %s%s", code, out, errs)
	}
	remove := ballast(t, disk, 60<<20)
	member, generation := b.member(g.settings.group), g.generation()
	held := func() bool { return g.lane().Intake.HeldBy == "wal.minFree" }
	for sent := 0; !held(); sent++ {
		if sent > 200 {
			t.Fatalf("the intake was never held:\n%s", g.show())
		}
		p.send(t.Context(), 20, heavy)
	}
	p.send(t.Context(), 1000, heavy) // more than there is room for
	low := free(t, disk)
	// Longer than a member that is not heard of stays in the group.
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		if now := b.member(g.settings.group); now != member {
			t.Fatalf("the group was %q, now it is %q", member, now)
		}
		low = min(low, free(t, disk))
		if !held() {
			t.Fatalf("the intake went on at %d MiB free:\n%s", free(t, disk)>>20, g.show())
		}
		<-tick.C
	}
	t.Logf("held at %d MiB free", low>>20)
	if low < 16<<20 {
		t.Errorf("the disk went down to %d MiB free, far below wal.minFree", low>>20)
	}
	remove()
	await(t, "the intake to go on", 10*time.Second, func() bool { return g.lane().Intake.HeldBy == "" }, g.show)
	if now := g.generation(); now != generation {
		t.Errorf("%v sessions of the group, before %v: it rebalanced", now, generation)
	}
	if out, errs, code := g.command("sinks", "resume", "files"); code != 0 {
		t.Fatalf("sinks resume exits %d: %s%s", code, out, errs)
	}
	o.delivered(time.Minute)
	o.acknowledged(p)
	g.stop()
	o.judge()
}

// A log at its limit pauses the intake and goes on by itself when a sink has
// taken what it held.
func TestALogAtItsLimitPausesTheIntake(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 2)
	s := b.settings(topic)
	s.wal = `maxBytes = "64MiB"
compression = "none"`
	g := newGateway(t, s)
	g.up()
	o := newOracle(g, b, topic)
	o.pruned = true
	p := b.producer(topic, 34)
	p.send(t.Context(), 20, heavy)
	o.delivered(30 * time.Second)
	if out, errs, code := g.command("sinks", "pause", "files"); code != 0 {
		t.Fatalf("sinks pause exits %d: %s%s", code, out, errs)
	}
	p.send(t.Context(), 4000, heavy) // some 100 MB
	await(t, "the intake to be held", 30*time.Second, func() bool { return g.lane().Intake.HeldBy == "wal.maxBytes" }, g.show)
	if bytes := g.lane().Log.Bytes; bytes > 72<<20 {
		t.Errorf("the log holds %d MiB, its limit is 64 MiB", bytes>>20)
	}
	g.kill9()
	g.up()
	await(t, "the intake to be held after a restart", 30*time.Second, func() bool { return g.lane().Intake.HeldBy == "wal.maxBytes" }, g.show)
	if out, errs, code := g.command("sinks", "resume", "files"); code != 0 {
		t.Fatalf("sinks resume exits %d: %s%s", code, out, errs)
	}
	o.delivered(2 * time.Minute)
	o.acknowledged(p)
	t.Logf("peak memory %d MiB", g.peakMemory()>>20)
	g.stop()
	o.judge()
}

// With an interval of hours a log that is full of what is open does not wait for the boundary.
func TestAFullLogIsCutBeforeItsBoundary(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 2)
	s := b.settings(topic)
	s.wal = `maxBytes = "64MiB"
compression = "none"`
	s.batch = `interval = "24h"`
	g := newGateway(t, s)
	g.up()
	o := newOracle(g, b, topic)
	o.pruned = true
	p := b.producer(topic, 48)
	p.send(t.Context(), 3000, heavy) // some 150 MB
	o.truth.update()
	o.caughtUp(time.Minute) // only a cut makes room for all of it
	g.kill9()
	g.settings.batch = "" // what is open now need not wait for tomorrow
	g.configure()
	g.up()
	o.delivered(time.Minute)
	o.acknowledged(p)
	t.Logf("%d batches", len(o.shelf.books))
	g.stop()
	o.judge()
}

// heavy makes records of some 50 KB, half of which compress.
func heavy(random *rand.Rand) *kgo.Record { return &kgo.Record{Value: data(random, 50_000)} }

// generation counts the sessions of this process in its group.
func (g *gateway) generation() float64 {
	g.t.Helper()
	n, err := g.metric(g.t.Context(), "forebay_receiver_sessions_total")
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

// member tells the group's state and its members.
func (b *broker) member(group string) string {
	b.t.Helper()
	described, err := b.admin.DescribeGroups(b.t.Context(), group)
	if err != nil {
		b.t.Fatal(err)
	}
	text := described[group].State
	for _, m := range described[group].Members {
		text += " " + m.MemberID
	}
	return text
}

// A disk that others have filled to its last byte, under load: the process may
// end or pause, but says why; with room again it goes on, and nothing is lost.
func TestADiskFilledByOthers(t *testing.T) {
	disk := smallDisk(t, 256<<20)
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 2)
	s := b.settings(topic)
	s.dataDir = filepath.Join(disk, "data")
	s.wal = `minFree = "40MiB"`
	g := newGateway(t, s)
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, 19)
	ctx, cancel := context.WithCancel(t.Context())
	wait := p.stream(ctx, 3000, mixed)
	await(t, "some batches", 30*time.Second, func() bool { o.shelf.look(t); return len(o.shelf.books) >= 3 })
	remove := ballast(t, disk, 0)
	ended := false
	await(t, "the full disk to be noticed", 20*time.Second, func() bool {
		select {
		case <-g.run.done:
			ended = true
		default:
		}
		return ended || g.lane().Intake.HeldBy == "wal.minFree"
	}, g.show)
	t.Logf("the process ended: %t", ended)
	if ended {
		if code := g.exit(time.Second); code != 1 {
			t.Errorf("exit code %d, want 1", code)
		}
		if !strings.Contains(g.log(), "no space left") {
			t.Error("it does not say that there is no space left")
		}
	} else {
		g.kill9()
	}
	cancel()
	wait()
	// What it lost of what was acknowledged it could not read again.
	o.truth.update()
	b.deleteBelow(b.committed(g.settings.group))
	// A start on the full disk: either it says that the disk is full and ends,
	// or it runs by its reserve and holds the intake.
	g.start()
	await(t, "the start on a full disk to be decided", 20*time.Second, func() bool {
		select {
		case <-g.run.done:
			ended = true
			return true
		default:
			ended = false
			return g.lane().Intake.HeldBy == "wal.minFree"
		}
	}, g.show)
	t.Logf("started on the full disk; ended: %t", ended)
	remove()
	if ended {
		t.Errorf("exit code %d on a full disk although there was a reserve", g.exit(time.Second))
		g.start()
	}
	g.ready(30 * time.Second)
	o.delivered(time.Minute)
	o.acknowledged(p)
	g.stop()
	o.judge()
	if out, errs, code := g.command("wal", "verify", "--data-dir", g.dataDir()); code != 0 {
		t.Errorf("wal verify exits %d:\n%s%s", code, out, errs)
	}
}

// A first start on a disk with no room says so, in words.
func TestADiskFullAtTheFirstStart(t *testing.T) {
	disk := smallDisk(t, 64<<20)
	remove := ballast(t, disk, 0)
	s := away(t)
	s.dataDir = filepath.Join(disk, "data")
	g := newGateway(t, s)
	g.fails(1, "no space left on device", disk)
	remove()
	g.start()
	g.unready(s.brokers[0])
	g.stop()
}

// A data directory that cannot be written says so, in words.
func TestAReadOnlyDisk(t *testing.T) {
	disk := smallDisk(t, 64<<20)
	s := away(t)
	s.dataDir = filepath.Join(disk, "data")
	s.wal = `minFree = 0`
	g := newGateway(t, s)
	g.start()
	g.unready(s.brokers[0])
	g.stop()
	remount := func(how string) {
		t.Helper()
		if out, err := exec.Command("mount", "-o", "remount,"+how, disk).CombinedOutput(); err != nil {
			t.Fatal(fmt.Errorf("remount: %w %s", err, out))
		}
	}
	remount("ro")
	g.fails(1, "read-only file system", g.dataDir())
	remount("rw")
	g.start()
	g.unready(s.brokers[0])
	g.stop()
}
