// Package kafka starts a real Apache Kafka (KRaft, one node or three) for tests,
// from Maven Central's jars, on free ports of 127.0.0.1, in a directory of the
// test's own. The brokers die with the test process, however that ends.
package kafka

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Credentials of the one user that a cluster with SASL knows.
const (
	User     = "forebay"
	Password = "forebay-secret"
)

// Options shape a cluster. The zero value is one node, plaintext.
type Options struct {
	// Nodes is 1 (also for 0) or 3.
	Nodes int
	// TLS encrypts the clients' listener; MutualTLS also asks for a certificate.
	TLS, MutualTLS bool
	// SASL is "", "PLAIN", "SCRAM-SHA-256" or "SCRAM-SHA-512".
	SASL string
	// Set adds or replaces broker properties, as "key=value".
	Set []string
}

// Cluster is a running Kafka. Its methods may be called from one goroutine at a time.
type Cluster struct {
	tb      testing.TB
	options Options
	dir     string
	jars    string
	id      string
	ports   []int // of each node: clients, controller, internal
	nodes   []*node
}

type node struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process is gone
	log  string
}

// Start brings a cluster up and returns when every node serves. It skips or
// fails the test when there is none to be had: see Require.
func Start(tb testing.TB, options Options) *Cluster {
	tb.Helper()
	if options.Nodes == 0 {
		options.Nodes = 1
	}
	c := &Cluster{tb: tb, options: options, jars: jars(tb), dir: tb.TempDir(), id: clusterID()}
	c.ports = freePorts(tb, 3*options.Nodes)
	c.nodes = make([]*node, options.Nodes)
	if options.TLS || options.MutualTLS {
		makeCertificates(tb, c.tlsDir())
	}
	c.format()
	for i := range c.nodes {
		c.start(i)
	}
	tb.Cleanup(func() {
		for i := range c.nodes {
			c.Kill9(i)
		}
	})
	for i := range c.nodes {
		c.await(i)
	}
	return c
}

// Brokers are the addresses for clients, as the listener asks for.
func (c *Cluster) Brokers() []string { return c.addresses(0) }

// Internal are the addresses of a plaintext listener that needs no credentials.
func (c *Cluster) Internal() []string { return c.addresses(2) }

// CA is the PEM file of the authority that signed a TLS cluster's certificates.
func (c *Cluster) CA() string { return filepath.Join(c.tlsDir(), "ca.crt") }

// ClientCert is the certificate that a cluster with MutualTLS asks for.
func (c *Cluster) ClientCert() string { return filepath.Join(c.tlsDir(), "client.crt") }

// ClientKey belongs to ClientCert.
func (c *Cluster) ClientKey() string { return filepath.Join(c.tlsDir(), "client.key") }

// Kill9 ends a node (counted from 0) at once. One that does not run is left alone.
func (c *Cluster) Kill9(i int) {
	if n := c.nodes[i]; n != nil {
		_ = n.cmd.Process.Kill()
		<-n.done
		c.nodes[i] = nil
	}
}

// Pause stops a node's processing (SIGSTOP); Resume lets it go on.
func (c *Cluster) Pause(i int) { _ = c.nodes[i].cmd.Process.Signal(syscall.SIGSTOP) }

// Resume undoes Pause.
func (c *Cluster) Resume(i int) { _ = c.nodes[i].cmd.Process.Signal(syscall.SIGCONT) }

// Restart starts a node, ending it first if it runs, and waits until it serves.
func (c *Cluster) Restart(i int) {
	c.tb.Helper()
	c.Kill9(i)
	c.Boot(i)
}

// Boot starts a node that was ended and waits until it serves.
func (c *Cluster) Boot(i int) {
	c.tb.Helper()
	c.start(i)
	c.await(i)
}

// Tool runs a class of Kafka's own tools, such as
// org.apache.kafka.tools.ProducerPerformance, and returns what it printed.
func (c *Cluster) Tool(ctx context.Context, class string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "java", append([]string{
		"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx512m",
		"-Dlog4j2.configurationFile=" + filepath.Join(c.jars, "log4j2.properties"),
		"-cp", filepath.Join(c.jars, "lib", "*"), class,
	}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s", class, err, out.String())
	}
	return out.String(), nil
}

func (c *Cluster) addresses(listener int) []string {
	var addresses []string
	for i := range c.nodes {
		addresses = append(addresses, fmt.Sprintf("127.0.0.1:%d", c.ports[3*i+listener]))
	}
	return addresses
}

func (c *Cluster) tlsDir() string { return filepath.Join(c.dir, "tls") }

func (c *Cluster) nodeDir(i int) string { return filepath.Join(c.dir, fmt.Sprintf("node-%d", i+1)) }

func (c *Cluster) format() {
	c.tb.Helper()
	for i := range c.nodes {
		if err := os.MkdirAll(c.nodeDir(i), 0o755); err != nil {
			c.tb.Fatal(err)
		}
		properties := filepath.Join(c.nodeDir(i), "server.properties")
		if err := os.WriteFile(properties, []byte(c.properties(i)), 0o644); err != nil {
			c.tb.Fatal(err)
		}
		args := []string{"format", "-t", c.id, "-c", properties, "--ignore-formatted"}
		if strings.HasPrefix(c.options.SASL, "SCRAM") {
			args = append(args, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", c.options.SASL, User, Password))
		}
		if _, err := c.Tool(c.tb.Context(), "kafka.tools.StorageTool", args...); err != nil {
			c.tb.Fatal(err)
		}
	}
}

// start begins a node's process. Linux kills it when the thread that started it
// ends: that thread is kept for as long as the process lives.
func (c *Cluster) start(i int) {
	c.tb.Helper()
	n := &node{done: make(chan struct{}), log: filepath.Join(c.nodeDir(i), "kafka.log")}
	out, err := os.Create(n.log)
	if err != nil {
		c.tb.Fatal(err)
	}
	n.cmd = exec.Command("java", "-Xmx512m", "-XX:+UseG1GC", "-XX:+ExitOnOutOfMemoryError",
		"-Dlog4j2.configurationFile="+filepath.Join(c.jars, "log4j2.properties"),
		"-cp", filepath.Join(c.jars, "lib", "*"), "kafka.Kafka", filepath.Join(c.nodeDir(i), "server.properties"))
	n.cmd.Stdout, n.cmd.Stderr = out, out
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := n.cmd.Start()
		started <- err
		if err == nil {
			_ = n.cmd.Wait()
			close(n.done)
		}
		out.Close()
	}()
	if err := <-started; err != nil {
		c.tb.Fatal(err)
	}
	c.nodes[i] = n
}

// await returns when a node says that it serves.
func (c *Cluster) await(i int) {
	c.tb.Helper()
	n := c.nodes[i]
	deadline := time.After(90 * time.Second)
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		text, _ := os.ReadFile(n.log)
		if bytes.Contains(text, []byte("Kafka Server started")) {
			return
		}
		select {
		case <-poll.C:
		case <-n.done:
			c.tb.Fatalf("Kafka ended at its start:\n%s", tail(text))
		case <-deadline:
			c.tb.Fatalf("Kafka did not start within 90 s:\n%s", tail(text))
		}
	}
}

func tail(text []byte) []byte { return text[max(0, len(text)-8000):] }

func clusterID() string {
	var id [16]byte
	_, _ = rand.Read(id[:])
	id[0] &= 0x7f // else it may begin with '-', which the tool takes for an option
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// FreePort gives a port of 127.0.0.1 that nobody listens on, and that the kernel
// gives to nobody else meanwhile.
func FreePort(tb testing.TB) int {
	tb.Helper()
	return freePorts(tb, 1)[0]
}

// freePorts finds ports that nobody listens on, below the range from which the
// kernel takes ports for outgoing connections: another test cannot take them in between.
func freePorts(tb testing.TB, count int) []int {
	tb.Helper()
	var b [2]byte
	for range 200 {
		_, _ = rand.Read(b[:])
		base := 20000 + (int(b[0])<<8|int(b[1]))%12000
		if taken := firstTaken(base, count); taken == nil {
			ports := make([]int, count)
			for i := range ports {
				ports[i] = base + i
			}
			return ports
		}
	}
	tb.Fatal("no free ports")
	return nil
}

func firstTaken(base, count int) error {
	var errs []error
	for port := base; port < base+count; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		l.Close()
	}
	return errors.Join(errs...)
}
