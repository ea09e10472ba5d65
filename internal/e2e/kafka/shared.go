package kafka

import (
	"context"
	"os"
	"sync"
	"testing"
)

// Shared is one cluster for all tests of a binary: starting Kafka costs seconds.
// Tests keep apart by names of topics and groups, and leave its nodes running.
// The zero value is ready. Safe for concurrent use.
type Shared struct {
	mu      sync.Mutex
	cluster *Cluster
	ends    []func()
}

// Get starts the cluster at the first call. Like Start it skips or fails the
// test when there is none to be had.
func (s *Shared) Get(tb testing.TB, options Options) *Cluster {
	tb.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cluster == nil {
		jars(tb) // skips in the name of the test that asked
		s.cluster = Start(&binary{TB: tb, shared: s}, options)
	}
	return s.cluster
}

// Close ends the cluster, if one was started: the last thing of TestMain.
func (s *Shared) Close() {
	for i := len(s.ends) - 1; i >= 0; i-- {
		s.ends[i]()
	}
	s.ends, s.cluster = nil, nil
}

// binary is a testing.TB whose things last as long as the test binary; what
// goes wrong while the cluster starts is the failure of the test that wanted it.
type binary struct {
	testing.TB
	shared *Shared
}

func (b *binary) Cleanup(f func()) { b.shared.ends = append(b.shared.ends, f) }

func (b *binary) Context() context.Context { return context.Background() }

func (b *binary) TempDir() string {
	dir, err := os.MkdirTemp("", "forebay-kafka-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
