package node

import "testing"

// TestATopicThatIsRoutedButNotReadIsSaid: batches without a record for the sink are
// delivered all the same, so that a mistyped topic loses the sink's records in silence.
func TestATopicThatIsRoutedButNotReadIsSaid(t *testing.T) {
	p := newPlace(t, nil, "clicks", "views")
	p.sinks = p.fileSink("files", `topics = ["clicks", "veiws"]`)
	r := p.start()
	r.awaitLead()
	if got := r.logs.lines("level=WARN", "sink=files", "topic=veiws"); len(got) != 1 {
		t.Errorf("the log says %q of the mistyped topic", got)
	}
	if got := r.logs.lines("level=WARN", "topic=clicks"); len(got) != 0 {
		t.Errorf("the log says %q", got)
	}
}
