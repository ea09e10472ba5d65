package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forebay/internal/e2e/kafka"
)

// away is a configuration whose broker is not there: enough for what must be
// refused or said without one. These tests need no Kafka.
func away(t *testing.T) settings {
	return settings{brokers: []string{fmt.Sprintf("127.0.0.1:%d", kafka.FreePort(t))}, group: "g", topics: []string{"t"}}
}

// answer gives the status code and the body of a GET.
func (g *gateway) answer(path string) (int, string) {
	g.t.Helper()
	request, err := http.NewRequestWithContext(g.t.Context(), http.MethodGet, "http://"+g.http+path, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	var body strings.Builder
	var raw json.RawMessage
	if json.NewDecoder(answer.Body).Decode(&raw) == nil {
		body.Write(raw)
	}
	return answer.StatusCode, body.String()
}

// unready waits until /-/ready is 503 with these words, while /-/healthy is 200.
func (g *gateway) unready(words string) {
	g.t.Helper()
	var code int
	var body string
	await(g.t, "/-/ready to say "+words, 20*time.Second, func() bool {
		g.alive()
		code, body = g.answer("/-/ready")
		return code == http.StatusServiceUnavailable && strings.Contains(body, words)
	}, func() string { return fmt.Sprint(code, " ", body) })
	if code, body := g.answer("/-/healthy"); code != http.StatusOK {
		g.t.Errorf("/-/healthy: %d %s", code, body)
	}
}

func TestABrokerThatIsNotThereIsSaid(t *testing.T) {
	s := away(t)
	g := newGateway(t, s)
	g.start()
	g.unready(s.brokers[0])
	g.said("intake problem", time.Second)
	g.stop()
}

func TestABrokerThatComesLateIsTakenUp(t *testing.T) {
	cluster := kafka.Start(t, kafka.Options{})
	b := newBroker(t, cluster)
	topic := b.topic("t", 1)
	b.producer(topic, 9).send(t.Context(), 100, mixed)
	cluster.Kill9(0)
	g := newGateway(t, b.settings(topic))
	g.start()
	g.unready(cluster.Brokers()[0])
	cluster.Boot(0)
	g.ready(30 * time.Second)
	newOracle(g, b, topic).delivered(30 * time.Second)
	g.stop()
}

func TestATopicThatDoesNotExistIsSaidAndTakenUpWhenItComes(t *testing.T) {
	b := newBroker(t, sharedKafka(t))
	there, missing := b.topic("there", 1), b.prefix+"-missing"
	g := newGateway(t, b.settings(there, missing))
	g.start()
	b.producer(there, 10).send(t.Context(), 100, mixed)
	g.unready(missing)
	o := newOracle(g, b, there)
	o.delivered(30 * time.Second) // the other is unhindered
	b.create(missing, 2)
	b.producer(missing, 11).send(t.Context(), 100, mixed)
	g.ready(30 * time.Second)
	o.truth.topics = append(o.truth.topics, missing)
	o.delivered(30 * time.Second)
	g.stop()
	o.judge()
}

func TestADataDirectoryOfAnother(t *testing.T) {
	g := newGateway(t, away(t))
	g.start()
	g.unready(g.settings.brokers[0])
	g.stop()
	for name, c := range map[string]struct{ node, words string }{
		"node":    {`id = "n2"`, `belongs to node "n1"`},
		"gateway": {`gateway = "other"`, `belongs to gateway "forebay"`},
	} {
		g.settings.node = c.node
		g.configure()
		g.fails(1, c.words, g.dataDir())
		t.Log(name)
	}
	g.settings.node = ""
	g.configure()
	path := filepath.Join(g.dataDir(), "node.json")
	ours, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newer := map[string]any{}
	if err := json.Unmarshal(ours, &newer); err != nil {
		t.Fatal(err)
	}
	newer["version"] = 99
	text, err := json.Marshal(newer)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text  []byte
		words string
	}{
		"newer":   {text, "format version 99"},
		"damaged": {ours[:len(ours)/2], "damaged"},
	} {
		if err := os.WriteFile(path, c.text, 0o600); err != nil {
			t.Fatal(err)
		}
		g.fails(1, c.words, g.dataDir())
		if after, err := os.ReadFile(path); err != nil || string(after) != string(c.text) {
			t.Errorf("%s: node.json was changed (error %v)", name, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	g.fails(1, "no node.json", g.dataDir())
	if err := os.WriteFile(path, ours, 0o600); err != nil {
		t.Fatal(err)
	}
	g.start()
	g.unready(g.settings.brokers[0])
	g.stop()
}

func TestADataDirectoryInUse(t *testing.T) {
	g := newGateway(t, away(t))
	g.start()
	g.unready(g.settings.brokers[0])
	second := newGateway(t, g.settings)
	second.settings.dataDir = g.dataDir()
	second.settings.sinks = ""
	second.configure()
	second.fails(75, "in use", g.dataDir())
	third := newGateway(t, away(t))
	third.http = g.http
	third.configure()
	third.fails(75, "in use", g.http)
	if code, _ := g.answer("/-/healthy"); code != http.StatusOK {
		t.Error("the first process was disturbed")
	}
	g.stop()
}

// A successor waits for its predecessor that is still ending.
func TestAStartWaitsForItsPredecessor(t *testing.T) {
	g := newGateway(t, away(t))
	g.start()
	g.unready(g.settings.brokers[0])
	next := newGateway(t, g.settings)
	next.http, next.settings = g.http, g.settings
	next.settings.dataDir, next.settings.sinks = g.dataDir(), fileSink("files", g.files(), "")
	next.configure()
	next.start()
	g.kill9()
	next.unready(next.settings.brokers[0])
	next.stop()
}
