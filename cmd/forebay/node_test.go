package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"forebay/internal/admin"
	"forebay/internal/config"
	"forebay/internal/node"
	"forebay/internal/record"
)

// patience bounds every wait of these tests.
const patience = 30 * time.Second

// desk is an operator's: a node that runs or not, and commands.
type desk struct {
	t       *testing.T
	dir     string
	address string
	client  *admin.Client
	kafka   *kfake.Cluster
	cl      *kgo.Client
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "clicks"), kfake.GroupMinSessionTimeout(time.Second),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close(); cluster.Close() })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := &desk{t: t, dir: t.TempDir(), address: l.Addr().String(), kafka: cluster, cl: cl}
	d.client = admin.NewClient(d.address, "")
	return d
}

func (d *desk) path(name string) string { return filepath.Join(d.dir, name) }

func (d *desk) produce(partition int32, values ...string) {
	d.t.Helper()
	for i, v := range values {
		r := &kgo.Record{
			Topic: "clicks", Partition: partition, Key: []byte("k"), Value: []byte(v), Timestamp: time.UnixMilli(1_700_000_000_000 + int64(i)),
			Headers: []kgo.RecordHeader{{Key: "h", Value: []byte("v")}},
		}
		if err := d.cl.ProduceSync(d.t.Context(), r).FirstErr(); err != nil {
			d.t.Fatal(err)
		}
	}
}

// run starts the node with these sinks and waits until it is ready; stop ends it,
// and wants it to succeed.
func (d *desk) run(sinks string) (stop func()) {
	d.t.Helper()
	text := fmt.Sprintf(`[node]
dataDir = %q
http = %q
[wal]
minFree = "1MiB"
retention = "1h"
[receiver]
maxRate = 5000
[receiver.kafka]
brokers = [%q]
topics = ["clicks"]
[batch]
interval = "100ms"
%s`, d.path("data"), d.address, d.kafka.ListenAddrs()[0], sinks)
	if err := os.WriteFile(d.path("forebay.toml"), []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var log bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- (&program{out: new(bytes.Buffer), err: &log}).run(ctx, []string{"run", "-c", d.path("forebay.toml")})
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if code := <-ended; code != exitOK {
			d.t.Errorf("run ended with %d:\n%s", code, log.String())
		}
	})
	d.t.Cleanup(stop)
	d.await("the node to be ready", func() bool {
		reasons, err := d.client.Ready(d.t.Context())
		return err == nil && len(reasons) == 0
	})
	return stop
}

func (d *desk) await(what string, ok func() bool) {
	d.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			d.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// awaitSinks waits until every named sink is in the state, with its cursor at seq.
func (d *desk) awaitSinks(state string, seq uint64, names ...string) {
	d.t.Helper()
	for _, name := range names {
		d.await(fmt.Sprintf("sink %s to be %s at batch %d", name, state, seq), func() bool {
			status, err := d.client.Status(d.t.Context())
			if err != nil || len(status.Lanes) == 0 {
				return false
			}
			for _, s := range status.Lanes[0].Sinks {
				if s.Name == name {
					return s.State == state && s.Cursor == record.BatchID{Seq: seq}.String()
				}
			}
			return false
		})
	}
}

// command runs one command line against the node.
func (d *desk) command(line string) (out, errs string, code int) {
	d.t.Helper()
	var stdout, stderr bytes.Buffer
	args := strings.Fields(line)
	if !strings.Contains(line, "wal ") && !strings.Contains(line, "validate") {
		args = append(args, "--addr", d.address)
	}
	code = (&program{out: &stdout, err: &stderr}).run(d.t.Context(), args)
	return stdout.String(), stderr.String(), code
}

// transcript plays command lines and compares all that they print with a golden file.
func (d *desk) transcript(name string, lines ...string) {
	d.t.Helper()
	var b strings.Builder
	for _, line := range lines {
		out, errs, code := d.command(line)
		fmt.Fprintf(&b, "$ forebay %s\n%s%s", line, out, errs)
		if code != exitOK {
			fmt.Fprintf(&b, "exit code %d\n", code)
		}
		b.WriteString("\n")
	}
	got := d.plain(b.String())
	path := filepath.Join("testdata", "node", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			d.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		d.t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// plain replaces what is never twice the same, by something as long where the
// width of a column hangs on it.
func (d *desk) plain(text string) string {
	for _, r := range []struct{ pattern, by string }{
		{regexp.QuoteMeta(d.dir), "DIR"},
		{regexp.QuoteMeta(d.address), "ADDRESS"},
		{regexp.QuoteMeta(d.kafka.ListenAddrs()[0]), "BROKER"},
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`, "YYYY-MM-DDTHH:MM:SS.000Z"},
		{`"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[0-9.]*Z"`, `"TIME"`},
		{`version \d+\.\d+\.\d+`, "version X"},
		{`term \d+`, "term N"},
		{`(intake +)\d+ records/s, [0-9.]+ \w+/s, limit 5000/s.*`, "${1}N records/s, N B/s, limit 5000/s"},
		{`(log +)[0-9.]+ \w+, entries \d+ to \d+, floor \d+`, "${1}N B, entries N to N, floor N"},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.by)
	}
	return text
}

// TestCommandsAgainstANode: every command that asks a node or changes it, with all
// that it prints.
func TestCommandsAgainstANode(t *testing.T) {
	d := newDesk(t)
	file := func(name, more string) string {
		return fmt.Sprintf("[sinks.%s]\n%s\n[sinks.%s.file]\ndir = %q\nencoding = \"utf8\"\n", name, more, name, d.path(name))
	}
	strict := file("strict", `refused = "park"`) + "[sinks.strict.mapping]\nvalue = 'split(value, \"|\")[1]'\n"
	stop := d.run(file("files", "") + file("old", "") + strict)
	d.transcript("before", "parked list", "gaps list", "batches")
	d.produce(0, "a|1")
	d.awaitSinks("idle", 2, "files", "old", "strict")
	d.produce(0, "bad")
	d.awaitSinks("idle", 3, "files", "old", "strict")
	stop()

	// Away: a sink leaves the configuration, and Kafka deletes what nobody has read.
	d.produce(0, "x|1", "x|2", "x|3")
	below := kadm.Offsets{}
	below.Add(kadm.Offset{Topic: "clicks", Partition: 0, At: 4})
	if _, err := kadm.NewClient(d.cl).DeleteRecords(t.Context(), below); err != nil {
		t.Fatal(err)
	}
	stop = d.run(file("files", "") + strict)
	d.produce(1, "b|2")
	d.awaitSinks("idle", 4, "files", "strict")
	d.transcript("status", "status", "sinks list", "batches", "batches --limit 1", "batches --before 2", "batches --lane 1")
	d.transcript("sinks",
		"sinks pause strict", "sinks list", "sinks pause strict -o json", "sinks resume strict", "sinks resume strict -o json",
		"sinks pause none", "sinks remove files --gives-up-from 0-4", "sinks remove old --gives-up-from 0-2",
		"sinks remove old --gives-up-from 0-3", "sinks remove old --gives-up-from 0-3 -o json")
	d.transcript("parked", "parked list", "parked show 1", "parked show 1 -o json", "parked discard 1 7", "parked discard 1", "parked list", "parked list -o json", "parked show 1")
	d.transcript("gaps", "gaps list", "gaps skip clicks 1", "gaps skip clicks 0 -o json", "gaps list")
	d.awaitSinks("idle", 5, "files", "strict")
	d.transcript("after", "gaps skip clicks 0", "status", "wal verify --data-dir "+d.dir+"/nowhere")
	if out, errs, code := d.command("wal verify -c " + d.path("forebay.toml")); code != exitOK || !strings.Contains(out, "whole") {
		t.Errorf("verify of a running node: exit code %d\n%s%s", code, out, errs)
	}
	for _, line := range []string{"status", "batches", "sinks list", "parked list", "gaps list"} {
		out, _, code := d.command(line + " -o json")
		if code != exitOK || !json.Valid([]byte(out)) {
			t.Errorf("%s -o json: exit code %d\n%s", line, code, out)
		}
	}
	shown, _, code := d.command("config show")
	if f, err := config.Parse("forebay.toml", []byte(shown)); code != exitOK || err != nil || f.Receiver.MaxRate != 5000 {
		t.Errorf("config show of a node is no configuration (exit code %d): %v\n%s", code, err, shown)
	}
	stop()
	if _, errs, code := d.command("status"); code != exitUnavailable || !strings.Contains(errs, d.address) {
		t.Errorf("without the node: exit code %d, %s", code, errs)
	}
}

// TestARunThatFailsSaysItOnce, in the log, with its exit code.
func TestARunThatFailsSaysItOnce(t *testing.T) {
	for name, c := range map[string]struct {
		format string
		block  func(d *desk)
		code   int
		words  string
	}{
		"the address is in use": {"text", func(d *desk) {
			l, err := net.Listen("tcp", d.address)
			if err != nil {
				d.t.Fatal(err)
			}
			d.t.Cleanup(func() { l.Close() })
		}, exitTryAgain, "in use by another process"},
		"another node's directory": {"json", func(d *desk) {
			if err := os.MkdirAll(d.path("data"), 0o750); err != nil {
				d.t.Fatal(err)
			}
			if err := os.WriteFile(d.path("data/node.json"), []byte(`{"version":1,"node":"n9","gateway":"forebay"}`), 0o600); err != nil {
				d.t.Fatal(err)
			}
		}, exitFailure, "correct node.id or node.dataDir"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			c.block(d)
			text := fmt.Sprintf("[node]\ndataDir = %q\nhttp = %q\nlogFormat = %q\n[receiver.kafka]\nbrokers = [\"127.0.0.1:1\"]\ntopics = [\"clicks\"]\n[sinks.out.stdout]\n",
				d.path("data"), d.address, c.format)
			if err := os.WriteFile(d.path("forebay.toml"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var out, log bytes.Buffer
			code := (&program{out: &out, err: &log}).run(t.Context(), []string{"run", "--config", d.path("forebay.toml")})
			if code != c.code || strings.Count(log.String(), c.words) != 1 || out.Len() > 0 {
				t.Errorf("exit code %d, want %d; %q must be said once:\n%s%s", code, c.code, c.words, log.String(), out.String())
			}
			if c.format == "json" {
				for line := range strings.Lines(log.String()) {
					if !json.Valid([]byte(line)) {
						t.Errorf("no JSON: %s", line)
					}
				}
			}
		})
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{fmt.Errorf("else"), exitFailure},
		{&exitError{code: exitTorn}, exitTorn},
		{usageError{fmt.Errorf("what")}, exitUsage},
		{fmt.Errorf("loading: %w", config.Problems{{}}), exitBadConfig},
		{fmt.Errorf("starting: %w", node.ErrInUse), exitTryAgain},
		{fmt.Errorf("asking: %w", admin.ErrUnavailable), exitUnavailable},
		{&admin.AnswerError{Status: 503}, exitTryAgain},
		{&admin.AnswerError{Status: 409}, exitFailure},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
}
