package peer

import (
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// maxRPCBytes bounds one Raft request but for snapshots: 64 entries of at most 1 MiB,
	// and room to spare.
	maxRPCBytes = 80 << 20
	// installSnapshot is the first byte of a request in raft's protocol for which that does
	// not hold: its data go to disk as they come.
	installSnapshot = 2
	// A request that has begun must go on at minRate, after a grace.
	requestGrace = 10 * time.Second
	minRate      = 64 << 10 // bytes a second
	// flowChunk is how many bytes of a snapshot go per deadline.
	flowChunk = 256 << 10
)

// paced is an accepted Raft stream. Raft's transport sets no deadline on it and reads whatever
// comes; requests and answers take turns, so a request begins with the first byte after an answer.
// It is used by one goroutine at a time.
type paced struct {
	*stream
	hub     *Hub
	within  bool // in a request
	started time.Time
	got     int64
	limit   int64 // 0 is none
}

// Read implements net.Conn.
func (p *paced) Read(buf []byte) (int, error) {
	if !p.within {
		_ = p.SetReadDeadline(time.Now().Add(p.hub.cfg.IdleTimeout))
		n, err := p.stream.Read(buf)
		if n > 0 {
			p.within, p.started, p.got, p.limit = true, time.Now(), int64(n), maxRPCBytes
			if buf[0] == installSnapshot {
				p.limit = 0
			}
		}
		return n, err
	}
	if p.limit > 0 && p.got > p.limit {
		return 0, p.refuse(fmt.Errorf("a request of more than %d bytes", p.limit))
	}
	_ = p.SetReadDeadline(p.started.Add(requestGrace + time.Duration(p.got)*time.Second/minRate))
	n, err := p.stream.Read(buf)
	p.got += int64(n)
	return n, err
}

// Write implements net.Conn: the answer.
func (p *paced) Write(buf []byte) (int, error) {
	p.within = false
	_ = p.SetWriteDeadline(time.Now().Add(p.hub.cfg.BulkTimeout))
	return p.stream.Write(buf)
}

// refuse says once what a peer does amiss.
func (p *paced) refuse(err error) error {
	if p.hub.notices.first(fmt.Sprintf("rpc %s", p.who), "size", Stranger{Node: p.who.Node}) {
		p.hub.cfg.Logger.Error("a peer's Raft request is not taken", "peer", p.who.String(), "lane", p.lane, "error", err)
	}
	return err
}

// flowing is a dialled stream for one snapshot: no time is too long for the whole of it, as long as
// it flows. Raft's own deadline, which goes by the size alone, is ignored.
type flowing struct {
	*stream
	patience time.Duration
}

// SetDeadline implements net.Conn.
func (f *flowing) SetDeadline(time.Time) error { return nil }

// Write implements net.Conn.
func (f *flowing) Write(buf []byte) (int, error) {
	n := 0
	for n < len(buf) {
		_ = f.SetWriteDeadline(time.Now().Add(f.patience / 3))
		m, err := f.stream.Write(buf[n:min(n+flowChunk, len(buf))])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// Read implements net.Conn: the answer comes when the snapshot is on disk and restored.
func (f *flowing) Read(buf []byte) (int, error) {
	_ = f.SetReadDeadline(time.Now().Add(2 * f.patience))
	return f.stream.Read(buf)
}

// held is a stream that Raft has: release is called when Raft lets go of it.
type held struct {
	net.Conn
	release func()
	once    sync.Once
}

// Close implements net.Conn.
func (h *held) Close() error {
	err := h.Conn.Close()
	h.once.Do(h.release)
	return err
}
