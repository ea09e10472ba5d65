package receiver

import (
	"testing"
)

func TestRecordsArriveOnceAndAreCommitted(t *testing.T) {
	t.Parallel()
	b := newBroker(t, 4, "a")
	b.produce(numbered("a", 4, 0, 2000)...)
	l := newMemLog(t)
	r := start(t, b.config("a"), l)
	l.await("all records", func() bool { return l.total() == 2000 })
	b.produce(numbered("a", 4, 2000, 1000)...)
	l.await("the records that came later", func() bool { return l.total() == 3000 })
	onceInOrder(t, l, "a", 3000)
	poll(t, "the commit", func() int64 { return b.committed("g", "a", 0) }, func(o int64) bool { return o == 750 })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
}
