package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"forebay/internal/admin"
)

// offsetsIn gives the offsets of all lines in a sink's directory, whatever the
// encoding of their values.
func offsetsIn(t *testing.T, dir string) []int64 {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "batch-*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	out := []int64{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n")) {
			var record struct{ Offset int64 }
			if err := json.Unmarshal(line, &record); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			out = append(out, record.Offset)
		}
	}
	return out
}

// FAULTS row 33: a sink that refuses one record of a batch blocks, parks or drops
// as it was told; the others go on; what is parked can be looked at and discarded.
func TestASinkRefusesOneRecord(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 1)
	s := b.settings(topic)
	s.batch = `interval = "500ms"`
	g := newGateway(t, s)
	for _, policy := range []string{"block", "park", "drop"} {
		g.settings.sinks += fileSink(policy, g.path(policy), fmt.Sprintf("refused = %q\nbackoff = { initial = \"50ms\", max = \"200ms\" }", policy)) + "encoding = \"utf8\"\n"
	}
	g.configure()
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, 13)
	good := func(*rand.Rand) *kgo.Record { return &kgo.Record{Value: []byte("good")} }
	bad := &kgo.Record{Key: []byte("bad"), Value: []byte{0xff, 0xfe, 'x'}, Headers: []kgo.RecordHeader{{Key: "h", Value: []byte{0}}}}
	p.send(t.Context(), 10, good)
	p.send(t.Context(), 1, func(*rand.Rand) *kgo.Record { return bad })
	p.send(t.Context(), 10, good)
	o.delivered(30 * time.Second)
	all := offsetsOf(o.truth.got[place{topic, 0}])
	without := append(append([]int64{}, all[:10]...), all[11:]...)
	for _, name := range []string{"park", "drop"} {
		await(t, name+" to go on", 20*time.Second, func() bool { return len(offsetsIn(t, g.path(name))) >= 20 }, g.show)
		if diff := cmp.Diff(without, offsetsIn(t, g.path(name))); diff != "" {
			t.Errorf("offsets in %s (-want +got):\n%s", name, diff)
		}
	}
	await(t, "the blocking sink to say so", 20*time.Second, func() bool { return g.sink("block").State == "blocked" }, g.show)
	for _, word := range []string{topic, "10", "UTF-8"} {
		if said := g.sink("block").LastError; !strings.Contains(said, word) {
			t.Errorf("the blocked sink says %q, which does not name %q", said, word)
		}
	}
	if got := offsetsIn(t, g.path("block")); len(got) > 10 {
		t.Errorf("the blocking sink went on: %v", got)
	}
	if g.sink("park").Parked != 1 || g.sink("drop").Dropped != 1 {
		t.Errorf("parked %d, dropped %d, want 1 and 1", g.sink("park").Parked, g.sink("drop").Dropped)
	}
	g.kill9() // what was parked and dropped is durable
	g.up()
	showParked(t, g, bad, all[10])
	g.stop()

	// The way out of a block: another policy.
	g.settings.sinks = strings.Replace(g.settings.sinks, `refused = "block"`, `refused = "park"`, 1)
	g.configure()
	g.up()
	await(t, "the blocked sink to go on", 20*time.Second, func() bool { return len(offsetsIn(t, g.path("block"))) >= 20 }, g.show)
	if diff := cmp.Diff(without, offsetsIn(t, g.path("block"))); diff != "" {
		t.Errorf("offsets in the sink that blocked (-want +got):\n%s", diff)
	}
	g.stop()
	o.judge()
}

func offsetsOf(entries []entry) []int64 {
	var out []int64
	for _, e := range entries {
		out = append(out, e.offset)
	}
	return out
}

// showParked looks at the one parked record by the commands, and discards it.
func showParked(t *testing.T, g *gateway, want *kgo.Record, offset int64) {
	t.Helper()
	var parked []admin.Parked
	g.ask(&parked, "parked", "list")
	if len(parked) != 1 {
		t.Fatalf("parked: %+v, want one record", parked)
	}
	if q := parked[0]; q.Sink != "park" || q.Topic != want.Topic || q.Offset != offset || !strings.Contains(q.Reason, "UTF-8") {
		t.Errorf("parked: %+v", q)
	}
	id := fmt.Sprint(parked[0].ID)
	var shown admin.Record
	g.ask(&shown, "parked", "show", id)
	expected := admin.Record{
		Topic: want.Topic, Offset: offset, Timestamp: want.Timestamp.UnixMilli(), Key: want.Key, Value: want.Value,
		Headers: [][2][]byte{{[]byte(want.Headers[0].Key), want.Headers[0].Value}},
	}
	if diff := cmp.Diff(expected, shown); diff != "" {
		t.Errorf("parked show (-want +got):\n%s", diff)
	}
	if out, errs, code := g.command("parked", "discard", id); code != 0 {
		t.Errorf("parked discard exits %d: %s%s", code, out, errs)
	}
	g.ask(&parked, "parked", "list")
	if len(parked) != 0 {
		t.Errorf("parked after discard: %+v", parked)
	}
	if _, _, code := g.command("parked", "show", id); code == 0 {
		t.Error("parked show of a discarded record succeeds")
	}
}

// FAULTS row 32, the short of it: a sink that is down hinders nobody, and gets
// the same batches when it is back.
func TestASinkThatIsDownHindersNobody(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 2)
	g := newGateway(t, b.settings(topic))
	down := g.path("down")
	if err := os.WriteFile(down, nil, 0o600); err != nil { // a file where its directory should be
		t.Fatal(err)
	}
	g.settings.sinks += fileSink("down", down, `backoff = { initial = "50ms", max = "200ms" }`)
	g.configure()
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, 14)
	for range 5 {
		p.send(t.Context(), 500, mixed)
		o.delivered(30 * time.Second)
	}
	if sink := g.sink("down"); sink.Retries == 0 || sink.LastError == "" {
		t.Errorf("the sink that is down is shown as %+v", sink)
	}
	if err := os.Remove(down); err != nil {
		t.Fatal(err)
	}
	other := newShelf(down)
	await(t, "the sink to have all", 30*time.Second, func() bool {
		other.look(t)
		return other.got.count() >= o.truth.got.count()
	}, g.show)
	same(t, "the sink that was down", o.sorted(), other.got)
	for seq, book := range o.shelf.books {
		if copied := other.books[seq]; copied == nil || copied.sum != book.sum {
			t.Errorf("%s is another file in the sink that was down", book.name)
		}
	}
	g.stop()
}

// FAULTS row 34: poison arrives byte for byte.
func TestPoison(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 1, "message.timestamp.after.max.ms=9223372036854775807", "message.timestamp.before.max.ms=9223372036854775807")
	g := newGateway(t, b.settings(topic))
	g.up()
	o := newOracle(g, b, topic)
	p := b.producer(topic, 15)
	headers := make([]kgo.RecordHeader, 1000)
	for i := range headers {
		headers[i] = kgo.RecordHeader{Key: fmt.Sprintf("header-%d", i%700), Value: data(p.random, i%50)}
	}
	poison := map[string]*kgo.Record{
		"20 MB":               {Value: data(p.random, 20<<20)},
		"20 MB that compress": {Value: bytes.Repeat([]byte("x"), 20<<20)},
		"a key of 2 MB":       {Key: data(p.random, 2<<20), Value: []byte("v")},
		"nil key and value":   {},
		"nil key":             {Value: []byte("v")},
		"nil value":           {Key: []byte("k")},
		"empty key and value": {Key: []byte{}, Value: []byte{}},
		"invalid UTF-8":       {Key: []byte{0xc3, 0x28}, Value: []byte{0xff, 0, 0xed, 0xa0, 0x80}},
		"line ends":           {Value: []byte("a\nb\r\n\u2028\x00"), Headers: []kgo.RecordHeader{{Key: "a\"\\\n\u2028<&>", Value: []byte("\n")}}},
		"1,000 headers":       {Headers: headers},
		"an empty header key": {Headers: []kgo.RecordHeader{{}, {Value: []byte{}}}},
		"timestamp 0":         {Timestamp: millis(0).UTC(), Value: []byte("v")},
		"timestamp 1":         {Timestamp: millis(1), Value: []byte("v")},
		"year 2200":           {Timestamp: millis(7258118400000), Value: []byte("v")},
	}
	for name, r := range poison {
		// Each in a batch of its own, and all again between ordinary ones.
		p.send(t.Context(), 1, func(*rand.Rand) *kgo.Record { return r })
		o.truth.update()
		o.complete(time.Minute)
		t.Log(name)
	}
	for range size(1, 5) {
		for _, r := range poison {
			again := kgo.Record{Key: r.Key, Value: r.Value, Headers: r.Headers, Timestamp: r.Timestamp}
			p.transaction(t.Context(), 1, true, func(*rand.Rand) *kgo.Record { return &again })
			p.send(t.Context(), 20, mixed)
		}
	}
	o.delivered(2 * time.Minute)
	o.acknowledged(p)
	g.kill9()
	g.up()
	o.delivered(time.Minute)
	g.stop()
	o.judge()
}

// A header key that is not UTF-8 cannot be in a line of JSON: it is refused by
// name, and arrives by way of the parked records.
func TestAHeaderKeyThatIsNotTextIsRefusedByName(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 1)
	s := b.settings(topic)
	g := newGateway(t, s)
	g.settings.sinks = fileSink("files", g.files(), `refused = "park"`)
	g.configure()
	g.up()
	p := b.producer(topic, 16)
	p.send(t.Context(), 1, func(*rand.Rand) *kgo.Record {
		return &kgo.Record{Value: []byte("v"), Headers: []kgo.RecordHeader{{Key: "\xff\xfe", Value: []byte("x")}}}
	})
	var parked []admin.Parked
	await(t, "the record to be parked", 20*time.Second, func() bool {
		g.ask(&parked, "parked", "list")
		return len(parked) == 1
	}, g.show)
	var shown admin.Record
	g.ask(&shown, "parked", "show", fmt.Sprint(parked[0].ID))
	if diff := cmp.Diff([][2][]byte{{{0xff, 0xfe}, []byte("x")}}, shown.Headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	g.stop()
}
