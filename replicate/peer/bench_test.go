package peer

import (
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// answering serves a transport's requests at once, until the benchmark ends.
func answering(b *testing.B, consumer <-chan raft.RPC) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case rpc := <-consumer:
				rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
			case <-stop:
				return
			}
		}
	}()
	b.Cleanup(func() { close(stop); <-stopped })
}

// raftTCP is a pair of raft's own TCP transports: who sends, and where to.
func raftTCP(b *testing.B) (*raft.NetworkTransport, raft.ServerAddress) {
	open := func() *raft.NetworkTransport {
		t, err := raft.NewTCPTransportWithConfig("127.0.0.1:0", nil, &raft.NetworkTransportConfig{
			MaxPool: 3, MaxRPCsInFlight: 1, Timeout: 10 * time.Second, Logger: hclog.NewNullLogger(),
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = t.Close(); t.CloseStreams() })
		return t
	}
	to, from := open(), open()
	answering(b, to.Consumer())
	return from, to.LocalAddr()
}

// BenchmarkAppendEntries sends requests with entries of 256 KiB over raft's own TCP transport and over
// ours, in turns, and reports the medians, and ours against raft's.
func BenchmarkAppendEntries(b *testing.B) {
	for name, entries := range map[string]int{"1x256KiB": 1, "4x256KiB": 4} {
		b.Run(name, func(b *testing.B) {
			bare, at := raftTCP(b)
			n1, n2 := openHub(b, "n1", nil), openHub(b, "n2", nil)
			acquaint(n1, n2)
			ours, err := n1.Transport(0, everybody)
			if err != nil {
				b.Fatal(err)
			}
			theirs, err := n2.Transport(0, everybody)
			if err != nil {
				b.Fatal(err)
			}
			answering(b, theirs.Consumer())
			req := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ID: []byte("n1"), Addr: []byte("n1")}, Term: 1, PrevLogEntry: 1}
			for i := range entries {
				req.Entries = append(req.Entries, &raft.Log{Index: uint64(i + 2), Data: make([]byte, 256<<10)})
			}
			send := []func() error{
				func() error { return bare.AppendEntries("n2", at, req, &raft.AppendEntriesResponse{}) },
				func() error { return ours.AppendEntries("n2", "n2", req, &raft.AppendEntriesResponse{}) },
			}
			var took [2][]time.Duration
			for turn := 0; b.Loop(); turn++ {
				for i := range send {
					// Who goes first changes, so that neither always finds the caches warm.
					i = (i + turn) % len(send)
					start := time.Now()
					if err := send[i](); err != nil {
						b.Fatal(err)
					}
					took[i] = append(took[i], time.Since(start))
				}
			}
			mib := float64(entries) / 4
			b.ReportMetric(mib/median(took[0]), "raft-MiB/s")
			b.ReportMetric(mib/median(took[1]), "peer-MiB/s")
			b.ReportMetric(median(took[0])/median(took[1]), "peer/raft")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// median gives the middle one in seconds: the machine has others to serve.
func median(took []time.Duration) float64 {
	slices.Sort(took)
	return took[len(took)/2].Seconds()
}
