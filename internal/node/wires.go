package node

import (
	"context"
	"net"
	"net/http"
	"sync"
)

// wires are the node's ways out and in: what must be gone before the node is. A thread
// that waits for a hung disk keeps even a killed process, with every socket that
// is open: the group, its peers and a successor would take it for alive. Its methods
// are safe for concurrent use, and wait for nothing.
type wires struct {
	mu    sync.Mutex
	cut   bool
	conns map[*wire]struct{}
	http  *http.Server
}

// wire is one connection to somebody else.
type wire struct {
	net.Conn
	of *wires
}

// Close closes the connection and forgets it.
func (c *wire) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// dial connects to somebody, unless all was cut: net.ErrClosed then.
func (w *wires) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &wire{Conn: conn, of: w}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	if w.conns == nil {
		w.conns = map[*wire]struct{}{}
	}
	w.conns[c] = struct{}{}
	return c, nil
}

// serving adds what is served over HTTP.
func (w *wires) serving(s *http.Server) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.http = s
}

// cutAll closes every connection and listener, for good.
func (w *wires) cutAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	for c := range w.conns {
		_ = c.Conn.Close()
	}
	w.conns = nil
	if w.http != nil {
		_ = w.http.Close()
	}
}
