package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// sample is what had been taken in at some moment between asked and told.
type sample struct {
	asked, told time.Time
	taken       float64
}

// maxRate holds from the first second on, however much is waiting: at most 3 %
// above it in any second and 1 % in any five, and at most 5 % below it while
// there is backlog. It is measured from outside, by the counter of what was taken;
// between two answers lies a time that is known to within what the answers took,
// and only what is too fast or too slow for all of it counts. The figures are logged.
func TestMaxRate(t *testing.T) {
	const rate = 5000
	total := size(100_000, 500_000)
	b := newBroker(t, sharedKafka(t))
	topic := b.topic("t", 4)
	out, err := b.cluster.Tool(t.Context(), "org.apache.kafka.tools.ProducerPerformance",
		"--topic", topic, "--num-records", fmt.Sprint(total), "--record-size", "300", "--throughput", "-1",
		"--producer-props", "bootstrap.servers="+b.cluster.Internal()[0], "compression.type=lz4")
	if err != nil {
		t.Fatal(err, out)
	}
	s := b.settings(topic)
	s.receiver = fmt.Sprintf("maxRate = %d", rate)
	g := newGateway(t, s)
	g.start()
	waited, at := cpuWait(), time.Now()
	samples := g.sampleIntake(float64(total))
	t.Logf("meanwhile some process waited for a processor %.0f %% of the time", 100*(cpuWait()-waited).Seconds()/time.Since(at).Seconds())
	seconds := samples[len(samples)-1].told.Sub(samples[0].told).Seconds()
	t.Logf("%d samples over %.1f s (%.0f a second), %.0f records/s overall", len(samples), seconds, float64(len(samples))/seconds, float64(total)/seconds)
	if float64(len(samples))/seconds < 20 {
		t.Fatal("too few samples to judge by")
	}
	for _, window := range []struct {
		length       time.Duration
		above, below float64 // shares of the rate; below 0 is not judged
	}{{time.Second, 0.03, 0}, {5 * time.Second, 0.01, 0.05}} {
		fastest, slowest := extremes(samples, window.length, float64(total))
		t.Logf("in any %s: %.0f to %.0f records/s", window.length, slowest, fastest)
		if fastest > rate*(1+window.above) {
			t.Errorf("%.0f records/s in some %s, more than %.0f %% above %d", fastest, window.length, 100*window.above, rate)
		}
		if window.below > 0 && slowest < rate*(1-window.below) {
			t.Errorf("%.0f records/s in some %s of backlog, more than %.0f %% below %d", slowest, window.length, 100*window.below, rate)
		}
	}
	o := newOracle(g, b, topic)
	o.delivered(time.Minute)
	g.stop()
	o.judge()
}

// cpuWait is how long, since the machine's start, some process had to wait for a
// processor, 0 where the kernel does not tell: on a machine that others keep busy,
// a rate that is too low says little.
func cpuWait() time.Duration {
	text, _ := os.ReadFile("/proc/pressure/cpu")
	_, rest, _ := strings.Cut(string(text), "total=")
	number, _, _ := strings.Cut(rest, "\n")
	us, _ := strconv.ParseInt(number, 10, 64)
	return time.Duration(us) * time.Microsecond
}

// sampleIntake reads the counter from the last moment at which nothing was taken to
// the first at which all was.
func (g *gateway) sampleIntake(total float64) []sample {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 5*time.Minute)
	defer cancel()
	tick := time.NewTicker(15 * time.Millisecond)
	defer tick.Stop()
	var samples []sample
	for {
		select {
		case <-tick.C:
		case <-g.run.done:
			g.alive()
		case <-ctx.Done():
			g.t.Fatalf("not all was taken in: %s", g.show())
		}
		s := sample{asked: time.Now()}
		taken, err := g.metric(ctx, "forebay_receiver_records_total")
		if err != nil {
			continue
		}
		s.told, s.taken = time.Now(), taken
		if s.taken == 0 {
			samples = samples[:0]
		}
		samples = append(samples, s)
		if s.taken >= total {
			return samples
		}
	}
}

// metric adds up a metric's series.
func (g *gateway) metric(ctx context.Context, name string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.http+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	sum, found := 0.0, false
	for text := bufio.NewScanner(answer.Body); text.Scan(); {
		rest, ok := strings.CutPrefix(text.Text(), name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, err
		}
		sum, found = sum+value, true
	}
	if !found {
		return 0, fmt.Errorf("no metric %s", name)
	}
	return sum, nil
}

// extremes gives the highest rate in any window of at least this length, and
// the lowest in one that ends before the backlog does.
func extremes(samples []sample, length time.Duration, total float64) (fastest, slowest float64) {
	first := 0 // of the samples with anything taken: a backlog is drained from there on
	for samples[first].taken == 0 {
		first++
	}
	slowest = -1
	for i := range samples {
		for j := i + 1; j < len(samples); j++ {
			if samples[j].asked.Sub(samples[i].told) >= length {
				taken := samples[j].taken - samples[i].taken
				atLeast := taken / samples[j].told.Sub(samples[i].asked).Seconds()
				atMost := taken / samples[j].asked.Sub(samples[i].told).Seconds()
				fastest = max(fastest, atLeast)
				if i >= first && samples[j].taken < total && (slowest < 0 || atMost < slowest) {
					slowest = atMost
				}
				break
			}
		}
	}
	return fastest, slowest
}
