package peer

import (
	"bytes"
	"context"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// recorded is a connection that keeps what was asked of it.
type recorded struct {
	scripted
	reads, writes []time.Time // deadlines
	sizes         []int       // of writes
}

func (r *recorded) SetReadDeadline(t time.Time) error  { r.reads = append(r.reads, t); return nil }
func (r *recorded) SetWriteDeadline(t time.Time) error { r.writes = append(r.writes, t); return nil }

func (r *recorded) Write(p []byte) (int, error) {
	r.sizes = append(r.sizes, len(p))
	return len(p), nil
}

// endless is a request that never ends.
type endless struct{ first, rest byte }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.first
		e.first = e.rest
	}
	return len(p), nil
}

func pacedOver(h *testHub, conn net.Conn) *paced {
	return &paced{hub: h.Hub, stream: &stream{Conn: conn, socket: conn, of: newStreams(), who: Identity{Node: "n2"}, bytes: testFlow()}}
}

func TestARequestHasASize(t *testing.T) {
	h := openHub(t, "n1", nil)
	buf := make([]byte, 1<<20)
	read := func(first byte, limit int64) (int64, error) {
		p := pacedOver(h, &scripted{in: &endless{first: first}})
		n := int64(0)
		for n < limit {
			m, err := p.Read(buf)
			n += int64(m)
			if err != nil {
				return n, err
			}
		}
		return n, nil
	}
	n, err := read(0, 2*maxRPCBytes)
	mustFail(t, err, "a request of more than")
	if n > maxRPCBytes+int64(len(buf)) {
		t.Errorf("%d bytes were taken in", n)
	}
	if n := h.log.count("a peer's Raft request is not taken"); n != 1 {
		t.Errorf("said %d times", n)
	}
	if n, err := read(installSnapshot, 2*maxRPCBytes); err != nil {
		t.Errorf("a snapshot is stopped after %d bytes: %v", n, err)
	}
}

// Between requests a stream may idle; a request that began must flow.
func TestARequestThatBeganMustFlow(t *testing.T) {
	h := openHub(t, "n1", nil)
	conn := &recorded{scripted: scripted{in: bytes.NewReader(make([]byte, 10*minRate))}}
	p := pacedOver(h, conn)
	buf := make([]byte, minRate)
	near := func(got time.Time, want time.Duration) {
		t.Helper()
		if d := time.Until(got) - want; d.Abs() > time.Second {
			t.Errorf("a deadline in %s, want %s", time.Until(got), want)
		}
	}
	for range 4 {
		if _, err := p.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	near(conn.reads[0], h.cfg.IdleTimeout)
	for i, at := range conn.reads[1:] {
		near(at, requestGrace+time.Duration(i+1)*time.Second)
	}
	if _, err := p.Write([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	near(conn.writes[0], h.cfg.BulkTimeout)
	if _, err := p.Read(buf); err != nil {
		t.Fatal(err)
	}
	near(conn.reads[len(conn.reads)-1], h.cfg.IdleTimeout)
}

func TestASnapshotFlows(t *testing.T) {
	conn := &recorded{scripted: scripted{in: bytes.NewReader([]byte("ok"))}}
	f := &flowing{stream: &stream{Conn: conn, socket: conn, of: newStreams(), bytes: testFlow()}, patience: 30 * time.Second}
	_ = f.SetDeadline(time.Unix(1, 0)) // raft's own, by the size alone
	if n, err := f.Write(make([]byte, 2*flowChunk+7)); err != nil || n != 2*flowChunk+7 {
		t.Fatalf("%d, %v", n, err)
	}
	if !slices.Equal(conn.sizes, []int{flowChunk, flowChunk, 7}) || len(conn.writes) != 3 {
		t.Errorf("writes of %v with %d deadlines", conn.sizes, len(conn.writes))
	}
	if _, err := f.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	if d := time.Until(conn.reads[0]); d < 59*time.Second || d > time.Minute {
		t.Errorf("the answer has %s", d)
	}
}

// Whoever opens stream after stream loses the one that is idle longest, and nobody else's.
func TestStreamsOfAPeerAreBounded(t *testing.T) {
	n1, n2, n3 := openHub(t, "n1", nil), openHub(t, "n2", nil), openHub(t, "n3", nil)
	acquaint(n1, n2, n3)
	transport, err := n1.Transport(0, everybody)
	if err != nil {
		t.Fatal(err)
	}
	transport.SetHeartbeatHandler(func(rpc raft.RPC) { rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil) })
	open := func(h *testHub) *stream {
		st, _, err := h.dial(awaitCtx(t), "n1", forRaft, 0)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	count := func(node string) int {
		return len(n1.streams.which(func(s *stream) bool { return s.inbound && s.purpose == forRaft && s.who.Node == node }))
	}
	other := open(n3)
	first := open(n2)
	for i := range maxRaftStreams + 5 {
		open(n2)
		await(t, "n1 has it", func() bool { return count("n2") == min(i+2, maxRaftStreams) })
	}
	if _, err := first.Read(make([]byte, 1)); err == nil {
		t.Error("the oldest is still open")
	}
	if count("n3") != 1 {
		t.Error("another node's stream was closed")
	}
	_ = other.Close()
	await(t, "it is gone", func() bool { return count("n3") == 0 })
}

// A stream on which nothing comes is closed by who accepted it, and nobody's request is lost by that.
func TestIdleStreamsGo(t *testing.T) {
	n1, n2 := openHub(t, "n1", func(c *Config) { c.IdleTimeout = 30 * time.Millisecond }), openHub(t, "n2", nil)
	acquaint(n1, n2)
	to, err := n1.Transport(0, everybody)
	if err != nil {
		t.Fatal(err)
	}
	to.SetHeartbeatHandler(func(rpc raft.RPC) { rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil) })
	from, err := n2.Transport(0, everybody)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		header := raft.RPCHeader{ID: []byte("n2"), Addr: []byte("n2")}
		if err := from.AppendEntries("n1", "n1", &raft.AppendEntriesRequest{RPCHeader: header, Term: 1}, &raft.AppendEntriesResponse{}); err != nil {
			t.Fatalf("after the stream had idled: %v", err)
		}
		await(t, "it is closed", func() bool { return n1.streams.total(forRaft, true) == 0 })
	}
}

func TestMetrics(t *testing.T) {
	ca := newAuthority(t)
	registry := prometheus.NewPedanticRegistry()
	n1 := openHub(t, "n1", func(c *Config) {
		c.Registerer, c.TLS = registry, ca.issue(t, t.TempDir(), named("n1"))
	})
	n2 := openHub(t, "n2", withTLS(ca.issue(t, t.TempDir(), named("n2"))))
	acquaint(n1, n2)
	n2.Handle("touch", func(context.Context, Call, io.Writer) error { return nil })
	if _, err := n1.Call(awaitCtx(t), "n2", "touch", nil); err != nil {
		t.Fatal(err)
	}
	await(t, "both are up", func() bool { return n1.status("n2").Reachable && n2.status("n1").Reachable })
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	want := []string{
		"forebay_peer_bytes_total", "forebay_peer_calls_total", "forebay_peer_certificate_valid_until_timestamp_seconds",
		"forebay_peer_clock_skew_seconds", "forebay_peer_handshakes_total", "forebay_peer_reachable", "forebay_peer_streams",
	}
	if !slices.Equal(names, want) {
		t.Errorf("metrics %v, want %v", names, want)
	}
	if err := n1.Close(); err != nil {
		t.Fatal(err)
	}
	if families, err := registry.Gather(); err != nil || len(families) != 0 {
		t.Errorf("after the end: %d families, %v", len(families), err)
	}
}
