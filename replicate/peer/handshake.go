package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// channel is a connection on which a handshake can be spoken.
type channel struct {
	net.Conn
	// distrust is why the other side's certificate is not trusted: it is told that and
	// nothing else.
	distrust *Refusal
	// names says whether the certificate names a node; nil without TLS.
	names func(node string) error
}

// secure runs TLS over a socket where it is configured, as the side that connected or the
// one that accepted.
func (h *Hub) secure(ctx context.Context, socket net.Conn, accepted bool) (channel, error) {
	if h.keys == nil {
		return channel{Conn: socket}, nil
	}
	certs := h.keys.get()
	conn, usage := tls.Client(socket, certs.config()), x509.ExtKeyUsageServerAuth
	if accepted {
		conn, usage = tls.Server(socket, certs.config()), x509.ExtKeyUsageClientAuth
	}
	if err := conn.HandshakeContext(ctx); err != nil {
		return channel{}, plainly(socket, accepted, err)
	}
	state := conn.ConnectionState()
	if err := certs.trusts(state, usage, h.cfg.Clock()); err != nil {
		words := fmt.Sprintf("%v: check cluster.tls on both nodes", err)
		return channel{Conn: conn, distrust: &Refusal{Code: CodeTLS, Words: words, By: h.cfg.ID.Node}}, nil
	}
	return channel{Conn: conn, names: func(node string) error {
		return namesNode(state.PeerCertificates[0], h.cfg.Gateway, node)
	}}, nil
}

// plainly finds out whether TLS failed because the other side speaks none, and
// tells it so, in the clear.
func plainly(socket net.Conn, accepted bool, err error) error {
	var header tls.RecordHeaderError
	if !errors.As(err, &header) || string(header.RecordHeader[:]) != magic[:len(header.RecordHeader)] {
		return fmt.Errorf("TLS: %w", err)
	}
	if accepted {
		sayRefusal(socket, &Refusal{Code: CodeTLS, Words: "this node speaks TLS only: set cluster.tls"})
		return &Refusal{Code: CodeTLS, Words: "it speaks no TLS: set cluster.tls there", By: "this node"}
	}
	return &Refusal{Code: CodeTLS, Words: "it speaks no TLS: set cluster.tls there, or on neither node", By: "this node"}
}

// sayRefusal tells the other side why, and gives it a moment to read it: closing at once
// would throw away what was sent when something of theirs is unread.
func sayRefusal(conn net.Conn, r *Refusal) {
	me := hello{oldest: oldestProtocol, newest: newestProtocol, refusal: r}
	linger(conn, me.encode())
}

func linger(conn net.Conn, last []byte) {
	if _, err := conn.Write(last); err != nil {
		return
	}
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = conn.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, conn, lingerBytes)
}

const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 64 << 10
)

// welcomeTo is the acceptor's part of the handshake: who came, and what for. The error is a
// Refusal when one of the two did not want; them holds what is known of the other side then.
func (h *Hub) welcomeTo(ch channel) (them hello, err error) {
	them, err = readHello(ch)
	if err != nil {
		if errors.Is(err, errNonsense) {
			sayRefusal(ch, &Refusal{Code: CodeTLS, Words: "this is the peer port of a Forebay node without TLS"})
		}
		return them, fmt.Errorf("reading the hello: %w", err)
	}
	if them.refusal != nil {
		return them, them.refusal
	}
	if ch.distrust != nil {
		sayRefusal(ch, ch.distrust)
		return them, ch.distrust
	}
	me := h.greeting()
	judge := party{self: me, known: h.book.known, names: ch.names, open: h.laneOpen}
	if h.ctx.Err() != nil {
		me.refusal = &Refusal{Code: CodeClosing, Words: me.id.Node + " stops", By: me.id.Node}
	} else {
		me.refusal = judge.judge(them)
	}
	if me.refusal != nil {
		linger(ch, me.encode())
		return them, me.refusal
	}
	if _, err := ch.Write(me.encode()); err != nil {
		return them, fmt.Errorf("answering the hello: %w", err)
	}
	confirm, err := readHello(ch)
	if err != nil {
		return them, fmt.Errorf("waiting for the confirmation: %w", err)
	}
	if confirm.refusal != nil {
		confirm.refusal.By = them.id.Node
		return them, confirm.refusal
	}
	return them, nil
}

// introduceTo is the dialler's part. The error is a Refusal when one of the two did not want.
func (h *Hub) introduceTo(ch channel, node string, what purpose, lane uint32) (them hello, skew time.Duration, err error) {
	if ch.distrust != nil {
		sayRefusal(ch, ch.distrust)
		return them, 0, ch.distrust
	}
	me := h.greeting()
	me.wants, me.purpose, me.lane = node, what, lane
	asked := h.cfg.Clock()
	if _, err := ch.Write(me.encode()); err != nil {
		return them, 0, fmt.Errorf("sending the hello: %w", err)
	}
	if them, err = readHello(ch); err != nil {
		return them, 0, fmt.Errorf("waiting for the answer to the hello: %w", err)
	}
	skew = skewOf(them.clock, asked, h.cfg.Clock())
	// Who is set up amiss on both sides hears the other's view of it as well: what we
	// think ourselves is only said when they do not mind.
	if them.refusal != nil {
		them.refusal.By = node
		return them, skew, them.refusal
	}
	judge := party{self: me, known: h.book.known, names: ch.names, meant: node}
	if refusal := judge.judge(them); refusal != nil {
		linger(ch, (&hello{oldest: oldestProtocol, newest: newestProtocol, refusal: refusal}).encode())
		return them, skew, refusal
	}
	_, err = ch.Write((&hello{oldest: oldestProtocol, newest: newestProtocol}).encode())
	if err != nil {
		return them, skew, fmt.Errorf("confirming: %w", err)
	}
	return them, skew, nil
}

func (h *Hub) laneOpen(lane uint32) bool { return h.transport(lane) != nil }
