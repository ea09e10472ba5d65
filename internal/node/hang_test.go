package node

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"forebay/internal/config"
)

// TestAHungDiskEndsTheNode (HARD-CASES 22): nothing that waits for the disk keeps
// the process, and first of all nobody takes it for alive any more: its connections
// and its listener are closed, at once and not after a time of grace.
func TestAHungDiskEndsTheNode(t *testing.T) {
	if !inChild(t) {
		return
	}
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	p.wal = `stallTimeout = "1s"`
	p.machine.endGrace = time.Hour
	layer := &files{}
	p.machine.files = layer
	r := p.up()
	address, connected := r.address, r.wires.open()
	layer.onSync(func() error { select {} })
	b.produce("clicks", 0, "one")
	err := r.end()
	if err == nil || !strings.Contains(err.Error(), "has not answered within wal.stallTimeout (1s)") || !strings.Contains(err.Error(), p.path("data")) {
		t.Errorf("the node ended with: %v", err)
	}
	if connected == 0 || r.wires.open() > 0 {
		t.Errorf("%d connections before, %d are left", connected, r.wires.open())
	}
	if conn, err := net.Dial("tcp", address); err == nil {
		_ = conn.Close()
		t.Error("HTTP is still listening")
	}
}

// open counts the connections.
func (w *wires) open() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.conns)
}

func TestCutWiresStayCut(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var w wires
	dial := func() (net.Conn, error) { return w.dial(t.Context(), "tcp", listener.Addr().String()) }
	var mine, theirs [2]net.Conn
	for i := range mine {
		if mine[i], err = dial(); err != nil {
			t.Fatal(err)
		}
		if theirs[i], err = listener.Accept(); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = theirs[i].Close() }()
	}
	if err := mine[0].Close(); err != nil || w.open() != 1 {
		t.Fatalf("closing gave %v, %d are open", err, w.open())
	}
	served := make(chan error, 1)
	server := &http.Server{ReadHeaderTimeout: time.Second}
	w.serving(server)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { served <- server.Serve(other) }()
	w.cutAll()
	if n, err := theirs[1].Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("the other end reads %d bytes, %v", n, err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Errorf("the server ended with %v", err)
	}
	if _, err := dial(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a later dial gives %v", err)
	}
	_ = mine[1].Close() // closed already
	w.cutAll()
}

// TestALogThatNobodyTakes: a last line that cannot be written does not keep the process.
func TestALogThatNobodyTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		began := time.Now()
		lastWord(func() { <-release })
		if took := time.Since(began); took != lastWordTimeout {
			t.Errorf("took %s", took)
		}
		close(release)
	})
}

// TestAStartOnAHungDisk ends in any stage: when its log says so, and when it was told
// to stop, although what builds it does not return.
func TestAStartOnAHungDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		hangs := func(context.Context) error { <-release; return nil }
		newHung := func() *Node {
			f := &config.File{}
			f.Node.StopTimeout = config.Duration(time.Minute)
			return newNode(Options{Config: f, Logger: slog.New(slog.DiscardHandler), Stdout: io.Discard}, thisMachine())
		}
		n := newHung()
		time.AfterFunc(time.Second, func() { n.stalled(errDisk); n.stalled(errors.New("a second")) })
		if err := n.unlessHung(t.Context(), hangs); !errors.Is(err, errDisk) || !isAbandoned(err) {
			t.Errorf("got %v", err)
		}
		told := newHung()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Hour, cancel)
		began := time.Now()
		err := told.unlessHung(ctx, hangs)
		if took := time.Since(began) - time.Hour; err == nil || !strings.Contains(err.Error(), "does not return") || took < time.Minute || took > 2*time.Minute {
			t.Errorf("after %s: %v", took, err)
		}
	})
}
