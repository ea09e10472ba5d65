package peer

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lines collects a log.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

// count tells how many lines have all the parts.
func (l *lines) count(parts ...string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for line := range strings.Lines(l.buf.String()) {
		has := true
		for _, p := range parts {
			has = has && strings.Contains(line, p)
		}
		if has {
			n++
		}
	}
	return n
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// incarnationOf makes an incarnation that tests can tell from others.
func incarnationOf(node string, n byte) [16]byte {
	x := [16]byte{0xee, n}
	copy(x[2:], node)
	return x
}

// testHub is a hub with what tests look at.
type testHub struct {
	*Hub
	log *lines
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// openHub opens a hub on loopback, with short patience; change may set anything.
func openHub(t testing.TB, node string, change func(*Config)) *testHub {
	t.Helper()
	log := &lines{}
	cfg := Config{
		ID: Identity{node, incarnationOf(node, 1)}, Gateway: "g", Release: "0.2.0", Listener: listen(t),
		Describe:     func() Description { return Description{} },
		PingInterval: 20 * time.Millisecond,
		Logger:       slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	h, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return &testHub{h, log}
}

// acquaint gives each hub the addresses of all.
func acquaint(hubs ...*testHub) {
	for _, h := range hubs {
		for _, other := range hubs {
			h.SetPeer(other.ID().Node, other.Addr().String())
		}
	}
}

// patience bounds what tests wait for.
const patience = 10 * time.Second

// await waits until a condition holds.
func await(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline.C:
			t.Fatalf("not within %s: %s", patience, what)
		case <-tick.C:
		}
	}
}

// awaitCtx is the context of one thing that a test waits for.
func awaitCtx(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// status gives what a hub knows of a peer.
func (h *testHub) status(node string) Status {
	for _, s := range h.Peers() {
		if s.Node == node {
			return s
		}
	}
	return Status{}
}

// link is a TCP proxy: what tests cut, stall and count.
type link struct {
	net.Listener
	to string

	mu      sync.Mutex
	stalled chan struct{} // closed while bytes flow
	conns   map[net.Conn]struct{}
	refuse  bool
	done    sync.WaitGroup
}

func newLink(t testing.TB, to string) *link {
	t.Helper()
	flowing := make(chan struct{})
	close(flowing)
	l := &link{Listener: listen(t), to: to, stalled: flowing, conns: map[net.Conn]struct{}{}}
	l.done.Go(l.run)
	t.Cleanup(func() {
		l.resume()
		_ = l.Close()
		l.cut(true)
		l.done.Wait()
	})
	return l
}

func (l *link) run() {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", l.to)
		l.mu.Lock()
		if err != nil || l.refuse {
			l.mu.Unlock()
			_ = in.Close()
			if err == nil {
				_ = out.Close()
			}
			continue
		}
		l.conns[in], l.conns[out] = struct{}{}, struct{}{}
		l.mu.Unlock()
		l.done.Go(func() { l.pump(in, out) })
		l.done.Go(func() { l.pump(out, in) })
	}
}

func (l *link) pump(from, to net.Conn) {
	defer func() {
		_ = from.Close()
		_ = to.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, from)
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		l.mu.Lock()
		gate := l.stalled
		l.mu.Unlock()
		<-gate
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// stall lets connections be and nothing through: half-open, to both ends.
func (l *link) stall() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stalled = make(chan struct{})
}

func (l *link) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.stalled:
	default:
		close(l.stalled)
	}
}

// cut closes what is open, and refuses what comes.
func (l *link) cut(refuse bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = refuse
	for c := range l.conns {
		_ = c.Close()
	}
}

func mustFail(t testing.TB, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q has no %q", err, p)
		}
	}
}

func dialRaw(t testing.TB, h *testHub) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", h.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

func sprint(v any) string { return fmt.Sprintf("%+v", v) }

// frameSumOf is the checksum of a hello, computed apart.
func frameSumOf(body []byte) uint32 { return crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)) }

// scripted is a connection that says what it was given.
type scripted struct {
	net.Conn
	in io.Reader
}

func (s *scripted) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *scripted) Write(p []byte) (int, error)      { return len(p), nil }
func (s *scripted) Close() error                     { return nil }
func (s *scripted) SetReadDeadline(time.Time) error  { return nil }
func (s *scripted) SetWriteDeadline(time.Time) error { return nil }

func testFlow() *flow {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: "x"})
	return &flow{sent: c, received: c}
}

// listenAt listens where somebody listened before.
func listenAt(t testing.TB, instead net.Listener, address string) net.Listener {
	t.Helper()
	_ = instead.Close()
	var l net.Listener
	await(t, "the port is free", func() bool {
		var err error
		l, err = net.Listen("tcp", address)
		return err == nil
	})
	return l
}
