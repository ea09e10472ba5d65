package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// dial opens a stream to a node: to whoever answers at its address, provided that the
// handshake shows it to be that node. It takes at most DialTimeout and HandshakeTimeout, or until
// ctx ends. Errors are *Error; what it learns goes into the book.
func (h *Hub) dial(ctx context.Context, node string, what purpose, lane uint32) (*stream, hello, error) {
	address, ok := h.book.address(node)
	if !ok {
		return nil, hello{}, &Error{Node: node, Doing: "looking up its address", Err: ErrUnknownNode}
	}
	fail := func(doing string, err error) (*stream, hello, error) {
		if cause := context.Cause(h.ctx); cause != nil {
			err = ErrClosed
		}
		return nil, hello{}, &Error{Node: node, Address: address, Doing: doing, Err: err}
	}
	began := time.Now()
	dialer := net.Dialer{Timeout: h.cfg.DialTimeout, KeepAliveConfig: keepAlive, Control: tune}
	socket, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		h.missed(ctx, node, began, err)
		return fail("connecting", err)
	}
	if !h.streams.dial(socket) {
		_ = socket.Close()
		return fail("connecting", ErrClosed)
	}
	defer h.streams.greeted(socket)
	them, skew, ch, err := h.greet(ctx, socket, node, what, lane)
	if err != nil {
		_ = socket.Close()
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("%w (%w)", err, cause)
		}
		h.missed(ctx, node, began, err)
		return fail("shaking hands", err)
	}
	h.metrics.handshakes.WithLabelValues("out", "ok").Inc()
	if h.book.answered(them, skew) {
		h.cfg.Logger.Info("peer is back", "peer", node, "address", address, "release", them.release)
	}
	st := &stream{
		Conn: ch.Conn, socket: socket, who: them.id, purpose: what, lane: lane, bytes: h.metrics.flow(what),
	}
	if !h.streams.add(st) || !h.book.known(node) {
		_ = st.Close()
		return fail("connecting", ErrClosed)
	}
	return st, them, nil
}

// greet leads one connection of ours through its handshake. It ends with ctx.
func (h *Hub) greet(ctx context.Context, socket net.Conn, node string, what purpose, lane uint32) (hello, time.Duration, channel, error) {
	deadline := time.Now().Add(h.cfg.HandshakeTimeout)
	if sooner, ok := ctx.Deadline(); ok && sooner.Before(deadline) {
		deadline = sooner
	}
	_ = socket.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { _ = socket.SetDeadline(time.Unix(1, 0)) })
	ch, err := h.secure(ctx, socket, false)
	var them hello
	var skew time.Duration
	if err == nil {
		them, skew, err = h.introduceTo(ch, node, what, lane)
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err == nil {
		_ = socket.SetDeadline(time.Time{})
	}
	return them, skew, ch, err
}

// missed records that a node could not be spoken to.
func (h *Hub) missed(ctx context.Context, node string, began time.Time, err error) {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		h.metrics.refused("out", refusal)
		if refusal.Code.passing() {
			return
		}
	} else {
		h.metrics.handshakes.WithLabelValues("out", "failed").Inc()
		// Who gives up, or has no patience, says nothing about the node.
		impatient := errors.Is(ctx.Err(), context.DeadlineExceeded) && time.Since(began) < h.cfg.QuickTimeout/2
		if h.ctx.Err() != nil || errors.Is(ctx.Err(), context.Canceled) || impatient {
			return
		}
	}
	if !h.book.failed(node, err) {
		return
	}
	address, _ := h.book.address(node)
	if refusal != nil {
		h.cfg.Logger.Warn("peer refused", "peer", node, "address", address, "reason", refusal.Code.String(), "error", refusal)
		return
	}
	h.cfg.Logger.Warn("peer is away", "peer", node, "address", address, "error", err)
}
