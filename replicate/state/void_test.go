package state

import (
	"testing"
)

func TestVoid(t *testing.T) {
	runSteps(t, []step{
		{
			name: "makes batches without records", setup: func(l *log) { l.ok(SinkAdd{Name: "a", At: at0}) },
			entry: entry(Void{Term: 1, Seq: 3, At: at0}), check: func(t *testing.T, l *log) {
				if l.s.LastSeq() != 3 || l.s.FirstSeq() != 1 {
					t.Fatalf("batches %d to %d, want 1 to 3", l.s.FirstSeq(), l.s.LastSeq())
				}
				for _, b := range l.s.Batches(1, 9) {
					if b.Records != 0 || b.CutAt != at0+int64(b.ID.Seq)-1 || len(l.read(b.ID.Seq)) != 0 {
						t.Errorf("batch %+v has records, or another time", b)
					}
				}
			},
		},
		{name: "another term", entry: entry(Void{Term: 2, Seq: 3}), words: "the term is 1"},
		{
			name: "numbers that are used", setup: func(l *log) { l.ok(small(t, from("t", 0, 100, 1))); l.cut() },
			entry: entry(Void{Term: 1, Seq: 1}), words: "batch 1 was cut already",
		},
		{name: "too many", entry: entry(Void{Term: 1, Seq: MaxVoid + 1}), words: "at most 100000"},
		{name: "a clock that is broken", entry: entry(Void{Term: 1, Seq: 1, At: -1}), words: "is broken"},
	})
}

// TestVoidKeepsTheOpenBatch: what was accepted and not cut gets the number after the
// void ones, also through a snapshot, and the floor does not pass it.
func TestVoidKeepsTheOpenBatch(t *testing.T) {
	for name, restart := range map[string]bool{"in one run": false, "through snapshots": true} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			l.ok(SinkAdd{Name: "a", At: at0})
			l.ok(small(t, from("t", 0, 100, 2)))
			l.cut()
			kept := l.ok(small(t, from("t", 0, 102, 2)))
			part := large(t, from("t", 1, 0, 1))
			l.ok(part[0])
			void := l.ok(Void{Term: 1, Seq: 4, At: at0})
			if restart {
				l.restart()
			}
			l.ok(part[1])
			l.ok(part[2])
			l.ok(small(t, from("t", 0, 104, 1)))
			l.cut()
			if restart {
				l.restart()
			}
			diff(t, []string{"t/0@102", "t/0@103", "t/1@0", "t/0@104"}, l.read(5))
			for range 4 {
				l.done("a")
			}
			l.ok(Release{Term: 1, Seq: 4, At: at0})
			if floor := l.s.Floor(); floor != kept || floor >= void {
				t.Errorf("the floor is %d, want %d", floor, kept)
			}
			diff(t, []string{"t/0@102", "t/0@103", "t/1@0", "t/0@104"}, l.read(5))
			l.done("a")
			l.ok(Release{Term: 1, Seq: 5, At: at0})
			if floor := l.s.Floor(); floor != l.index+1 {
				t.Errorf("the floor is %d, want %d", floor, l.index+1)
			}
		})
	}
}
