package peer

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func TestPeersFindEachOther(t *testing.T) {
	clock := func() time.Time { return time.Now().Add(time.Hour) }
	n1 := openHub(t, "n1", func(c *Config) { c.Lanes = 3 })
	n2 := openHub(t, "n2", func(c *Config) { c.Clock = clock })
	n3 := openHub(t, "n3", nil)
	acquaint(n1, n2, n3)
	for _, pair := range [][2]*testHub{{n1, n2}, {n2, n1}, {n1, n3}, {n3, n1}} {
		await(t, "they are reachable", func() bool { return pair[0].status(pair[1].ID().Node).Reachable })
	}
	s := n1.status("n2")
	if s.Incarnation != n2.ID().Incarnation || s.Release != "0.2.0" || s.Protocol != 1 || s.Refusal != nil || s.LastError != "" {
		t.Errorf("status %+v", s)
	}
	if s := n2.status("n1"); s.Lanes != 3 {
		t.Errorf("n1 has 3 lanes, n2 knows of %d", s.Lanes)
	}
	if off := s.Skew - time.Hour; off.Abs() > time.Second {
		t.Errorf("skew %s, want an hour", s.Skew)
	}
	await(t, "n2 knows both", func() bool { _, n := n2.ClockOffset(); return n == 3 })
	if ahead, _ := n2.ClockOffset(); (ahead - time.Hour).Abs() > time.Second {
		t.Errorf("n2 is ahead of the median by %s, want an hour", ahead)
	}
	await(t, "n1 knows both", func() bool { _, n := n1.ClockOffset(); return n == 3 })
	if ahead, _ := n1.ClockOffset(); ahead.Abs() > time.Second {
		t.Errorf("n1 is ahead of the median by %s, want nothing", ahead)
	}
	if n := len(n1.Strangers()); n != 0 {
		t.Errorf("strangers: %+v", n1.Strangers())
	}
}

// Each pair refuses each other, in words, on both sides, and says so once however often they try.
func TestBothSidesSayWhyOnce(t *testing.T) {
	for _, tc := range []struct {
		name string
		n2   func(*Config)
		// meet makes them known to each other; nil is by both addresses.
		meet  func(n1, n2 *testHub)
		code  Code
		words string
	}{
		{name: "another gateway", n2: func(c *Config) { c.Gateway = "other" }, code: CodeGateway, words: `belongs to gateway`},
		{name: "another number of lanes", n2: func(c *Config) { c.Lanes = 2 }, code: CodeLanes, words: "leave cluster.lanes out"},
		{
			name: "an unknown id", code: CodeUnknown, words: `"n2" is neither in cluster.peers of n1`,
			meet: func(n1, n2 *testHub) { n2.SetPeer("n1", n1.Addr().String()) },
		},
		{
			name: "two processes with one id", code: CodeSelf, words: "two processes run as node n1",
			n2: func(c *Config) { c.ID = Identity{"n1", incarnationOf("n1", 2)} },
			meet: func(n1, n2 *testHub) {
				n2.SetPeer("n3", n1.Addr().String())
				n1.SetPeer("n3", n2.Addr().String())
			},
		},
		{
			name: "a wrong address", code: CodeMisdirected, words: "n3 was meant, and this is n1",
			meet: func(n1, n2 *testHub) {
				n1.SetPeer("n2", n2.Addr().String())
				n2.SetPeer("n3", n1.Addr().String())
			},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n1 := openHub(t, "n1", func(c *Config) { c.Lanes = 3 })
			n2 := openHub(t, "n2", tc.n2)
			if tc.meet == nil {
				acquaint(n1, n2)
			} else {
				tc.meet(n1, n2)
			}
			refused := func() *Stranger {
				for _, s := range n1.Strangers() {
					if s.Node == n2.ID().Node && strings.Contains(s.Reason, tc.words) {
						return &s
					}
				}
				return nil
			}
			await(t, "n1 has refused it several times", func() bool { s := refused(); return s != nil && s.Times > 3 })
			var seen *Refusal
			for _, s := range n2.Peers() {
				seen = s.Refusal
			}
			if seen == nil || seen.Code != tc.code || !strings.Contains(seen.Words, tc.words) {
				t.Errorf("n2 was told %+v, want %s: %s", seen, tc.code, tc.words)
			}
			if n := n1.log.count("peer refused", "remote=", "reason="+tc.code.String()); n != 1 {
				t.Errorf("n1 says it %d times, want once:\n%s", n, n1.log)
			}
			if n := n2.log.count("peer refused", "address="+n1.Addr().String(), "reason="+tc.code.String()); n != 1 {
				t.Errorf("n2 says it %d times, want once:\n%s", n, n2.log)
			}
		})
	}
}

func TestAnAddressThatLeadsBack(t *testing.T) {
	n1 := openHub(t, "n1", nil)
	n1.SetPeer("n2", n1.Addr().String())
	await(t, "it is said", func() bool { return n1.log.count("n1 has connected to itself") > 0 })
	if s := n1.status("n2"); s.Reachable || s.Refusal == nil || s.Refusal.Code != CodeSelf {
		t.Errorf("status %+v", s)
	}
}

func TestARefusalThatIsOverIsSaid(t *testing.T) {
	n1, n2 := openHub(t, "n1", nil), openHub(t, "n2", nil)
	n2.SetPeer("n1", n1.Addr().String())
	await(t, "n2 is refused", func() bool { return n2.status("n1").Refusal != nil })
	n1.SetPeer("n2", n2.Addr().String())
	await(t, "n2 is welcome", func() bool { return n2.status("n1").Reachable })
	await(t, "both say so", func() bool {
		return n2.log.count("peer is back", "peer=n1") == 1 && n1.log.count("peer welcome now", "peer=n2") == 1
	})
	if n := len(n1.Strangers()); n != 0 {
		t.Errorf("strangers: %+v", n1.Strangers())
	}
	n1.Forget("n2")
	await(t, "n2 is refused again", func() bool { return n2.status("n1").Refusal != nil })
}

func TestAPeerThatIsAway(t *testing.T) {
	n1 := openHub(t, "n1", nil)
	gone := listen(t)
	n1.SetPeer("n2", gone.Addr().String())
	_ = gone.Close()
	await(t, "it is noticed", func() bool { return n1.status("n2").LastError != "" })
	start := time.Now()
	_, err := n1.Call(awaitCtx(t), "n2", "anything", nil)
	mustFail(t, err, "node n2", gone.Addr().String(), "connecting", "refused")
	if took := time.Since(start); took > time.Second {
		t.Errorf("it took %s", took)
	}
	_, err = n1.Call(awaitCtx(t), "n7", "anything", nil)
	if !errors.Is(err, ErrUnknownNode) {
		t.Errorf("error %v, want ErrUnknownNode", err)
	}
	if n := n1.log.count("peer is away", "peer=n2"); n != 1 {
		t.Errorf("said %d times:\n%s", n, n1.log)
	}
}

// Its address in the book is changed while it runs.
func TestAPeerMoves(t *testing.T) {
	n1, n2 := openHub(t, "n1", nil), openHub(t, "n2", nil)
	n2.SetPeer("n1", n1.Addr().String())
	n1.SetPeer("n2", "127.0.0.1:1")
	await(t, "it is away", func() bool { return n1.status("n2").LastError != "" })
	n1.SetPeer("n2", n2.Addr().String())
	await(t, "it is found", func() bool { return n1.status("n2").Reachable })
}

func TestWhoConnectsAndSaysNothing(t *testing.T) {
	n1 := openHub(t, "n1", func(c *Config) { c.HandshakeTimeout = 50 * time.Millisecond })
	silent := dialRaw(t, n1)
	if _, err := silent.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after the handshake's time the connection gives %v, want EOF", err)
	}
	n1.streams.mu.Lock()
	defer n1.streams.mu.Unlock()
	if n := len(n1.streams.pending); n != 0 {
		t.Errorf("%d pending", n)
	}
}

// A hello that comes a byte at a time has the time of a handshake, not that time for each byte.
func TestWhoDripsItsHello(t *testing.T) {
	n1 := openHub(t, "n1", func(c *Config) { c.HandshakeTimeout = 100 * time.Millisecond })
	c := dialRaw(t, n1)
	raw := (&hello{oldest: 1, newest: 1, gateway: "g", id: Identity{"n2", [16]byte{1}}}).encode()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	for _, b := range raw {
		<-tick.C
		if _, err := c.Write([]byte{b}); err != nil {
			break
		}
	}
	_, _ = io.Copy(io.Discard, c)
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it was listened to for %s", took)
	}
	if len(n1.Strangers()) > 1 {
		t.Errorf("strangers %+v", n1.Strangers())
	}
}

// Those who are silent give way to those who speak.
func TestSilentConnectionsDoNotKeepPeersOut(t *testing.T) {
	n1, n2 := openHub(t, "n1", func(c *Config) { c.HandshakeTimeout = time.Minute }), openHub(t, "n2", nil)
	for range 2 * maxPending {
		dialRaw(t, n1)
	}
	acquaint(n1, n2)
	await(t, "n2 gets through", func() bool { return n2.status("n1").Reachable })
	n1.streams.mu.Lock()
	defer n1.streams.mu.Unlock()
	if n := len(n1.streams.pending); n > maxPending {
		t.Errorf("%d connections pending, more than %d", n, maxPending)
	}
}

func TestGarbageIsAnsweredAndSaidOnce(t *testing.T) {
	n1 := openHub(t, "n1", nil)
	for range 5 {
		c := dialRaw(t, n1)
		if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		back, err := readHello(c)
		if err != nil || back.refusal == nil || back.id.Node != "" {
			t.Errorf("answer %+v, %v", back, err)
		}
	}
	await(t, "all were noticed", func() bool { s := n1.Strangers(); return len(s) == 1 && s[0].Times == 5 })
	if n := n1.log.count("came to nothing"); n != 1 {
		t.Errorf("said %d times:\n%s", n, n1.log)
	}
}

// An acceptor takes nobody in who has not confirmed.
func TestNoStreamWithoutConfirmation(t *testing.T) {
	n1 := openHub(t, "n1", nil)
	n1.SetPeer("n2", "127.0.0.1:1")
	called := make(chan struct{}, 1)
	n1.Handle("touch", func(context.Context, Call, io.Writer) error { called <- struct{}{}; return nil })
	c := dialRaw(t, n1)
	me := hello{oldest: 1, newest: 1, gateway: "g", id: Identity{"n2", [16]byte{5}}, wants: "n1", purpose: forControl}
	if _, err := c.Write(me.encode()); err != nil {
		t.Fatal(err)
	}
	if back, err := readHello(c); err != nil || back.refusal != nil || back.id != n1.ID() {
		t.Fatalf("answer %+v, %v", back, err)
	}
	no := hello{oldest: 1, newest: 1, refusal: &Refusal{Code: CodeMisdirected, Words: "n9 was meant"}}
	if _, err := c.Write(no.encode()); err != nil {
		t.Fatal(err)
	}
	q := request{kind: "touch"}
	_ = q.write(c)
	_, _ = io.Copy(io.Discard, c)
	await(t, "the acceptor knows why", func() bool { return n1.log.count("peer refused", "n2 refuses (misdirected): n9 was meant") == 1 })
	select {
	case <-called:
		t.Error("the call was answered")
	default:
	}
}

func TestTwinsAreSaid(t *testing.T) {
	n1, n2 := openHub(t, "n1", nil), openHub(t, "n2", nil)
	acquaint(n1, n2)
	twin := openHub(t, "n2", func(c *Config) { c.ID.Incarnation = incarnationOf("n2", 2) })
	held := make(chan struct{})
	n1.Handle("hold", func(ctx context.Context, _ Call, out io.Writer) error {
		_, err := out.Write([]byte("held"))
		<-ctx.Done()
		close(held)
		return err
	})
	twin.SetPeer("n1", n1.Addr().String())
	answer, err := twin.Stream(awaitCtx(t), "n1", "hold", nil)
	if err != nil {
		t.Fatal(err)
	}
	await(t, "it is said", func() bool { return n1.log.count("two processes run under one node id", "peer=n2") == 1 })
	if !n1.status("n2").Twin {
		t.Error("the status does not say so")
	}
	if got := n1.status("n2").Incarnation; got != n2.ID().Incarnation {
		t.Errorf("n2 is taken for the one that called, %x", got)
	}
	_ = answer.Close()
	<-held
	await(t, "it is over", func() bool { return !n1.status("n2").Twin })
}

// Cut closes what hangs, and does not wait for it.
func TestCutWaitsForNothing(t *testing.T) {
	n1, n2 := openHub(t, "n1", nil), openHub(t, "n2", nil)
	acquaint(n1, n2)
	release := make(chan struct{})
	entered := make(chan struct{})
	n1.Handle("hang", func(context.Context, Call, io.Writer) error { close(entered); <-release; return nil })
	defer close(release)
	ended := make(chan error, 1)
	ctx := awaitCtx(t)
	go func() { _, err := n2.Call(ctx, "n1", "hang", nil); ended <- err }()
	<-entered
	n1.Cut()
	mustFail(t, <-ended, "n1", "cut off")
	if _, err := net.Dial("tcp", n1.Addr().String()); err == nil {
		t.Error("it still listens")
	}
}

// A node of the next minor version, which speaks ours as well, is a peer; one of the version after that is told what to do.
func TestNeighbouringVersionsSpeak(t *testing.T) {
	n1 := openHub(t, "n1", nil)
	n1.SetPeer("n2", "127.0.0.1:1")
	for _, tc := range []struct {
		oldest, newest uint16
		refused        string
	}{
		{newestProtocol, newestProtocol + 1, ""},
		{newestProtocol + 1, newestProtocol + 2, "n2 (release 9.9.9) speaks peer protocol 2 to 3, n1 (release 0.2.0) speaks 1: upgrade one minor version at a time"},
	} {
		c := dialRaw(t, n1)
		them := hello{
			oldest: tc.oldest, newest: tc.newest, gateway: "g", id: Identity{"n2", [16]byte{5}}, release: "9.9.9",
			wants: "n1", purpose: forControl,
		}
		if _, err := c.Write(them.encode()); err != nil {
			t.Fatal(err)
		}
		back, err := readHello(c)
		if err != nil {
			t.Fatal(err)
		}
		words := ""
		if back.refusal != nil {
			words = back.refusal.Words
		}
		if words != tc.refused {
			t.Errorf("versions %d to %d: %q, want %q", tc.oldest, tc.newest, words, tc.refused)
		}
	}
}

// A reason that has the time in it is the same reason.
func TestOneReasonIsSaidOnceWhateverItsWords(t *testing.T) {
	n := newNotices(time.Now)
	for i, tc := range []struct {
		what, reason string
		first        bool
	}{{"tls", "expired since 1 s", true}, {"tls", "expired since 2 s", false}, {"gateway", "another", true}, {"gateway", "another", false}} {
		if got := n.first("key", tc.what, Stranger{Host: "h", Reason: tc.reason}); got != tc.first {
			t.Errorf("%d: first is %t", i, got)
		}
		if s := n.strangers(); len(s) != 1 || s[0].Reason != tc.reason {
			t.Errorf("%d: strangers %+v", i, s)
		}
	}
	if !n.over("key") || n.over("key") {
		t.Error("over is told more or less than once")
	}
}
