package replicate

import "testing"

// TestBatchesCutBetweenTwoLooks: the usage is read first, then a batch is cut and
// delivered, then the batches are looked at. One more is due than was counted.
func TestBatchesCutBetweenTwoLooks(t *testing.T) {
	l := limits{maxBatches: 100}
	u := usage{batches: 2}
	if held := heldBy("", l, u.after(steps(1, 3, 3, 1), 3)); held != "" {
		t.Errorf("three batches are due, and intake is held by %q", held)
	}
}
