package bench

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"forebay/internal/admin"
	"forebay/internal/record"
	"forebay/replicate"
)

// gateway is the program with a data directory, beside an embedded Kafka with an empty topic.
type gateway struct {
	program, config string
	dir, data, lane string
	node, name      string
	client          *admin.Client
}

// newGateway makes the directory with the program itself: its lane is formed, its sink is
// there and paused, and it has been stopped.
func newGateway(t *testing.T) *gateway {
	t.Helper()
	dir := t.TempDir()
	g := &gateway{
		program: filepath.Join(dir, "forebay"), config: filepath.Join(dir, "forebay.toml"), dir: dir,
		data: filepath.Join(dir, "data"), lane: filepath.Join(dir, "data", "lanes", "0"), name: "bench",
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", g.program, "forebay/cmd/forebay").CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, topic), kfake.GroupMinSessionTimeout(time.Second),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	address := freeAddress(t)
	g.client = admin.NewClient(address, "")
	text := fmt.Sprintf("[node]\ngateway = %q\ndataDir = %q\nhttp = %q\n[wal]\nmaxBytes = \"40GiB\"\nminFree = \"64MiB\"\n[receiver.kafka]\nbrokers = [%q]\ntopics = [%q]\n[sinks.files.file]\ndir = %q\nformat = \"raw\"\n",
		g.name, g.data, address, cluster.ListenAddrs()[0], topic, filepath.Join(dir, "files"))
	if err := os.WriteFile(g.config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	process, log := g.start(t)
	g.awaitReady(t, log)
	if err := g.client.PauseSink(t.Context(), "files", true); err != nil {
		t.Fatal(err)
	}
	if err := process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := process.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	g.node = nodeOf(t, g.data)
	return g
}

// start executes the program. What it logs can be read once it has ended.
func (g *gateway) start(t *testing.T) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	process := exec.CommandContext(t.Context(), g.program, "run", "-c", g.config)
	process.Stderr = log
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	return process, log
}

// awaitReady asks /-/ready until nothing is in the way.
func (g *gateway) awaitReady(t *testing.T, log *bytes.Buffer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for {
		reasons, err := g.client.Ready(ctx)
		if err == nil && len(reasons) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not ready: %v, %v\n%s", reasons, err, log.String())
		case <-poll.C:
		}
	}
}

// blockWriter appends blocks of 255 records of 1 KiB and cuts them into batches.
type blockWriter struct {
	ctx    context.Context
	t      *testing.T
	term   *replicate.Term
	id     record.TopicID
	sealer *record.Sealer
	value  []byte
	next   int64
}

func newBlockWriter(ctx context.Context, t *testing.T, term *replicate.Term) *blockWriter {
	t.Helper()
	w := &blockWriter{ctx: ctx, t: t, term: term, id: record.TopicID{1}, sealer: record.NewSealer(record.None), value: noise(1 << 10)}
	if err := term.SetBases(ctx, []record.Base{{Topic: "backlog", TopicID: w.id}}); err != nil {
		t.Error(err)
	}
	return w
}

// append appends count blocks, waits for them, and cuts a batch.
func (w *blockWriter) append(count int) {
	const perBlock = 255
	var run record.Run
	settled := make(chan error, count)
	for range count {
		run.Reset("backlog", w.id, 0, w.next)
		for range perBlock {
			if err := run.Append(&record.Record{Offset: w.next, Value: w.value}); err != nil {
				w.t.Error(err)
			}
			w.next++
		}
		if err := w.term.Append(w.ctx, w.sealer.Seal([]*record.Run{&run}), func(err error) { settled <- err }); err != nil {
			w.t.Error(err)
			return
		}
	}
	for range count {
		if err := <-settled; err != nil {
			w.t.Error(err)
		}
	}
	if err := w.term.Cut(w.ctx, w.term.LastSeq()+1, time.Now().UnixMilli()); err != nil {
		w.t.Error(err)
	}
}
