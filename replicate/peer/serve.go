package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Call is what a handler is asked.
type Call struct {
	// From is who asks: the handshake showed it.
	From Identity
	// Kind is what the handler was declared for.
	Kind string
	// Request is the handler's to keep.
	Request []byte
}

// Handler answers a kind of call. What it writes is the answer, sent as it comes: Write blocks while
// the other side does not read, and fails when it is gone. A nil error ends the answer; an error is
// told in words, after what was written, and so makes the answer not whole. ctx ends with the caller's
// patience, when the caller is gone, and when the hub closes, which waits for the handler. It is called concurrently.
type Handler func(ctx context.Context, call Call, answer io.Writer) error

// serve answers the one call of a control stream.
func (h *Hub) serve(st *stream) {
	defer func() { _ = st.Close() }()
	_ = st.SetReadDeadline(time.Now().Add(h.cfg.HandshakeTimeout))
	kind, payload, err := readFrame(st)
	if err != nil {
		return // gone again, or silent
	}
	q, err := parseRequest(kind, payload)
	if err != nil {
		return
	}
	_ = st.SetReadDeadline(time.Time{})
	ctx, cancel := context.WithCancelCause(h.ctx)
	defer cancel(nil)
	if q.patience > 0 {
		var end context.CancelFunc
		ctx, end = context.WithTimeout(ctx, q.patience)
		defer end()
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		// Nothing more comes on this stream but its end.
		_, _ = st.Read(make([]byte, 1))
		cancel(errors.New("the caller is gone"))
	}()
	defer func() {
		_ = st.Close()
		<-gone
	}()
	out := &parts{st: st, patience: h.cfg.FlowTimeout}
	code, err := h.answer(ctx, st.who, q, out)
	if err == nil {
		err = out.write(frameEnd, binary.LittleEndian.AppendUint64(nil, out.sent))
	} else {
		// Whoever is gone does not hear it.
		_ = out.write(frameError, []byte{code}, []byte(shorten(err.Error())))
	}
	if code != errorUnknown {
		h.metrics.call("in", q.kind, err)
	}
	// Closing while something of theirs is unread would throw away what was sent last: they close
	// when they have it.
	select {
	case <-gone:
	case <-time.After(lingerTime):
	}
}

// answer runs the handler, and says how it failed.
func (h *Hub) answer(ctx context.Context, from Identity, q request, out io.Writer) (code byte, err error) {
	handle := h.handler(q.kind)
	if handle == nil {
		return errorUnknown, fmt.Errorf("%q is not known on %s, release %s", q.kind, h.cfg.ID.Node, h.cfg.Release)
	}
	if q.kind != helloKind { // which is short, and must not look like a node that is away
		if !h.take(from.Node) {
			return errorBusy, fmt.Errorf("%s already has %d calls under way on %s", from.Node, maxCalls, h.cfg.ID.Node)
		}
		defer h.giveBack(from.Node)
	}
	if err := handle(ctx, Call{From: from, Kind: q.kind, Request: q.body}, out); err != nil {
		return errorFailed, err
	}
	return 0, nil
}

// take counts a call of a node. False when it has too many under way.
func (h *Hub) take(node string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.calls[node] >= maxCalls {
		return false
	}
	h.calls[node]++
	return true
}

func (h *Hub) giveBack(node string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.calls[node]--; h.calls[node] == 0 {
		delete(h.calls, node)
	}
}

// parts sends an answer in parts.
type parts struct {
	st       *stream
	patience time.Duration
	sent     uint64
}

// Write implements io.Writer.
func (p *parts) Write(data []byte) (int, error) {
	n := 0
	for n < len(data) {
		part := data[n:min(n+maxPart, len(data))]
		if err := p.write(framePart, part); err != nil {
			return n, fmt.Errorf("sending the answer to %s: %w", p.st.who.Node, err)
		}
		n += len(part)
		p.sent += uint64(len(part))
	}
	return n, nil
}

func (p *parts) write(kind byte, payload ...[]byte) error {
	_ = p.st.SetWriteDeadline(time.Now().Add(p.patience))
	return writeFrame(p.st, kind, payload...)
}
