package wal

import (
	"slices"
	"sync"

	"github.com/hashicorp/raft"
)

// maxStarts bounds what Open keeps for ReadStart, in bytes.
const maxStarts = 32 << 20

// starts are the beginnings of the entries after the newest snapshot, as Open found them whole:
// what a state machine needs to take them in once more, without the log being read a second time.
type starts struct {
	mu    sync.Mutex
	first uint64
	list  []raft.Log
	size  int
	full  bool
}

// add keeps an entry, which follows the one before, until there are too many. Of a command it keeps
// what keep wants.
func (s *starts) add(h header, body []byte, keep func(data []byte) int) {
	ext, data := body[:h.extLen], body[h.extLen:]
	if h.kind == raft.LogCommand {
		data = data[:min(keep(data), len(data))]
	}
	s.size += len(ext) + len(data) + 128
	if s.full = s.full || s.size > maxStarts; s.full {
		return
	}
	if len(s.list) == 0 {
		s.first = h.index
	}
	e := raft.Log{Index: h.index, Term: h.term, Type: h.kind}
	if len(data) > 0 {
		e.Data = slices.Clone(data)
	}
	if len(ext) > 0 {
		e.Extensions = slices.Clone(ext)
	}
	s.list = append(s.list, e)
}

func (s *starts) get(index uint64, out *raft.Log) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if index < s.first || index-s.first >= uint64(len(s.list)) {
		return false
	}
	*out = s.list[index-s.first]
	return true
}

func (s *starts) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list, s.size = nil, 0
}

// ReadStart is GetLog for who takes the log in again after a start: a command that was there at Open
// may come with only as much of its data as Config.KeepStart wanted, from memory. It was
// checked by Open. After ForgetStarts, and where there is too much to keep, it is GetLog.
func (l *Log) ReadStart(index uint64, out *raft.Log) error {
	if l.starts.get(index, out) {
		return nil
	}
	return l.GetLog(index, out)
}

// ForgetStarts gives back the memory that ReadStart reads from.
func (l *Log) ForgetStarts() { l.starts.forget() }
