package peer

import (
	"context"
	"errors"
	"io"
	"net"
	"time"
)

// accept takes connections until the listener is closed.
func (h *Hub) accept() {
	for {
		socket, err := h.cfg.Listener.Accept()
		if err != nil {
			if h.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, or a connection that was gone before we took it.
			if h.notices.first("accept", "accept", Stranger{}) {
				h.cfg.Logger.Error("connections of peers cannot be accepted; trying on", "error", err)
			}
			pause(h.ctx, acceptPause)
			continue
		}
		if !h.streams.greet(socket) {
			_ = socket.Close()
			return
		}
		h.loops.Go(func() { h.welcome(socket) })
	}
}

// acceptPause is how long no connection is accepted after one could not be.
const acceptPause = 100 * time.Millisecond

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// welcome leads one accepted connection through its handshake to where it belongs.
func (h *Hub) welcome(socket net.Conn) {
	ctx, cancel := context.WithTimeout(h.ctx, h.cfg.HandshakeTimeout)
	defer cancel()
	_ = socket.SetDeadline(time.Now().Add(h.cfg.HandshakeTimeout))
	if tcp, ok := socket.(*net.TCPConn); ok {
		// Not vital: without it a peer that is gone is only noticed later.
		_ = tcp.SetKeepAliveConfig(keepAlive)
		if raw, err := tcp.SyscallConn(); err == nil {
			_ = tune("", "", raw)
		}
	}
	var them hello
	ch, err := h.secure(ctx, socket, true)
	if err == nil {
		them, err = h.welcomeTo(ch)
	}
	h.streams.greeted(socket)
	if err != nil {
		_ = socket.Close()
		h.turnedAway(socket.RemoteAddr(), them, err)
		return
	}
	h.metrics.handshakes.WithLabelValues("in", "ok").Inc()
	if h.notices.over(strangerKey(socket.RemoteAddr(), them.id.Node)) {
		h.cfg.Logger.Info("peer welcome now", "peer", them.id.Node, "remote", socket.RemoteAddr().String())
	}
	_ = socket.SetDeadline(time.Time{})
	st := &stream{
		Conn: ch.Conn, socket: socket, who: them.id, purpose: them.purpose, lane: them.lane, inbound: true,
		bytes: h.metrics.flow(them.purpose),
	}
	if !h.streams.add(st) {
		_ = socket.Close()
		return
	}
	// Forgotten meanwhile, or its lane closed: both look for streams after they are out of the books.
	transport := h.transport(them.lane)
	switch {
	case !h.book.known(them.id.Node):
		_ = st.Close()
	case them.purpose == forControl:
		h.serve(st)
	case transport == nil:
		_ = st.Close()
	default:
		transport.welcome(st)
	}
}

// turnedAway records a connection that did not become a stream.
func (h *Hub) turnedAway(remote net.Addr, them hello, err error) {
	stranger := Stranger{Host: hostOf(remote), Node: them.id.Node, Reason: err.Error()}
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		h.metrics.handshakes.WithLabelValues("in", "failed").Inc()
		if h.ctx.Err() != nil || (errors.Is(err, io.EOF) && them.id.Node == "") {
			return // a look at the port, or our own end
		}
		if h.notices.first(strangerKey(remote, them.id.Node), "failed", stranger) {
			h.cfg.Logger.Warn("a connection to the peer port came to nothing", "remote", remote.String(), "node", them.id.Node, "error", err)
		}
		return
	}
	h.metrics.refused("in", refusal)
	if refusal.Code.passing() {
		return
	}
	if h.notices.first(strangerKey(remote, them.id.Node), refusal.Code.String(), stranger) {
		h.cfg.Logger.Warn("peer refused", "remote", remote.String(), "node", them.id.Node, "reason", refusal.Code.String(), "error", refusal)
	}
}

func strangerKey(remote net.Addr, node string) string { return "in " + hostOf(remote) + " " + node }

func hostOf(addr net.Addr) string {
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	return host
}
