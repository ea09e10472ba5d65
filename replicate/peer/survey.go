package peer

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// helloKind is the one kind that the hub declares itself. It is what watchers and surveys ask.
const helloKind = "hello"

// Description is what a node has and was told, as others need it to decide what to do.
type Description struct {
	// Listed are the nodes of cluster.peers, its own among them.
	Listed []string `json:"listed"`
	// Lanes is cluster.lanes, or what is recorded; 0 when it follows.
	Lanes uint32 `json:"lanes"`
	// Empty says of each lane that is there whether it has neither log nor snapshot.
	Empty []bool `json:"empty"`
	// Plan is what it forms its lanes by, nil when it does not form any. It is shown once
	// it is on disk, and before the first lane is made of it: others take who shows none, and has
	// no lanes, for one that holds nothing.
	Plan *Plan `json:"plan,omitempty"`
	// Members are the nodes of the cluster with the data directories that its state
	// records; nil while it does not know.
	Members []Member `json:"members,omitempty"`
	// Cluster is the log id of lane 0, "" while it does not know.
	Cluster string `json:"cluster,omitempty"`
}

// Formed says that this node has, or is about to have, a part of a cluster.
func (d *Description) Formed() bool {
	if d.Plan != nil || d.Cluster != "" || len(d.Members) > 0 {
		return true
	}
	for _, empty := range d.Empty {
		if !empty {
			return true
		}
	}
	return false
}

// Member is a node of a cluster.
type Member struct {
	Node        string `json:"node"`
	Incarnation Hex16  `json:"incarnation"`
}

// Identity is the member in the shape that the rest of the package uses.
func (m Member) Identity() Identity { return Identity{m.Node, m.Incarnation} }

// Hex16 is 16 bytes, 32 hex digits in JSON.
type Hex16 [16]byte

// MarshalText implements encoding.TextMarshaler.
func (x Hex16) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(x[:])), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (x *Hex16) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	if err != nil || len(raw) != len(x) {
		return fmt.Errorf("%q is not 32 hex digits", text)
	}
	copy(x[:], raw)
	return nil
}

// Answer is what a node answers to hello.
type Answer struct {
	Member
	Release string `json:"release"`
	// Clock is its wall clock in Unix milliseconds.
	Clock int64 `json:"clock"`
	Description
	// Err is why there is no answer; the rest is empty then but for the node.
	Err error `json:"-"`
}

func (h *Hub) answerHello(_ context.Context, _ Call, out io.Writer) error {
	answer := Answer{
		Member:  Member{h.cfg.ID.Node, h.cfg.ID.Incarnation},
		Release: h.cfg.Release, Clock: h.cfg.Clock().UnixMilli(), Description: h.cfg.Describe(),
	}
	text, err := json.Marshal(answer)
	if err != nil {
		return fmt.Errorf("encoding the answer to hello: %w", err)
	}
	_, err = out.Write(text)
	return err
}

// ask asks one node who it is and what it has. The answer is what its handshake showed it to be.
func (h *Hub) ask(ctx context.Context, node string) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.DialTimeout+h.cfg.HandshakeTimeout)
	defer cancel()
	text, err := h.Call(ctx, node, helloKind, nil)
	if err != nil {
		return Answer{Member: Member{Node: node}, Err: err}, err
	}
	var a Answer
	if err := json.Unmarshal(text, &a); err != nil || a.Node != node {
		err = &Error{Node: node, Doing: "reading its answer to hello", Err: fmt.Errorf("%w: %w", errNonsense, err)}
		return Answer{Member: Member{Node: node}, Err: err}, err
	}
	return a, nil
}

// Survey asks nodes what they have, all at the same time; this node's own id is left out. Each is asked
// anew, and answers or is given up within DialTimeout and HandshakeTimeout.
func (h *Hub) Survey(ctx context.Context, nodes []string) map[string]Answer {
	var mu sync.Mutex
	var asking sync.WaitGroup
	answers := map[string]Answer{}
	for _, node := range nodes {
		if node == h.cfg.ID.Node {
			continue
		}
		asking.Go(func() {
			a, _ := h.ask(ctx, node) // its error is in the answer
			mu.Lock()
			defer mu.Unlock()
			answers[node] = a
		})
	}
	asking.Wait()
	return answers
}

// Ping asks a node for a sign of life, and tells how long it took.
func (h *Hub) Ping(ctx context.Context, node string) (time.Duration, error) {
	start := time.Now()
	_, err := h.ask(ctx, node)
	return time.Since(start), err
}
