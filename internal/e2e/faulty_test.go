package e2e_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forebay/internal/faultfs"
)

// faulty is a gateway whose log and whose files lie on a disk that a test can make
// fail, hang or forget, with its oracle and a producer.
type faulty struct {
	*oracle
	disk *faultfs.FS
	p    *producer
}

// faultyDisk mounts a disk that fails as it is told; it takes root and /dev/fuse.
func faultyDisk(t *testing.T) (disk *faultfs.FS, dir string) {
	t.Helper()
	dir = t.TempDir()
	disk, err := faultfs.Mount(t.TempDir(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := disk.Close(); err != nil {
			t.Error(err)
		}
	})
	return disk, dir
}

// newFaulty mounts the disk and configures the
// gateway; it does not start it. More are further lines of [wal].
func newFaulty(t *testing.T, seed uint64, wal string) *faulty {
	t.Helper()
	b := newBroker(t, sharedKafka(t))
	disk, dir := faultyDisk(t)
	topic := b.topic("t", 3)
	s := b.settings(topic)
	s.dataDir, s.files, s.wal = filepath.Join(dir, "data"), filepath.Join(dir, "files"), wal
	g := newGateway(t, s)
	f := &faulty{oracle: newOracle(g, b, topic), disk: disk, p: b.producer(topic, seed)}
	f.pruned = true
	return f
}

// inject puts a rule to work until the test ends, or what is returned is called.
func (f *faulty) inject(r faultfs.Rule) *faultfs.Injection {
	f.t.Helper()
	i, err := f.disk.Inject(r)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(i.Remove)
	return i
}

// powerBack ends a power cut (which it makes if there was none): the process is gone, and
// of what was not synced only what keep says is left.
func (f *faulty) powerBack(keep faultfs.Keep) {
	f.t.Helper()
	if f.g.powerless == nil {
		f.g.powerless = map[int]bool{}
	}
	f.g.powerless[f.g.runs] = true
	f.disk.PowerCut()
	f.g.kill9()
	ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
	defer cancel()
	if err := f.disk.Restore(ctx, keep); err != nil {
		f.t.Fatal(err)
	}
}

// endedByItself fails the test when the process ended and nobody had cut the power.
func (f *faulty) endedByItself(cut <-chan struct{}) {
	f.t.Helper()
	select {
	case <-cut:
	default:
		f.t.Fatalf("the gateway ended by itself with exit code %d", f.g.run.code)
	}
}

// ends waits for the process to end because of a fault, with exit code 1 and these
// words in its last line.
func (f *faulty) ends(within time.Duration, words ...string) {
	f.t.Helper()
	if code := f.g.exit(within); code != 1 {
		f.t.Errorf("exit code %d, want 1", code)
	}
	said := f.g.log()
	said = said[strings.LastIndex(said, startLine):]
	i := strings.LastIndex(said, "forebay ends")
	if i < 0 {
		f.t.Fatalf("it does not say why it ends:\n%s", said)
	}
	for _, word := range words {
		if !strings.Contains(said[i:], word) {
			f.t.Errorf("its last line does not say %q: %s", word, said[i:])
		}
	}
}

// forget deletes from Kafka all that was acknowledged, while the gateway is down:
// what it has lost of that, it cannot read again.
func (f *faulty) forget() {
	f.t.Helper()
	f.truth.update() // before it goes
	f.b.deleteBelow(f.b.committed(f.g.settings.group))
}

// finish starts the gateway for the last time, and judges everything.
func (f *faulty) finish() {
	f.t.Helper()
	f.g.up()
	f.delivered(time.Minute)
	f.acknowledged(f.p)
	var gaps []any
	f.g.ask(&gaps, "gaps", "list")
	if len(gaps) > 0 {
		f.t.Errorf("gaps: %v", gaps)
	}
	f.g.stop()
	f.judge()
	if out, errs, code := f.g.command("wal", "verify", "--data-dir", f.g.dataDir()); code != 0 {
		f.t.Errorf("wal verify exits %d:\n%s%s", code, out, errs)
	}
	f.t.Logf("%d records in %d batches, %d starts", f.shelf.got.count(), len(f.shelf.books), f.g.runs)
}

// keeps are what may become of what was not synced, in turn.
func keeps(round int, seed uint64) faultfs.Keep {
	return []faultfs.Keep{
		faultfs.KeepNothing(), faultfs.KeepTorn(seed), faultfs.KeepPrefix(seed), faultfs.KeepAll(),
	}[round%4]
}
