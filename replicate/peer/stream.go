package peer

import (
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of what peers hold open here.
const (
	// maxPending is how many accepted connections may be in their handshake; then
	// the oldest goes.
	maxPending = 64
	// maxRaftStreams is per node and lane: three clients there with 3 pooled streams at
	// most, twice, in case the node was restarted without a word, and some. Then the one
	// longest idle goes.
	maxRaftStreams = 24
	// maxCalls is how many calls of one node are answered at a time.
	maxCalls = 32

	keepAliveIdle  = 5 * time.Second
	keepAliveCount = 2
	// deadAfter is how long bytes may stay unacknowledged by the other kernel.
	deadAfter = 15 * time.Second
)

// tune makes a dead peer known: by keep-alive while nothing is sent, by
// TCP_USER_TIMEOUT while something is.
func tune(_, _ string, c syscall.RawConn) error {
	var err error
	ctrl := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
	})
	if ctrl != nil {
		return ctrl
	}
	return err
}

var keepAlive = net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveIdle, Count: keepAliveCount}

// stream is one connection after its handshake. Its Close is immediate.
type stream struct {
	net.Conn          // through TLS, if there is
	socket   net.Conn // what it runs on
	of       *streams
	who      Identity
	purpose  purpose
	lane     uint32
	inbound  bool

	used   atomic.Int64 // when bytes last went, Unix nanoseconds
	bytes  *flow
	closed sync.Once
	after  func() // once closed; may be nil
}

// Read implements net.Conn.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if n > 0 {
		s.used.Store(time.Now().UnixNano())
		s.bytes.received.Add(float64(n))
	}
	return n, err
}

// Write implements net.Conn.
func (s *stream) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	if n > 0 {
		s.used.Store(time.Now().UnixNano())
		s.bytes.sent.Add(float64(n))
	}
	return n, err
}

// Close closes the socket: TLS would wait for a last word to go out.
func (s *stream) Close() error {
	var err error
	s.closed.Do(func() {
		s.of.remove(s)
		err = s.socket.Close()
		if s.after != nil {
			s.after()
		}
	})
	return err
}

// group is what a limit counts together.
type group struct {
	node    string
	purpose purpose
	lane    uint32
	inbound bool
}

func (s *stream) group() group { return group{s.who.Node, s.purpose, s.lane, s.inbound} }

// streams are all sockets of a hub, so that they can be closed from elsewhere.
type streams struct {
	mu      sync.Mutex
	cutOff  bool
	pending []net.Conn // in their handshake, oldest first
	dialled map[net.Conn]struct{}
	open    map[group]map[*stream]struct{}
}

func newStreams() *streams {
	return &streams{open: map[group]map[*stream]struct{}{}, dialled: map[net.Conn]struct{}{}}
}

// greet takes a socket for the time of its handshake; the oldest goes when there
// are too many. False once all was cut.
func (s *streams) greet(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cutOff {
		return false
	}
	if len(s.pending) >= maxPending {
		_ = s.pending[0].Close()
		s.pending = s.pending[1:]
	}
	s.pending = append(s.pending, c)
	return true
}

// greeted forgets a socket whose handshake is over, one way or the other.
func (s *streams) greeted(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.dialled, c)
	if i := slices.Index(s.pending, c); i >= 0 {
		s.pending = slices.Delete(s.pending, i, i+1)
	}
}

// dial takes a socket of ours for the time of its handshake. False once all was cut.
func (s *streams) dial(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cutOff {
		return false
	}
	s.dialled[c] = struct{}{}
	return true
}

// add takes a stream, and closes the one that is idle longest where peers hold
// too many open. False once all was cut: the stream is not taken.
func (s *streams) add(st *stream) bool {
	st.of = s
	st.used.Store(time.Now().UnixNano())
	s.mu.Lock()
	if s.cutOff {
		s.mu.Unlock()
		return false
	}
	g := st.group()
	var excess *stream
	if g.inbound && g.purpose == forRaft && len(s.open[g]) >= maxRaftStreams {
		for other := range s.open[g] {
			if excess == nil || other.used.Load() < excess.used.Load() {
				excess = other
			}
		}
	}
	if s.open[g] == nil {
		s.open[g] = map[*stream]struct{}{}
	}
	s.open[g][st] = struct{}{}
	s.mu.Unlock()
	if excess != nil {
		_ = excess.Close()
	}
	return true
}

func (s *streams) remove(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := st.group()
	delete(s.open[g], st)
	if len(s.open[g]) == 0 {
		delete(s.open, g)
	}
}

// total tells how many there are for a purpose and in a direction.
func (s *streams) total(p purpose, inbound bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for g, set := range s.open {
		if g.purpose == p && g.inbound == inbound {
			n += len(set)
		}
	}
	return n
}

// which gives the open streams that match.
func (s *streams) which(match func(*stream) bool) []*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []*stream
	for _, set := range s.open {
		for st := range set {
			if match(st) {
				found = append(found, st)
			}
		}
	}
	return found
}

// closeAll closes the open streams that match.
func (s *streams) closeAll(match func(*stream) bool) {
	for _, st := range s.which(match) {
		_ = st.Close()
	}
}

// cut closes everything, for ever.
func (s *streams) cut() {
	s.mu.Lock()
	s.cutOff = true
	greeting := s.pending
	for c := range s.dialled {
		greeting = append(greeting, c)
	}
	s.pending = nil
	s.mu.Unlock()
	for _, c := range greeting {
		_ = c.Close()
	}
	s.closeAll(func(*stream) bool { return true })
}
