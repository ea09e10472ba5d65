package peer

import (
	"context"
	"slices"
	"time"
)

// Formation asks the listed nodes, round after round, until this node knows what to do: until Decide says anything
// but Wait, or ctx ends. self is asked anew for each decision. Each change of what is waited for is one line in the log.
func (h *Hub) Formation(ctx context.Context, self func() Description) (Decision, error) {
	var before map[string]Answer
	said := ""
	for {
		me := Self{Member{h.cfg.ID.Node, h.cfg.ID.Incarnation}, self()}
		now := map[string]Answer{}
		if !me.Formed() {
			now = h.Survey(ctx, me.Listed)
		}
		if err := context.Cause(ctx); err != nil {
			return Decision{}, err
		}
		d := Decide(me, before, now)
		if d.Action != Wait {
			h.cfg.Logger.Info("formation decided", "action", d.Action.String(), "lanes", d.Lanes, "reason", d.Words)
			return d, nil
		}
		again := before == nil || !slices.ContainsFunc(me.Listed, func(node string) bool {
			a, asked := now[node]
			return node != me.Node && (!asked || a.Err != nil)
		})
		before = now
		if d.Words != said {
			said = d.Words
			h.cfg.Logger.Info("waiting to form a cluster", "nodes", d.For, "reason", d.Words)
		}
		wait := formationPause
		if again {
			wait = formationSoon
		}
		pause(ctx, wait)
	}
}

const (
	// formationPause lies between two rounds while somebody does not answer,
	// formationSoon when all did.
	formationPause = 500 * time.Millisecond
	formationSoon  = 50 * time.Millisecond
)
