package node

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestALogThatLostWhatItsSnapshotHeld does not start: "a log that ends below the
// newest snapshot begins after it" is right only for a snapshot that a leader sent.
func TestALogThatLostWhatItsSnapshotHeld(t *testing.T) {
	b := newBroker(t, 1, "clicks")
	p := newPlace(t, b, "clicks")
	p.snapshotBytes, p.wal = 20_000, `compression = "none"`
	r := p.up()
	b.produce("clicks", 0, numbers(0, 10)...)
	r.awaitDelivered("files", 10)
	r.stop()
	lane := p.path("data/lanes/0")
	older := t.TempDir() + "/older"
	if err := os.CopyFS(older, os.DirFS(lane)); err != nil {
		t.Fatal(err)
	}
	r = p.up()
	for i := range 20 {
		b.produce("clicks", 0, strings.Repeat(fmt.Sprintf("%d ", i), 2000))
	}
	r.awaitDelivered("files", 30)
	await(t, "a snapshot", func() bool {
		lane, _ := r.view()
		return lane.Status().Snapshot > 0
	})
	r.stop()
	whole := t.TempDir() + "/whole"
	if err := os.CopyFS(whole, os.DirFS(lane)); err != nil {
		t.Fatal(err)
	}
	ofTheLog := []string{"log", "segments", "mark"}
	remove := func(parts ...string) error {
		var errs []error
		for _, part := range parts {
			errs = append(errs, os.RemoveAll(lane+"/"+part))
		}
		return errors.Join(errs...)
	}
	for name, c := range map[string]struct {
		damage func() error
		words  string
	}{
		"the log's directory is emptied": {func() error { return remove(ofTheLog...) }, "no log at all"},
		"an older copy of the log is put back": {func() error {
			errs := []error{remove(ofTheLog...)}
			errs = append(errs, os.CopyFS(lane+"/log", os.DirFS(older+"/log")))
			for _, part := range []string{"segments", "mark"} {
				text, err := os.ReadFile(older + "/" + part)
				errs = append(errs, err, os.WriteFile(lane+"/"+part, text, 0o600))
			}
			return errors.Join(errs...)
		}, "a log that ends with entry"},
		"the segments are gone":                {func() error { return remove("log") }, "log"},
		"everything but the snapshots is gone": {func() error { return remove(append(ofTheLog, "stable.db", "lock")...) }, "no log at all"},
		"everything but raft's memory is gone": {func() error { return remove(append(ofTheLog, "snapshots")...) }, "the log of this directory is lost"},
		"the snapshots are gone":               {func() error { return remove("snapshots") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			if err := errors.Join(os.RemoveAll(lane), os.CopyFS(lane, os.DirFS(whole)), c.damage()); err != nil {
				t.Fatal(err)
			}
			if c.words == "" { // the log reaches back to its beginning and says all again
				r := p.up()
				r.stop()
				return
			}
			_ = p.mustFail(lane, c.words)
			_ = p.mustFail(lane) // and not at the second try either
		})
	}
}
