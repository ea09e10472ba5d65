package peer

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Code is why one node refuses another. The numbers are on the wire.
type Code uint8

// The reasons, in the order in which they are looked for.
const (
	CodeTLS         Code = 1  // no certificate, or one that is not trusted, or TLS on one side only
	CodeVersion     Code = 2  // no protocol version in common
	CodeGateway     Code = 3  // another gateway
	CodeSelf        Code = 4  // the refusing node's own id
	CodeUnknown     Code = 5  // an id that is no peer's
	CodeName        Code = 6  // a certificate that does not name the node
	CodeMisdirected Code = 7  // another node than was meant
	CodeLanes       Code = 8  // another number of lanes
	CodeLane        Code = 9  // a lane that is not open there
	CodeClosing     Code = 10 // the node stops
)

// String is the reason as metrics and status show it; a later version's is "other".
func (c Code) String() string {
	names := [...]string{"", "tls", "version", "gateway", "self", "unknown", "name", "misdirected", "lanes", "lane", "closing"}
	if c == 0 || int(c) >= len(names) {
		return "other"
	}
	return names[c]
}

// passing says that the reason goes away by itself: it is nothing to tell an operator.
func (c Code) passing() bool { return c == CodeLane || c == CodeClosing }

// Refusal is the error of a handshake that one of the two sides did not want.
type Refusal struct {
	Code Code
	// Words say what does not fit and what to do, from the view of who refuses.
	Words string
	// By is the node that refuses; "" when it did not say.
	By string
}

// Error implements error.
func (r *Refusal) Error() string {
	by := r.By
	if by == "" {
		by = "it"
	}
	return fmt.Sprintf("%s refuses (%s): %s", by, r.Code, r.Words)
}

var (
	// ErrClosed ends what is done with a hub or a transport that is closed.
	ErrClosed = errors.New("the peer hub is closed")
	// ErrUnknownNode says that the address book does not have a node.
	ErrUnknownNode = errors.New("no address is known of this node")
)

// Error says which node could not be spoken to, where it was looked for, and why.
type Error struct {
	Node, Address string
	// Doing is what was tried, such as "connecting".
	Doing string
	Err   error
}

// Error implements error.
func (e *Error) Error() string {
	at := ""
	if e.Address != "" {
		at = " (" + e.Address + ")"
	}
	return fmt.Sprintf("node %s%s: %s: %v", e.Node, at, e.Doing, e.Err)
}

// Unwrap gives the reason.
func (e *Error) Unwrap() error { return e.Err }

// maxWords bounds what one node can make another log, in bytes.
const maxWords = 512

func shorten(s string) string {
	if len(s) <= maxWords {
		return s
	}
	s = s[:maxWords]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}

// printable makes text of what another node sent fit for a log line.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, strings.ToValidUTF8(shorten(string(b)), "?"))
}
