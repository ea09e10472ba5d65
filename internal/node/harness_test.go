package node

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/admin"
	"forebay/internal/config"
	"forebay/internal/record"
)

var update = flag.Bool("update", false, "write the golden files anew")

// patience bounds every wait of these tests.
const patience = 20 * time.Second

// place is where one node lives over its restarts, and what it is told.
type place struct {
	t   testing.TB
	dir string
	// brokers, topics and sinks (TOML) of its configuration; node and wal are further lines.
	brokers, topics []string
	sinks           string
	node, wal       string
	stopTimeout     time.Duration
	snapshotBytes   int64 // 0: the default
	machine         machine
	stdout          io.Writer
}

func newPlace(t testing.TB, b *broker, topics ...string) *place {
	t.Helper()
	p := &place{t: t, dir: t.TempDir(), topics: topics, stopTimeout: patience, machine: thisMachine(), stdout: io.Discard}
	p.machine.lockWait, p.machine.serveWait = 0, 0
	p.brokers = []string{"127.0.0.1:1"} // nobody
	if b != nil {
		p.brokers = b.k.ListenAddrs()
	}
	p.sinks = p.fileSink("files", "")
	return p
}

func (p *place) path(name string) string { return filepath.Join(p.dir, name) }

// fileSink is a file sink in TOML, with more lines of the sink's own table.
func (p *place) fileSink(name, more string) string {
	return fmt.Sprintf("[sinks.%s]\n%s\n[sinks.%s.file]\ndir = %q\nencoding = \"utf8\"\n", name, more, name, p.path(name))
}

func (p *place) config() *config.File {
	p.t.Helper()
	text := fmt.Sprintf(`[node]
dataDir = %q
http = "127.0.0.1:0"
%s
[wal]
minFree = "1MiB"
retention = "1h"
%s
[receiver]
blockInterval = "2ms"
[receiver.kafka]
brokers = [%s]
topics = [%s]
metadataRefresh = "100ms"
[batch]
interval = "100ms"
%s`, p.path("data"), p.node, p.wal, quoted(p.brokers), quoted(p.topics), p.sinks)
	f, err := Parse(p.path("forebay.toml"), []byte(text))
	if err != nil {
		p.t.Fatal(err)
	}
	f.Node.StopTimeout = config.Duration(p.stopTimeout)
	if p.snapshotBytes > 0 {
		f.WAL.SnapshotBytes = config.Size(p.snapshotBytes)
	}
	return f
}

func quoted(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = fmt.Sprintf("%q", s)
	}
	return strings.Join(out, ", ")
}

// running is a node at work.
type running struct {
	*Node
	t      testing.TB
	logs   *logs
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // once ended
}

// start starts a node here; the end of the test ends it.
func (p *place) start() *running {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{t: p.t, logs: &logs{}, cancel: cancel, ended: make(chan struct{})}
	r.Node = newNode(Options{Config: p.config(), Logger: slog.New(slog.NewTextHandler(r.logs, nil)), Stdout: p.stdout}, p.machine)
	go func() {
		defer close(r.ended)
		r.err = r.run(ctx)
	}()
	p.t.Cleanup(func() {
		cancel()
		<-r.ended
		if p.t.Failed() {
			p.t.Logf("log of a node:\n%s", r.logs)
		}
	})
	return r
}

// up starts a node and waits until it is ready.
func (p *place) up() *running {
	p.t.Helper()
	r := p.start()
	await(p.t, "the node to be ready", func() bool { return len(r.Ready()) == 0 }, func() any { return r.Ready() })
	return r
}

// awaitLead waits until the node leads: its state is what the log says then,
// whether there is a Kafka or not.
func (r *running) awaitLead() {
	r.t.Helper()
	await(r.t, "the lead", func() bool { _, lead := r.view(); return lead != nil })
}

// end waits for the node to end, and gives why it did.
func (r *running) end() error {
	r.t.Helper()
	select {
	case <-r.ended:
		return r.err
	case <-time.After(patience):
		r.t.Fatal("the node did not end")
		return nil
	}
}

// stop stops the node gracefully, which must succeed.
func (r *running) stop() {
	r.t.Helper()
	r.cancel()
	if err := r.end(); err != nil {
		r.t.Fatalf("a graceful stop ended with: %v", err)
	}
}

// lane0 is lane 0 of the status, empty while there is none.
func (r *running) lane0() admin.Lane {
	if s := r.Status(); len(s.Lanes) > 0 {
		return s.Lanes[0]
	}
	return admin.Lane{}
}

func (r *running) sink(name string) admin.Sink {
	for _, s := range r.lane0().Sinks {
		if s.Name == name {
			return s
		}
	}
	return admin.Sink{}
}

// awaitNext waits until the log has all of a partition below next.
func (r *running) awaitNext(topic string, partition int32, next int64) {
	r.t.Helper()
	await(r.t, fmt.Sprintf("%s/%d to be taken in up to %d", topic, partition, next), func() bool {
		for _, p := range r.lane0().Partitions {
			if p.Topic == topic && p.Partition == partition {
				return p.Next >= next
			}
		}
		return false
	}, func() any { return r.lane0() })
}

// awaitDelivered waits until a sink has so many records in batches.
func (r *running) awaitDelivered(sink string, records int64) {
	r.t.Helper()
	await(r.t, fmt.Sprintf("%d records delivered to %s", records, sink), func() bool {
		var done int64
		for _, b := range r.batches() {
			for _, s := range b.Sinks {
				if s.Name == sink && s.State == "done" {
					done += b.Records
				}
			}
		}
		return done >= records
	}, func() any { return r.batches() })
}

func (r *running) awaitSink(name, state string) admin.Sink {
	r.t.Helper()
	await(r.t, fmt.Sprintf("sink %s to be %s", name, state), func() bool { return r.sink(name).State == state }, func() any { return r.sink(name) })
	return r.sink(name)
}

// batches are all that the log holds, newest first.
func (r *running) batches() []admin.Batch {
	page, err := r.Batches(0, 0, 1000)
	if err != nil && !errors.Is(err, admin.ErrNotLeader) {
		r.t.Error(err)
	}
	return page.Batches
}

// parked are the parked records, none while there is no log.
func (r *running) parked() []admin.Parked {
	list, err := r.Parked()
	if err != nil && !errors.Is(err, admin.ErrNotLeader) {
		r.t.Error(err)
	}
	return list
}

// gaps are recorded and pending ones, none while there is no log.
func (r *running) gaps() []admin.Gap {
	list, err := r.Gaps()
	if err != nil && !errors.Is(err, admin.ErrNotLeader) {
		r.t.Error(err)
	}
	return list
}

// mustFail starts a node that must end with an error of these words.
func (p *place) mustFail(words ...string) error {
	p.t.Helper()
	r := p.start()
	err := r.end()
	if err == nil {
		p.t.Fatal("the node ended without an error")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			p.t.Errorf("the error does not say %q: %v", w, err)
		}
	}
	return err
}

// await polls until ok; state tells, in a failure, how things stood.
func await(t testing.TB, what string, ok func() bool, state ...func() any) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			text := ""
			for _, s := range state {
				text += fmt.Sprintf("\n%+v", s())
			}
			t.Fatalf("waited in vain: %s%s", what, text)
		}
	}
}

// logs is a log that a test can read while it is written.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// lines gives the lines that hold all of the words.
func (l *logs) lines(words ...string) []string {
	var found []string
	for line := range strings.Lines(l.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			found = append(found, line)
		}
	}
	return found
}

// values reads what the default file sink has, in order.
func (p *place) values(dir string) []string {
	p.t.Helper()
	names, err := filepath.Glob(filepath.Join(p.path(dir), "batch-*.jsonl"))
	if err != nil {
		p.t.Fatal(err)
	}
	var values []string
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			p.t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			_, value, _ := strings.Cut(line, `"value":"`)
			value, _, _ = strings.Cut(value, `"`)
			values = append(values, value)
		}
	}
	return values
}

// wantValues checks that a file sink has these values in this order.
func (p *place) wantValues(dir string, want []string) {
	p.t.Helper()
	if diff := cmp.Diff(want, p.values(dir)); diff != "" {
		p.t.Errorf("%s (-want +got):\n%s", dir, diff)
	}
}

// golden compares text with a file in testdata.
func golden(t testing.TB, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func batchID(seq uint64) record.BatchID { return record.BatchID{Seq: seq} }

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
