package e2e_test

import (
	"context"
	"testing"
	"time"

	"forebay/internal/faultfs"
)

// FAULTS row 4: the power fails at any moment, and at any sync: what was not synced
// is gone, or torn. Then Kafka forgets all that was acknowledged, so that nothing that
// the log lost could be read again; and nothing is missing.
func TestAPowerCutLosesNothing(t *testing.T) {
	f := newFaulty(t, 40, "")
	random := newRandom(t)
	for round := range size(8, 80) {
		ctx, cancel := context.WithCancel(t.Context())
		wait := f.p.stream(ctx, 2000, mixed)
		moment := time.After(time.Duration(random.IntN(2000)) * time.Millisecond)
		if round%2 == 1 {
			rule := f.inject(faultfs.Rule{
				Op: faultfs.OpSync | faultfs.OpSyncDir, Nth: 1 + random.IntN(300), Times: 1,
				Cut: []faultfs.Cut{faultfs.CutBefore, faultfs.CutAfter}[random.IntN(2)],
			})
			defer rule.Remove()
			moment = time.After(10 * time.Second)
		}
		f.g.start()
		cut := f.disk.WasCut()
		select {
		case <-cut:
		case <-moment:
		case <-f.g.run.done:
			f.endedByItself(cut)
		}
		keep := keeps(round/2, random.Uint64())
		f.powerBack(keep)
		cancel()
		wait()
		f.forget()
		t.Logf("round %d: %v kept", round, keep)
	}
	f.finish()
}

// FAULTS row 6: the power fails right before and right after each step of a segment's
// end, a trim and a snapshot.
func TestAPowerCutAtEachStep(t *testing.T) {
	f := newFaulty(t, 41, `retention = "1s"
snapshotBytes = "1MiB"
compression = "none"`)
	const log, snapshots, manifest = "**/lanes/0/log/*", "**/lanes/0/snapshots/*", "**/lanes/0/segments*"
	steps := []struct {
		name string
		rule faultfs.Rule
	}{
		{"a segment is made", faultfs.Rule{Path: log, Op: faultfs.OpCreate}},
		{"the first write to a segment", faultfs.Rule{Path: log, Op: faultfs.OpWrite, Nth: 2}},
		{"a segment is synced", faultfs.Rule{Path: log, Op: faultfs.OpSync, Nth: 3}},
		{"the directory of segments is synced", faultfs.Rule{Path: "**/lanes/0/log", Op: faultfs.OpSyncDir, Nth: 2}},
		{"a seal, or a trim's manifest, is written", faultfs.Rule{Path: manifest, Op: faultfs.OpWrite, Nth: 2}},
		{"the manifest is synced", faultfs.Rule{Path: manifest, Op: faultfs.OpSync, Nth: 2}},
		{"the mark is written", faultfs.Rule{Path: "mark", Op: faultfs.OpWrite, Nth: 5}},
		{"a segment is removed", faultfs.Rule{Path: log, Op: faultfs.OpUnlink}},
		{"a snapshot is begun", faultfs.Rule{Path: snapshots, Op: faultfs.OpCreate}},
		{"a snapshot is written", faultfs.Rule{Path: snapshots, Op: faultfs.OpWrite}},
		{"a snapshot is synced", faultfs.Rule{Path: snapshots, Op: faultfs.OpSync}},
		{"a snapshot gets its name", faultfs.Rule{Path: snapshots, Op: faultfs.OpRename}},
		{"the directory of snapshots is synced", faultfs.Rule{Path: "**/lanes/0/snapshots", Op: faultfs.OpSyncDir, Nth: 2}},
		{"a snapshot is removed", faultfs.Rule{Path: snapshots, Op: faultfs.OpUnlink}},
	}
	random := newRandom(t)
	f.g.up()
	f.powerBack(faultfs.KeepAll())
	for round := range size(1, 8) {
		for i, step := range steps {
			step.rule.Times = 1
			step.rule.Cut = []faultfs.Cut{faultfs.CutBefore, faultfs.CutAfter}[(round+i)%2]
			rule := f.inject(step.rule)
			ctx, cancel := context.WithCancel(t.Context())
			wait := f.p.stream(ctx, 600, heavy)
			cut := f.disk.WasCut()
			f.g.start()
			select {
			case <-cut:
			case <-f.g.run.done:
				f.endedByItself(cut)
			case <-time.After(15 * time.Second):
				t.Errorf("%s: never came", step.name)
			}
			rule.Remove()
			f.powerBack(keeps(random.IntN(4), random.Uint64()))
			cancel()
			wait()
			f.forget()
		}
	}
	f.finish()
}
