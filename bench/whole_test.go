package bench

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"forebay/internal/admin"
	"forebay/internal/e2e/kafka"
)

const (
	topic       = "bench"
	partitions  = 4
	records     = 1_000_000
	recordBytes = 1024
)

// wholeWay is a real Kafka with a filled topic, and the program.
type wholeWay struct {
	cluster *kafka.Cluster
	program string
	runs    int
}

// outcome of one run of the program over the topic.
type outcome struct {
	mib, perSecond, cpuPerGiB, peakMiB float64
}

func newWholeWay(t *testing.T) *wholeWay {
	t.Helper()
	w := &wholeWay{cluster: kafka.Start(t, kafka.Options{}), program: filepath.Join(t.TempDir(), "forebay")}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", w.program, "forebay/cmd/forebay").CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(w.cluster.Brokers()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), partitions, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	_, err = w.cluster.Tool(t.Context(), "org.apache.kafka.tools.ProducerPerformance", "--topic", topic,
		"--num-records", fmt.Sprint(records), "--record-size", fmt.Sprint(recordBytes), "--throughput", "-1",
		"--producer-props", "bootstrap.servers="+strings.Join(w.cluster.Brokers(), ","), "acks=all", "batch.size=262144", "linger.ms=5")
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// run starts a gateway of its own on the topic and ends when the files hold all of it.
func (w *wholeWay) run(t *testing.T) outcome {
	t.Helper()
	w.runs++
	dir := t.TempDir()
	address := freeAddress(t)
	config := fmt.Sprintf("[node]\ngateway = \"bench%d\"\ndataDir = %q\nhttp = %q\n[wal]\nminFree = \"64MiB\"\n[receiver.kafka]\nbrokers = [%q]\ngroup = \"bench%d\"\ntopics = [%q]\n[batch]\ninterval = \"1s\"\n[sinks.files.file]\ndir = %q\nformat = \"raw\"\n",
		w.runs, filepath.Join(dir, "data"), address, w.cluster.Brokers()[0], w.runs, topic, filepath.Join(dir, "files"))
	path := filepath.Join(dir, "forebay.toml")
	if err := os.WriteFile(path, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	process := exec.CommandContext(t.Context(), w.program, "run", "-c", path)
	process.Stderr = &log
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	begun, ended := w.await(t, admin.NewClient(address, ""), &log)
	if err := process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := process.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	usage := process.ProcessState.SysUsage().(*syscall.Rusage)
	seconds := ended.Sub(begun).Seconds()
	size := float64(records) * recordBytes / (1 << 20)
	cpu := process.ProcessState.UserTime() + process.ProcessState.SystemTime()
	return outcome{mib: size / seconds, perSecond: records / seconds, cpuPerGiB: cpu.Seconds() / (size / 1024), peakMiB: float64(usage.Maxrss) / 1024}
}

// await gives when the intake began and when the last record was delivered.
func (w *wholeWay) await(t *testing.T, client *admin.Client, log *bytes.Buffer) (begun, ended time.Time) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			t.Fatalf("not everything arrived\n%s", log.String())
		case <-poll.C:
		}
		status, err := client.Status(ctx)
		if err != nil || len(status.Lanes) == 0 {
			continue
		}
		var taken int64
		for _, p := range status.Lanes[0].Partitions {
			taken += max(p.Next, 0)
		}
		if begun.IsZero() {
			if taken > 0 {
				begun = time.Now()
			}
			continue
		}
		if taken == records && delivered(ctx, t, client) == records {
			return begun, time.Now()
		}
	}
}

// delivered counts the records of the batches that the sink has.
func delivered(ctx context.Context, t *testing.T, client *admin.Client) int64 {
	t.Helper()
	page, err := client.Batches(ctx, 0, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	for _, b := range page.Batches {
		if len(b.Sinks) == 1 && b.Sinks[0].DoneAt != nil {
			sum += b.Records
		}
	}
	return sum
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
