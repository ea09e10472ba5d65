package receiver

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/record"
)

// TestBrokerThatLagsBehindAfterARestart: the log has taken up a topic that was
// made again; then the process starts anew and asks a broker that still tells of the old
// incarnation. Going back to it, and forth again later, would read everything
// of the new one a second time.
func TestBrokerThatLagsBehindAfterARestart(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 1, "a", "b")
	b.produce(append(numbered("a", 1, 0, 5), numbered("b", 1, 0, 5)...)...)
	l := newMemLog(t)
	deleted, now := record.TopicID(b.k.TopicInfo("a").TopicID), record.TopicID{1}
	l.changes = []record.TopicChange{{Topic: "a", Old: deleted, New: now}}
	if err := l.SetBases(t.Context(), []record.Base{{Topic: "a", TopicID: now, Next: 3}}); err != nil {
		t.Fatal(err)
	}
	r := start(t, b.config("a", "b"), l)
	l.await("the other topic", func() bool { return len(l.records[key{"b", 0}]) == 5 })
	r.awaitStatus("the topic that waits", func(s Status) bool {
		return strings.Contains(s.Problem, "still tells of the incarnation that was deleted")
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if diff := cmp.Diff(record.Position{TopicID: now, Next: 3}, l.positions[key{"a", 0}]); diff != "" || len(l.changes) != 1 || len(l.records[key{"a", 0}]) > 0 {
		t.Errorf("%d changes, %d records of the deleted incarnation\n%s", len(l.changes), len(l.records[key{"a", 0}]), diff)
	}
}
