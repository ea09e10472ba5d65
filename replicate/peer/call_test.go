package peer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func pairOf(t testing.TB, change func(*Config)) (n1, n2 *testHub) {
	t.Helper()
	n1, n2 = openHub(t, "n1", change), openHub(t, "n2", change)
	acquaint(n1, n2)
	return n1, n2
}

func TestCall(t *testing.T) {
	n1, n2 := pairOf(t, nil)
	n2.Handle("echo", func(_ context.Context, call Call, out io.Writer) error {
		if call.From != n1.ID() || call.Kind != "echo" {
			t.Errorf("asked by %s for %q", call.From, call.Kind)
		}
		_, err := out.Write(call.Request)
		return err
	})
	n2.Handle("fail", func(_ context.Context, _ Call, out io.Writer) error {
		_, _ = out.Write([]byte("half of"))
		return errors.New("segment 7 is\nnot there")
	})
	n2.Handle("much", func(_ context.Context, _ Call, out io.Writer) error {
		_, err := out.Write(make([]byte, MaxAnswer+1))
		return err
	})
	ctx := awaitCtx(t)
	big := make([]byte, MaxRequest)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(big)
	for _, body := range [][]byte{nil, []byte("hello"), big} {
		got, err := n1.Call(ctx, "n2", "echo", body)
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("%d bytes came back as %d, %v", len(body), len(got), err)
		}
	}
	_, err := n1.Call(ctx, "n2", "fail", nil)
	var remote *RemoteError
	if !errors.As(err, &remote) || remote.Words != "segment 7 is?not there" {
		t.Errorf("error %v", err)
	}
	mustFail(t, err, "node n2 ("+n2.Addr().String()+"): calling fail: segment 7 is?not there")
	if _, err := n1.Call(ctx, "n2", "nothing", nil); !errors.Is(err, ErrUnknownKind) {
		t.Errorf("error %v, want ErrUnknownKind", err)
	}
	if _, err := n1.Call(ctx, "n2", "echo", make([]byte, MaxRequest+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v, want ErrTooLarge", err)
	}
	if _, err := n1.Call(ctx, "n2", "much", nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v, want ErrTooLarge", err)
	}
}

func TestAnswersStream(t *testing.T) {
	const size = 20 << 20
	n1, n2 := pairOf(t, nil)
	sent := sha256.New()
	n2.Handle("export", func(_ context.Context, _ Call, out io.Writer) error {
		_, err := io.CopyN(io.MultiWriter(out, sent), rand.NewChaCha8([32]byte{2}), size)
		return err
	})
	answer, err := n1.Stream(awaitCtx(t), "n2", "export", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Close()
	got := sha256.New()
	n, err := io.Copy(got, answer)
	if err != nil || n != size || hex.EncodeToString(got.Sum(nil)) != hex.EncodeToString(sent.Sum(nil)) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// Whoever does not read holds up the handler, which holds little, and is given up in the end.
func TestASlowReaderHoldsTheHandlerUp(t *testing.T) {
	n1, n2 := pairOf(t, func(c *Config) { c.FlowTimeout = 300 * time.Millisecond })
	var written atomic.Int64
	ended := make(chan error, 1)
	n2.Handle("export", func(_ context.Context, _ Call, out io.Writer) error {
		part := make([]byte, maxPart)
		for {
			n, err := out.Write(part)
			written.Add(int64(n))
			if err != nil {
				ended <- err
				return err
			}
		}
	})
	answer, err := n1.Stream(awaitCtx(t), "n2", "export", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Close()
	start := time.Now()
	mustFail(t, <-ended, "sending the answer to n1")
	if took := time.Since(start); took > patience/2 {
		t.Errorf("it was given up after %s", took)
	}
	if n := written.Load(); n > 64<<20 {
		t.Errorf("%d bytes went to who does not read", n)
	}
	if _, err := io.Copy(io.Discard, answer); err == nil {
		t.Error("the answer that was broken off reads as whole")
	}
}

func TestPatienceTravels(t *testing.T) {
	n1, n2 := pairOf(t, nil)
	left := make(chan time.Duration, 1)
	ended := make(chan error, 1)
	n2.Handle("wait", func(ctx context.Context, _ Call, _ io.Writer) error {
		deadline, _ := ctx.Deadline()
		left <- time.Until(deadline)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return ctx.Err()
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	start := time.Now()
	_, err := n1.Call(ctx, "n2", "wait", nil)
	if took := time.Since(start); err == nil || took > 3*time.Second {
		t.Errorf("error %v after %s", err, took)
	}
	if got := <-left; got <= 0 || got > time.Second {
		t.Errorf("the handler has %s, want up to a second", got)
	}
	if err := <-ended; !errors.Is(err, context.DeadlineExceeded) && err.Error() != "the caller is gone" {
		t.Errorf("the handler ended for %v", err)
	}
}

func TestACallerThatIsGoneEndsTheHandler(t *testing.T) {
	n1, n2 := pairOf(t, nil)
	entered, ended := make(chan struct{}), make(chan error, 1)
	n2.Handle("wait", func(ctx context.Context, _ Call, _ io.Writer) error {
		close(entered)
		<-ctx.Done()
		ended <- context.Cause(ctx)
		return nil
	})
	ctx, cancel := context.WithCancelCause(context.Background())
	result := make(chan error, 1)
	go func() { _, err := n1.Call(ctx, "n2", "wait", nil); result <- err }()
	<-entered
	cancel(errors.New("enough"))
	mustFail(t, <-result, "n2", "calling wait", "enough")
	mustFail(t, <-ended, "the caller is gone")
}

func TestTooManyCallsAreRefused(t *testing.T) {
	n1, n2 := pairOf(t, func(c *Config) { c.PingInterval = time.Hour })
	release := make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	t.Cleanup(let) // before the hubs close
	var running atomic.Int64
	n2.Handle("wait", func(context.Context, Call, io.Writer) error { running.Add(1); <-release; return nil })
	ctx := awaitCtx(t)
	results := make(chan error, maxCalls)
	for range maxCalls {
		go func() { _, err := n1.Call(ctx, "n2", "wait", nil); results <- err }()
	}
	await(t, "all run", func() bool { return running.Load() == maxCalls })
	if _, err := n1.Call(ctx, "n2", "wait", nil); !errors.Is(err, ErrBusy) {
		t.Errorf("error %v, want ErrBusy", err)
	}
	let()
	for range maxCalls {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// An answer that is cut off at any byte is an error, never a shorter answer.
func TestAnAnswerThatIsCutOff(t *testing.T) {
	var whole bytes.Buffer
	_ = writeFrame(&whole, framePart, []byte("abc"))
	_ = writeFrame(&whole, framePart, []byte("defg"))
	_ = writeFrame(&whole, frameEnd, []byte{7, 0, 0, 0, 0, 0, 0, 0})
	read := func(raw []byte) (string, error) {
		conn := &scripted{in: bytes.NewReader(raw)}
		a := &answer{
			ctx: context.Background(), stop: func() bool { return true }, done: func(error) {}, fail: func(err error) error { return err },
			st: &stream{Conn: conn, socket: conn, of: newStreams(), bytes: testFlow()},
		}
		all, err := io.ReadAll(a)
		return string(all), err
	}
	if got, err := read(whole.Bytes()); got != "abcdefg" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
	for n := range whole.Len() {
		if got, err := read(whole.Bytes()[:n]); err == nil {
			t.Errorf("the first %d bytes read as %q", n, got)
		}
		flipped := append([]byte{}, whole.Bytes()...)
		flipped[n] ^= 4
		if got, err := read(flipped); err == nil {
			t.Errorf("with byte %d flipped it reads as %q", n, got)
		}
	}
	lost := append([]byte{}, whole.Bytes()[:frameHeader+3]...)
	lost = append(lost, whole.Bytes()[2*frameHeader+7:]...)
	if got, err := read(lost); err == nil {
		t.Errorf("without a part it reads as %q", got)
	}
}

func TestHello(t *testing.T) {
	plan := &Plan{Lanes: 2, Members: []Member{{"n1", Hex16{1}}, {"n2", Hex16{2}}}}
	n1 := openHub(t, "n1", nil)
	n2 := openHub(t, "n2", func(c *Config) {
		c.Describe = func() Description {
			return Description{Listed: []string{"n1", "n2"}, Lanes: 2, Empty: []bool{true, false}, Plan: plan, Members: plan.Members, Cluster: "abc"}
		}
	})
	acquaint(n1, n2)
	n1.SetPeer("n3", "127.0.0.1:1")
	answers := n1.Survey(awaitCtx(t), []string{"n1", "n2", "n3"})
	if len(answers) != 2 || answers["n3"].Err == nil || answers["n3"].Node != "n3" {
		t.Errorf("answers %s", sprint(answers))
	}
	a := answers["n2"]
	if a.Err != nil || a.Identity() != n2.ID() || a.Cluster != "abc" || !a.Formed() || len(a.Empty) != 2 || a.Plan.Members[1] != plan.Members[1] {
		t.Errorf("answer %s", sprint(a))
	}
	if off := time.Since(time.UnixMilli(a.Clock)); off.Abs() > time.Minute {
		t.Errorf("clock off by %s", off)
	}
	if _, err := n1.Ping(awaitCtx(t), "n2"); err != nil {
		t.Error(err)
	}
	if !strings.Contains(sprint(answers["n3"].Err), "n3") {
		t.Errorf("error %v", answers["n3"].Err)
	}
}

func FuzzFrame(f *testing.F) {
	var seed bytes.Buffer
	_ = (&request{kind: "hello", patience: time.Second, body: []byte("x")}).write(&seed)
	f.Add(seed.Bytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > frameHeader {
			raw = append([]byte{}, raw...)
			raw[0], raw[1], raw[2], raw[3] = byte(len(raw)-frameHeader), byte((len(raw)-frameHeader)>>8), byte((len(raw)-frameHeader)>>16), 0
			sum := frameSum(raw[4], raw[frameHeader:])
			raw[5], raw[6], raw[7], raw[8] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
		}
		kind, payload, err := readFrame(bytes.NewReader(raw))
		if err != nil {
			return
		}
		q, err := parseRequest(kind, payload)
		if err != nil {
			return
		}
		if q.patience < 0 || len(q.body) > MaxRequest {
			t.Fatalf("request %+v", q)
		}
	})
}
