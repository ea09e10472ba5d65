package peer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

var (
	// ErrUnknownKind says that the other node does not know a kind of call: it runs an
	// earlier release, or has not come so far in its start.
	ErrUnknownKind = errors.New("the node does not know this kind of call")
	// ErrBusy says that the other node answers as many calls of ours as it may.
	ErrBusy = errors.New("the node answers too many calls already")
	// ErrTooLarge says that a request or an answer is larger than it may be.
	ErrTooLarge = errors.New("larger than a call may be")
)

// RemoteError is what a handler on another node said.
type RemoteError struct {
	Words string
}

// Error implements error.
func (e *RemoteError) Error() string { return e.Words }

// MaxAnswer bounds what Call collects in memory; larger answers are for Stream.
const MaxAnswer = 4 << 20

// Call asks a node and gives its whole answer, of at most MaxAnswer bytes. It takes until ctx
// ends, and without a deadline of ctx at most FlowTimeout for each part of the answer; to a node
// that is away, DialTimeout and HandshakeTimeout. Errors are *Error.
func (h *Hub) Call(ctx context.Context, node, kind string, body []byte) ([]byte, error) {
	answer, err := h.Stream(ctx, node, kind, body)
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	all, err := io.ReadAll(io.LimitReader(answer, MaxAnswer+1))
	if err != nil {
		return nil, err
	}
	if len(all) > MaxAnswer {
		return nil, &Error{Node: node, Doing: "calling " + kind, Err: fmt.Errorf("an answer of more than %d bytes: %w", MaxAnswer, ErrTooLarge)}
	}
	return all, nil
}

// Stream asks a node and gives its answer to read as it comes: io.EOF is the end of the whole
// answer, anything else an *Error. While it is not read, the handler waits; after FlowTimeout it gives up. The reader
// ends with ctx, and must be closed. It is for one goroutine.
func (h *Hub) Stream(ctx context.Context, node, kind string, body []byte) (io.ReadCloser, error) {
	address, _ := h.book.address(node)
	fail := func(err error) error {
		return &Error{Node: node, Address: address, Doing: "calling " + kind, Err: err}
	}
	if len(body) > MaxRequest || len(kind) > MaxKind {
		return nil, fail(fmt.Errorf("a request of %d bytes: %w", len(body), ErrTooLarge))
	}
	st, _, err := h.dial(ctx, node, forControl, 0)
	if err != nil {
		h.metrics.call("out", kind, err)
		return nil, err
	}
	a := &answer{ctx: ctx, st: st, patience: h.cfg.FlowTimeout, done: func(err error) { h.metrics.call("out", kind, err) }, fail: fail}
	a.stop = context.AfterFunc(ctx, func() { _ = st.Close() })
	q := request{kind: kind, body: body}
	if deadline, ok := ctx.Deadline(); ok {
		q.patience = max(time.Until(deadline), time.Millisecond)
	}
	_ = st.SetWriteDeadline(time.Now().Add(h.cfg.FlowTimeout))
	if err := q.write(st); err != nil {
		return nil, a.end(fmt.Errorf("sending the request: %w", err))
	}
	return a, nil
}

// answer reads what a handler writes.
type answer struct {
	ctx      context.Context
	st       *stream
	patience time.Duration
	stop     func() bool
	done     func(error)
	fail     func(error) error

	part []byte // what is left of the part that came last
	got  uint64
	err  error // sticky
}

// Read implements io.Reader.
func (a *answer) Read(p []byte) (int, error) {
	for len(a.part) == 0 && a.err == nil {
		a.next()
	}
	if len(a.part) == 0 {
		return 0, a.err
	}
	n := copy(p, a.part)
	a.part = a.part[n:]
	return n, nil
}

// next takes in one frame.
func (a *answer) next() {
	deadline := time.Now().Add(a.patience)
	if theirs, ok := a.ctx.Deadline(); ok {
		deadline = theirs
	}
	_ = a.st.SetReadDeadline(deadline)
	kind, payload, err := readFrame(a.st)
	switch {
	case err != nil:
		_ = a.end(fmt.Errorf("the answer was cut off: %w", err))
	case kind == framePart:
		a.part, a.got = payload, a.got+uint64(len(payload))
	case kind == frameEnd && len(payload) == 8 && binary.LittleEndian.Uint64(payload) == a.got:
		a.whole()
	case kind == frameError && len(payload) > 0:
		_ = a.end(errorOf(payload[0], printable(payload[1:])))
	default:
		_ = a.end(fmt.Errorf("%w: frame %d of %d bytes after %d bytes of answer", errNonsense, kind, len(payload), a.got))
	}
}

func errorOf(code byte, words string) error {
	switch code {
	case errorUnknown:
		return fmt.Errorf("%w: %s", ErrUnknownKind, words)
	case errorBusy:
		return fmt.Errorf("%w: %s", ErrBusy, words)
	default:
		return &RemoteError{Words: words}
	}
}

// whole ends a call whose answer is all here.
func (a *answer) whole() {
	a.stop()
	_ = a.st.Close()
	a.err = io.EOF
	a.done(nil)
}

// end ends a call, once, with the reason why there is no more.
func (a *answer) end(reason error) error {
	if a.err != nil {
		return a.err
	}
	a.stop()
	_ = a.st.Close()
	if cause := context.Cause(a.ctx); cause != nil {
		reason = cause
	} else if errors.Is(reason, os.ErrDeadlineExceeded) {
		reason = fmt.Errorf("nothing came in time: %w", reason)
	}
	a.err = a.fail(reason)
	a.done(a.err)
	return a.err
}

// Close implements io.Closer: it ends the call where it is.
func (a *answer) Close() error {
	if a.err == nil {
		_ = a.end(errors.New("given up by the caller"))
	}
	return nil
}
