package peer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Plan is what lanes are formed by: the same on whoever forms by it. Its nodes, in this order, are the
// voters of each lane's first entry.
type Plan struct {
	Lanes   uint32   `json:"lanes"`
	Members []Member `json:"members"` // in the order of ids
}

// incarnation gives the data directory that the plan has for a node.
func (p *Plan) incarnation(node string) (Hex16, bool) { return incarnationIn(p.Members, node) }

func incarnationIn(members []Member, node string) (Hex16, bool) {
	for _, m := range members {
		if m.Node == node {
			return m.Incarnation, true
		}
	}
	return Hex16{}, false
}

// Action is what a node does at its start.
type Action int

// What Decide can come to.
const (
	// Wait: ask again; the words say for whom and for what.
	Wait Action = iota
	// Form: write Plan to disk, show it (Description), then form each lane that was never there by it. A lane
	// that was there and is gone is lost, not new: that is for who keeps the directory to see.
	Form
	// Join: form nothing, start the lanes with empty logs: the cluster's leader brings them up.
	Join
	// Start: the lanes are there; go on with what they hold.
	Start
	// Refuse: end with the words; waiting does not mend it.
	Refuse
)

// String names the action in logs.
func (a Action) String() string {
	return [...]string{"wait", "form", "join", "start", "refuse"}[a]
}

// Decision is what a node does at its start, and why.
type Decision struct {
	Action Action
	// Plan is what to form by; with Form only.
	Plan *Plan
	// Lanes is the number of lanes; with Form, Join and Start, 0 where it is not known yet.
	Lanes uint32
	// For are the nodes that are waited for.
	For []string
	// Words say why, to an operator.
	Words string
}

// Self is what a node knows of itself when it decides.
type Self struct {
	Member
	Description
}

// Decide says what a node does at its start. before and now are two rounds of answers of all other listed
// nodes: every request of now was sent after every answer of before had come. before is nil in the first
// round. It is pure. DESIGN.md argues why it forms nothing that could lose what was committed.
func Decide(self Self, before, now map[string]Answer) Decision {
	switch {
	case self.Plan != nil:
		return goOnForming(self)
	case self.Formed():
		return Decision{Action: Start, Lanes: self.Lanes, Words: "the lanes are there"}
	}
	if formed := formedAmong(now); len(formed) > 0 {
		return joinOrFollow(self, formed)
	}
	listed := listOf(self)
	if !slices.Contains(self.Listed, self.Node) && len(self.Listed) > 0 {
		return Decision{Action: Refuse, Words: fmt.Sprintf(
			"cluster.peers lists %s, not this node, %s, and none of them has a cluster that it could join: correct node.id or cluster.peers",
			strings.Join(self.Listed, ", "), self.Node)}
	}
	if d, wait := waitForAll(self, listed, now); wait {
		return d
	}
	lanes, d := lanesOf(self, listed, now)
	if lanes == 0 {
		return d
	}
	for _, node := range listed {
		was, asked := before[node]
		if node != self.Node && (!asked || was.Err != nil || was.Formed() || was.Incarnation != now[node].Incarnation) {
			return Decision{Action: Wait, For: []string{node}, Words: "all nodes are empty; asking once more whether they were so at one time"}
		}
	}
	plan := &Plan{Lanes: lanes}
	for _, node := range listed {
		member := self.Member
		if node != self.Node {
			member = now[node].Member
		}
		plan.Members = append(plan.Members, member)
	}
	return Decision{Action: Form, Plan: plan, Lanes: lanes, Words: fmt.Sprintf(
		"all of %s are empty: forming %d lanes", strings.Join(listed, ", "), lanes)}
}

// goOnForming is for a node that has a plan on its disk: it was stopped while it formed
// its lanes, or has formed them all.
func goOnForming(self Self) Decision {
	if mine, in := self.Plan.incarnation(self.Node); !in || mine != self.Incarnation {
		return Decision{Action: Refuse, Words: fmt.Sprintf(
			"the plan in the data directory is not for %s: the directory was put together from two; empty it, and the cluster brings the node up again",
			self.Identity())}
	}
	if self.Lanes != 0 && self.Lanes != self.Plan.Lanes {
		return Decision{Action: Refuse, Words: lanesDiffer(self.Plan.Lanes, self.Lanes)}
	}
	whole := uint32(len(self.Empty)) >= self.Plan.Lanes && !slices.Contains(self.Empty, true)
	if whole {
		return Decision{Action: Start, Lanes: self.Plan.Lanes, Words: "the lanes are there"}
	}
	return Decision{Action: Form, Plan: self.Plan, Lanes: self.Plan.Lanes, Words: "going on with the formation that was begun"}
}

func lanesDiffer(theirs, ours uint32) string {
	return fmt.Sprintf("the cluster was formed with %d lanes, cluster.lanes says %d: leave it out, or set it to %d", theirs, ours, theirs)
}

// formedAmong gives those that have a cluster or are about to, in the order of ids.
func formedAmong(answers map[string]Answer) []Answer {
	var formed []Answer
	for _, node := range slices.Sorted(maps.Keys(answers)) {
		if a := answers[node]; a.Err == nil && a.Formed() {
			formed = append(formed, a)
		}
	}
	return formed
}

// joinOrFollow is for an empty node that hears of a cluster.
func joinOrFollow(self Self, formed []Answer) Decision {
	var cluster, of string
	var lanes uint32
	for _, a := range formed {
		if a.Cluster != "" && cluster != "" && a.Cluster != cluster {
			return Decision{Action: Refuse, Words: fmt.Sprintf(
				"%s and %s belong to two clusters (log ids %s and %s): cluster.peers mixes them", of, a.Node, cluster, a.Cluster)}
		}
		if a.Cluster != "" {
			cluster, of = a.Cluster, a.Node
		}
		theirs := a.Lanes
		if a.Plan != nil {
			theirs = a.Plan.Lanes
		}
		lanes = max(lanes, theirs)
		if theirs != 0 && self.Lanes != 0 && theirs != self.Lanes {
			return Decision{Action: Refuse, Words: lanesDiffer(theirs, self.Lanes)}
		}
	}
	for _, a := range formed {
		if a.Plan == nil {
			continue
		}
		// What the state records wins over the plan: the node may have been replaced since.
		if recorded, is := incarnationIn(a.Members, self.Node); a.Members != nil && (!is || recorded != self.Incarnation) {
			continue
		}
		if mine, in := a.Plan.incarnation(self.Node); in && mine == self.Incarnation {
			return Decision{Action: Form, Plan: a.Plan, Lanes: a.Plan.Lanes, Words: fmt.Sprintf("%s forms with this node: forming by its plan", a.Node)}
		}
	}
	words := fmt.Sprintf("%s has a cluster: its leader brings this node up", formed[0].Node)
	if !isMember(self.Node, formed) {
		words = fmt.Sprintf("%s has a cluster in which %s is no member: waiting for 'forebay operator add %s'", formed[0].Node, self.Node, self.Node)
	}
	return Decision{Action: Join, Lanes: lanes, Words: words}
}

func isMember(node string, formed []Answer) bool {
	for _, a := range formed {
		if _, in := incarnationIn(a.Members, node); in {
			return true
		}
		if a.Plan != nil {
			if _, in := a.Plan.incarnation(node); in {
				return true
			}
		}
	}
	return false
}

// listOf gives the listed nodes in order; a node that lists none is alone.
func listOf(self Self) []string {
	if len(self.Listed) == 0 {
		return []string{self.Node}
	}
	return sorted(self.Listed)
}

func sorted(nodes []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(nodes)))
}

// waitForAll waits for whoever does not answer, or lists others than we do.
func waitForAll(self Self, listed []string, now map[string]Answer) (Decision, bool) {
	d := Decision{Action: Wait}
	var why []string
	for _, node := range listed {
		if node == self.Node {
			continue
		}
		a, asked := now[node]
		switch {
		case !asked || a.Err != nil:
			why = append(why, silence(node, a.Err))
		case !slices.Equal(sorted(a.Listed), listed):
			why = append(why, fmt.Sprintf("%s lists %s, this node %s: make cluster.peers the same on all",
				node, strings.Join(sorted(a.Listed), ", "), strings.Join(listed, ", ")))
		default:
			continue
		}
		d.For = append(d.For, node)
	}
	d.Words = "a cluster is formed when all listed nodes are there: " + strings.Join(why, "; ")
	return d, len(why) > 0
}

func silence(node string, err error) string {
	var refusal *Refusal
	switch {
	case err == nil:
		return node + " was not asked yet"
	case errors.As(err, &refusal):
		return refusal.Error()
	default:
		return err.Error()
	}
}

// lanesOf settles how many lanes are formed: what those say who say something, else one for each node.
func lanesOf(self Self, listed []string, now map[string]Answer) (uint32, Decision) {
	lanes, by := self.Lanes, self.Node
	for _, node := range listed {
		a := now[node]
		switch {
		case node == self.Node || a.Lanes == 0 || a.Lanes == lanes:
		case lanes == 0:
			lanes, by = a.Lanes, node
		default:
			return 0, Decision{Action: Wait, For: []string{node}, Words: fmt.Sprintf(
				"%s says cluster.lanes = %d, %s says %d: make them the same", by, lanes, node, a.Lanes)}
		}
	}
	if lanes == 0 {
		lanes = uint32(len(listed))
	}
	return lanes, Decision{}
}
