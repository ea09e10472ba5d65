package node

import (
	"errors"
	"net"
	"strings"
	"testing"
)

func TestOneLineAtTheStartAndOneAtTheEnd(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	r := p.up()
	b.produce("clicks", 0, numbers(0, 10)...)
	r.awaitDelivered("files", 10)
	r.stop()
	start := r.logs.lines("forebay starts")
	if len(start) != 1 || len(r.logs.lines("forebay starts", "version="+Version, "gateway=forebay", "node=n1",
		"data_dir="+p.path("data"), "config="+p.path("forebay.toml"), `sinks="files (file)"`)) != 1 {
		t.Errorf("the first line is %q", start)
	}
	end := r.logs.lines("forebay ends")
	if len(end) != 1 || len(r.logs.lines("forebay ends", `reason="told to stop"`, "ran=")) != 1 {
		t.Errorf("the last line is %q", end)
	}
	if text := strings.TrimSpace(r.logs.String()); !strings.HasSuffix(text, strings.TrimSpace(end[0])) {
		t.Error("the last line is not the last")
	}
	p.wantValues("files", numbers(0, 10))
}

func TestAnAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := newPlace(t, nil, "clicks")
	f := p.config()
	f.Node.HTTP = l.Addr().String()
	n := newNode(Options{Config: f, Logger: discard(), Stdout: p.stdout}, p.machine)
	if err := n.run(t.Context()); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Errorf("got %v, want ErrInUse with the address", err)
	}
}
