package node

import "testing"

// TestATopicThatIsRoutedButNeverThere: batches without a record for the sink are
// delivered all the same, so that a mistyped topic loses the sink's records in silence.
func TestATopicThatIsRoutedButNeverThere(t *testing.T) {
	p := newPlace(t, nil, "clicks", "views")
	p.sinks = p.fileSink("files", `topics = ["clicks", "veiws"]`)
	_ = p.mustFail("sink files: ", `"veiws"`, "receiver.kafka.topics")
}

// TestATopicThatIsReadNoMore goes on to the sinks that it is routed to as far as the log
// holds it: to refuse that would lose what is not delivered.
func TestATopicThatIsReadNoMore(t *testing.T) {
	b := newBroker(t, 1, "clicks", "views")
	p := newPlace(t, b, "clicks", "views")
	p.sinks = p.fileSink("files", `topics = ["clicks", "views"]`)
	r := p.up()
	b.produce("views", 0, "seen")
	r.awaitNext("views", 0, 1)
	r.stop()
	p.topics = []string{"clicks"}
	r = p.up()
	r.awaitDelivered("files", 1)
	if got := r.logs.lines("level=WARN", "sink=files", "topic=views"); len(got) != 1 {
		t.Errorf("the log says %q of the topic", got)
	}
	if got := r.logs.lines("level=WARN", "topic=clicks"); len(got) != 0 {
		t.Errorf("the log says %q", got)
	}
	p.wantValues("files", []string{"seen"})
}
