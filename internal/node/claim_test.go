package node

import (
	"os"
	"strings"
	"testing"
)

// TestASinkThatNeverStartedMayMove: a new sink whose destination turns out to be
// somebody else's is not in the log, so that the way out which the error tells,
// another destination, is one.
func TestASinkThatNeverStartedMayMove(t *testing.T) {
	p := newPlace(t, nil, "clicks")
	before, after := p.path("files"), p.path("elsewhere")
	if err := os.Mkdir(before, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.path("files/.forebay.json"), []byte(`{"format":1,"gateway":"other","logId":"00","sink":"files"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = p.mustFail("sink files", before, `it is of gateway "other"`, "deliver into another directory")
	p.sinks = strings.ReplaceAll(p.sinks, before, after)
	r := p.start()
	r.awaitLead()
	if s := r.sink("files"); s.Cursor != batchID(1).String() || !s.Configured {
		t.Errorf("the sink shows as %+v", s)
	}
}
