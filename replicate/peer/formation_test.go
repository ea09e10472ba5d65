package peer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func memberOf(node string, n byte) Member { return Member{node, incarnationOf(node, n)} }

func planOf(lanes uint32, members ...Member) *Plan { return &Plan{Lanes: lanes, Members: members} }

func TestDecide(t *testing.T) {
	three := []string{"n3", "n1", "n2"} // the order of a file
	plan := planOf(3, memberOf("n1", 1), memberOf("n2", 1), memberOf("n3", 1))
	self := func(change func(*Self)) Self {
		s := Self{memberOf("n1", 1), Description{Listed: three}}
		if change != nil {
			change(&s)
		}
		return s
	}
	empty := func(node string, change func(*Answer)) Answer {
		a := Answer{Member: memberOf(node, 1), Description: Description{Listed: three, Empty: []bool{true}}}
		if change != nil {
			change(&a)
		}
		return a
	}
	round := func(answers ...Answer) map[string]Answer {
		m := map[string]Answer{}
		for _, a := range answers {
			m[a.Node] = a
		}
		return m
	}
	away := func(node string) Answer {
		return Answer{Member: Member{Node: node}, Err: &Error{Node: node, Address: "10.0.0.9:8421", Doing: "connecting", Err: errors.New("connection refused")}}
	}
	all := round(empty("n2", nil), empty("n3", nil))
	for _, tc := range []struct {
		name        string
		self        Self
		before, now map[string]Answer
		want        Decision
		words       string
	}{
		{
			name: "one node that lists none", self: self(func(s *Self) { s.Listed = nil }),
			want: Decision{Action: Form, Plan: planOf(1, memberOf("n1", 1)), Lanes: 1}, words: "all of n1 are empty",
		},
		{
			name: "one node that lists itself, and says lanes", self: self(func(s *Self) { s.Listed, s.Lanes = []string{"n1"}, 4 }),
			want: Decision{Action: Form, Plan: planOf(4, memberOf("n1", 1)), Lanes: 4},
		},
		{
			name: "three, all empty in two rounds", self: self(nil), before: all, now: all,
			want: Decision{Action: Form, Plan: plan, Lanes: 3}, words: "all of n1, n2, n3 are empty: forming 3 lanes",
		},
		{
			name: "three, one round", self: self(nil), now: all,
			want: Decision{Action: Wait, For: []string{"n2"}}, words: "asking once more",
		},
		{
			name: "one was wiped between the rounds", self: self(nil), before: all,
			now:  round(empty("n2", func(a *Answer) { a.Incarnation[1] = 2 }), empty("n3", nil)),
			want: Decision{Action: Wait, For: []string{"n2"}},
		},
		{
			name: "one did not answer before", self: self(nil), before: round(empty("n2", nil), away("n3")), now: all,
			want: Decision{Action: Wait, For: []string{"n3"}},
		},
		{
			name: "one does not answer", self: self(nil), before: all, now: round(empty("n2", nil), away("n3")),
			want: Decision{Action: Wait, For: []string{"n3"}}, words: "node n3 (10.0.0.9:8421): connecting: connection refused",
		},
		{
			name: "nobody was asked", self: self(nil),
			want: Decision{Action: Wait, For: []string{"n2", "n3"}}, words: "n2 was not asked yet; n3 was not asked yet",
		},
		{
			name: "one refuses", self: self(nil), before: all,
			now: round(empty("n2", nil), Answer{Member: Member{Node: "n3"}, Err: &Error{Node: "n3", Err: &Refusal{CodeGateway, "n1 belongs to gateway \"g\"", "n3"}}}),

			want: Decision{Action: Wait, For: []string{"n3"}}, words: `n3 refuses (gateway): n1 belongs to gateway "g"`,
		},
		{
			name: "one lists others", self: self(nil), before: all,
			now:  round(empty("n2", func(a *Answer) { a.Listed = []string{"n1", "n2", "n4"} }), empty("n3", nil)),
			want: Decision{Action: Wait, For: []string{"n2"}}, words: "n2 lists n1, n2, n4, this node n1, n2, n3: make cluster.peers the same on all",
		},
		{
			name: "one says how many lanes", self: self(nil), before: all,
			now:  round(empty("n2", func(a *Answer) { a.Lanes = 5 }), empty("n3", nil)),
			want: Decision{Action: Form, Plan: planOf(5, plan.Members...), Lanes: 5},
		},
		{
			name: "two say different numbers", self: self(nil), before: all,
			now:  round(empty("n2", func(a *Answer) { a.Lanes = 5 }), empty("n3", func(a *Answer) { a.Lanes = 2 })),
			want: Decision{Action: Wait, For: []string{"n3"}}, words: "n2 says cluster.lanes = 5, n3 says 2",
		},
		{
			name: "a peer forms with this node", self: self(nil), now: round(empty("n2", func(a *Answer) { a.Plan = plan })),
			want: Decision{Action: Form, Plan: plan, Lanes: 3}, words: "n2 forms with this node",
		},
		{
			name: "a peer formed with another directory of this node: it was emptied (HARD-CASES 11)", before: all,
			self: self(func(s *Self) { s.Incarnation[1] = 2 }), now: round(empty("n2", func(a *Answer) { a.Plan = plan }), empty("n3", nil)),
			want: Decision{Action: Join, Lanes: 3}, words: "n2 has a cluster: its leader brings this node up",
		},
		{
			name: "the plan has this node, and the state has replaced it", self: self(nil),
			now: round(empty("n2", func(a *Answer) {
				a.Plan, a.Cluster, a.Members = plan, "abc", []Member{memberOf("n1", 7), memberOf("n2", 1)}
			})),
			want: Decision{Action: Join, Lanes: 3},
		},
		{
			name: "the plan has this node, and the state has removed it", self: self(nil),
			now:  round(empty("n2", func(a *Answer) { a.Plan, a.Cluster, a.Members = plan, "abc", []Member{memberOf("n2", 1)} })),
			want: Decision{Action: Join, Lanes: 3},
		},
		{
			name: "a new node of an old cluster", self: self(func(s *Self) { s.Member, s.Listed = memberOf("n4", 1), append(three, "n4") }),
			now: round(empty("n2", func(a *Answer) {
				a.Empty, a.Lanes, a.Cluster, a.Members = []bool{false}, 3, "abc", plan.Members
			}), away("n1")),
			want: Decision{Action: Join, Lanes: 3}, words: "no member: waiting for 'forebay operator add n4'",
		},
		{
			name: "a cluster with another number of lanes", self: self(func(s *Self) { s.Lanes = 2 }),
			now:  round(empty("n2", func(a *Answer) { a.Plan = plan })),
			want: Decision{Action: Refuse}, words: "the cluster was formed with 3 lanes, cluster.lanes says 2",
		},
		{
			name: "two clusters", self: self(nil),
			now: round(empty("n2", func(a *Answer) { a.Cluster = "abc" }), empty("n3", func(a *Answer) { a.Cluster = "def" })),

			want: Decision{Action: Refuse}, words: "n2 and n3 belong to two clusters (log ids abc and def)",
		},
		{
			name: "not in its own list", self: self(func(s *Self) { s.Member = memberOf("n4", 1) }), now: all,
			want: Decision{Action: Refuse}, words: "cluster.peers lists n3, n1, n2, not this node, n4",
		},
		{
			name: "the lanes are there", self: self(func(s *Self) { s.Empty, s.Lanes = []bool{false, false}, 2 }),
			want: Decision{Action: Start, Lanes: 2},
		},
		{
			name: "joined, and nothing came yet", self: self(func(s *Self) { s.Empty = []bool{true, true, true} }),
			now:  round(empty("n2", func(a *Answer) { a.Lanes, a.Cluster, a.Members = 3, "abc", plan.Members[1:] })),
			want: Decision{Action: Join, Lanes: 3},
		},
		{
			name: "stopped before it formed its first lane", self: self(func(s *Self) { s.Plan = plan }),
			want: Decision{Action: Form, Plan: plan, Lanes: 3}, words: "going on with the formation",
		},
		{
			name: "stopped between two lanes", self: self(func(s *Self) { s.Plan, s.Empty = plan, []bool{false, false, true} }),
			want: Decision{Action: Form, Plan: plan, Lanes: 3},
		},
		{
			name: "formed by a plan", self: self(func(s *Self) { s.Plan, s.Empty = plan, []bool{false, false, false} }),
			want: Decision{Action: Start, Lanes: 3},
		},
		{
			name: "a plan of another directory", self: self(func(s *Self) { s.Plan, s.Incarnation[1] = plan, 2 }),
			want: Decision{Action: Refuse}, words: "the plan in the data directory is not for n1/ee02",
		},
		{
			name: "a plan, and another number of lanes", self: self(func(s *Self) { s.Plan, s.Lanes = plan, 2 }),
			want: Decision{Action: Refuse}, words: "was formed with 3 lanes",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Decide(tc.self, tc.before, tc.now)
			if diff := cmp.Diff(tc.want, got, cmpopts.IgnoreFields(Decision{}, "Words")); diff != "" {
				t.Errorf("-want +got:\n%s\n%s", diff, got.Words)
			}
			if got.Words == "" || !strings.Contains(got.Words, tc.words) {
				t.Errorf("words %q, want %q in them", got.Words, tc.words)
			}
		})
	}
}

// Five, three and one node come to one plan by themselves, whatever the order of their starts.
func TestNodesFormByThemselves(t *testing.T) {
	for _, size := range []int{1, 3, 5} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			var listed []string
			var hubs []*testHub
			for i := range size {
				listed = append(listed, fmt.Sprint("n", i+1))
			}
			describe := func() Description { return Description{Listed: listed} }
			for _, node := range listed {
				hubs = append(hubs, openHub(t, node, func(c *Config) { c.Describe = describe }))
			}
			results := make(chan Decision, size)
			ctx := awaitCtx(t)
			for i, h := range hubs {
				if i == size-1 && size > 1 {
					await(t, "the first says whom it waits for", func() bool { return hubs[0].log.count("waiting to form a cluster", listed[i]) > 0 })
				}
				acquaint(hubs[:i+1]...)
				go func() {
					d, err := h.Formation(ctx, describe)
					if err != nil {
						t.Error(err)
					}
					results <- d
				}()
			}
			first := <-results
			if first.Action != Form || len(first.Plan.Members) != size || int(first.Lanes) != size {
				t.Fatalf("decision %+v", first)
			}
			for range size - 1 {
				if diff := cmp.Diff(first, <-results); diff != "" {
					t.Errorf("two nodes come to different plans:\n%s", diff)
				}
			}
		})
	}
}

func TestFormationEndsWithItsContext(t *testing.T) {
	h := openHub(t, "n1", nil)
	h.SetPeer("n2", "127.0.0.1:1")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := h.Formation(ctx, func() Description { return Description{Listed: []string{"n1", "n2"}} }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}
