package e2e_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"forebay/internal/admin"
	"forebay/internal/e2e/kafka"
)

// The commands of an operator, against a gateway that runs, and beside its log.
func TestCommands(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 2)
	s := b.settings(topic)
	s.node = `token = "hunter2-token"`
	g := newGateway(t, s)
	t.Setenv("FOREBAY_TOKEN", "hunter2-token")
	g.client = admin.NewClient(g.http, "hunter2-token")
	if out, errs, code := g.command("validate", "-c", g.path("forebay.toml")); code != 0 {
		t.Fatalf("validate exits %d: %s%s", code, out, errs)
	}
	if _, errs, code := g.command("status"); code != 69 || !strings.Contains(errs, g.http) {
		t.Errorf("status of a node that does not run exits %d: %s", code, errs)
	}
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, 35)
	p.send(t.Context(), 500, mixed)
	p.transaction(t.Context(), 50, false, mixed)
	p.send(t.Context(), 3, big)
	o.delivered(30 * time.Second)

	for command, words := range map[string][]string{
		"status":       {"ready", "leader n1", topic, "consuming", "files"},
		"batches":      {"0-00000000000000000001", "files", "done"},
		"sinks list":   {"files", "idle"},
		"parked list":  {"REASON"},
		"gaps list":    {"REASON"},
		"config show":  {topic, g.http},
		"sinks pause":  nil,
		"sinks resume": nil,
	} {
		args := strings.Fields(command)
		if words == nil {
			args = append(args, "files")
		}
		if command == "config show" {
			args = append(args, "-c", g.path("forebay.toml"))
		}
		out, errs, code := g.command(args...)
		if code != 0 {
			t.Errorf("%s exits %d: %s", command, code, errs)
		}
		for _, word := range words {
			if !strings.Contains(out, word) {
				t.Errorf("%s does not show %q:\n%s", command, word, out)
			}
		}
		if strings.Contains(out+errs, "hunter2") {
			t.Errorf("%s shows a secret:\n%s", command, out)
		}
	}
	t.Setenv("FOREBAY_TOKEN", "wrong")
	if _, errs, code := g.command("sinks", "pause", "files"); code != 1 {
		t.Errorf("sinks pause with a wrong token exits %d: %s", code, errs)
	}
	if strings.Contains(g.log(), "hunter2") {
		t.Error("the log shows a secret")
	}
	// The log says the same as Kafka, read beside the running node and after it.
	g.holds(o)
	g.kill9()
	g.holds(o)
	if out, errs, code := g.command("wal", "verify", "-c", g.path("forebay.toml")); code != 0 {
		t.Errorf("wal verify exits %d: %s%s", code, out, errs)
	}
	if out, _, code := g.command("wal", "ls", "--data-dir", g.dataDir()); code != 0 || !strings.Contains(out, "SEGMENT") {
		t.Errorf("wal ls exits %d: %s", code, out)
	}
}

// holds compares wal cat with Kafka. It is for a gateway that was never refused a block.
func (g *gateway) holds(o *oracle) {
	g.t.Helper()
	out, errs, code := g.command("wal", "cat", "--data-dir", g.dataDir())
	if code != 0 {
		g.t.Fatalf("wal cat exits %d: %s", code, errs)
	}
	got, h := ledger{}, newHasher()
	for text := range strings.Lines(out) {
		var r admin.Record
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			g.t.Fatalf("wal cat: %v: %.300s", err, text)
		}
		record := &kgo.Record{Timestamp: millis(r.Timestamp), Key: r.Key, Value: r.Value}
		for _, header := range r.Headers {
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: string(header[0]), Value: header[1]})
		}
		got.add(place{r.Topic, r.Partition}, entry{r.Offset, h.record(record)})
	}
	same(g.t, "wal cat against Kafka", o.sorted(), got)
}

// Bad configuration does not start, and says all that is wrong with its lines.
func TestBadConfigurationDoesNotStart(t *testing.T) {
	g := newGateway(t, settings{
		brokers: []string{fmt.Sprintf("127.0.0.1:%d", kafka.FreePort(t))}, group: "", topics: []string{},
		receiver: `maxRaet = 5`, batch: `interval = "5"`,
	})
	g.fails(78, "maxRaet", "maxRate", "receiver.kafka.group", "receiver.kafka.topics", "batch.interval", "forebay.toml:")
}

// The stdout sink prints each record, for people and pipes.
func TestStdout(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 1)
	s := b.settings(topic)
	s.sinks = "[sinks.out.stdout]\nencoding = \"base64\"\n"
	g := newGateway(t, s)
	g.up()
	p := b.producer(topic, 36)
	p.send(t.Context(), 200, mixed)
	p.acked.sort()
	got := ledger{}
	await(t, "the records on stdout", 20*time.Second, func() bool {
		got = ledger{}
		for text := range strings.Lines(g.log()) {
			if at, r, err := parseLine([]byte(text)); err == nil {
				got.add(at, entry{r.Offset, newHasher().record(r)})
			}
		}
		return got.count() >= 200
	}, g.show)
	same(t, "stdout", p.acked, got)
	g.stop()
}
