package wal

import "testing"

// TestRemovalHoldsUpNoAppend: while old segments are being removed, and that
// hangs at each of its steps but the one sync of the manifest, appends go on, also such as end a segment.
func TestRemovalHoldsUpNoAppend(t *testing.T) {
	for _, op := range []string{"remove", "syncdir"} {
		t.Run(op, func(t *testing.T) {
			cfg := testConfig(t.TempDir())
			hanging, release := make(chan struct{}, 1), make(chan struct{})
			armed := false
			removing := false
			cfg.Files = &hookedFiles{Files: osFiles{}, before: func(got, _ string) error {
				if !armed {
					return nil
				}
				removing = removing || got == "remove"
				if got == op && removing {
					armed = false // that one alone
					hanging <- struct{}{}
					<-release
				}
				return nil
			}}
			l := mustOpen(t, cfg)
			fill(t, l, 1, 120, 1, 300)
			armed = true
			l.SetApplied(120)
			l.SetFloor(100)
			if err := l.DeleteRange(1, 99); err != nil {
				t.Fatal(err)
			}
			<-hanging
			fill(t, l, 121, 240, 1, 300)
			wantEntries(t, l, 100, 240, 1, 300)
			close(release)
			waitTrim(t, l)
			var onDisk int64
			for _, s := range segmentFiles(t, cfg.Dir) {
				onDisk += int64(len(readFile(t, s)))
			}
			if st := l.Stats(); st.Bytes != onDisk || onDisk > 141*diskSize(300)+smallSegments {
				t.Errorf("%d bytes after the removal, the log says %d", onDisk, st.Bytes)
			}
		})
	}
}
