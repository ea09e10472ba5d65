package sinktest

import (
	"testing"

	"forebay/internal/record"
	"forebay/sinks"
)

// Run runs the whole suite; make is called once per case and gives a harness over
// an empty destination.
func Run(t *testing.T, make func(t testing.TB) *Harness) {
	t.Helper()
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			c.run(t, &suite{Harness: make(t), fresh: make})
		})
	}
}

type testCase struct {
	name string
	run  func(t *testing.T, s *suite)
}

func cases() []testCase {
	return []testCase{
		{"Plain", plain},
	}
}

// suite is a harness with the helpers of the cases.
type suite struct {
	*Harness
	fresh func(t testing.TB) *Harness
}

// open makes and opens a sink as the leader of a term would.
func (s *suite) open(t testing.TB, variant int, id sinks.Identity) sinks.Sink {
	t.Helper()
	sink := s.Make(t, variant)
	if err := sink.Open(t.Context(), id); err != nil {
		t.Fatalf("opening the sink: %v", err)
	}
	return sink
}

// deliver expects one batch to be delivered, settled once, without a refusal.
func (s *suite) deliver(t testing.TB, sink sinks.Sink, b record.Batch) {
	t.Helper()
	st := &settler{t: t}
	if err := sink.Deliver(t.Context(), b, st.settle); err != nil {
		t.Fatalf("delivering %v: %v", b.ID, err)
	}
	if len(st.refused) != 0 {
		t.Fatalf("delivering %v: refused %v, want nothing refused", b.ID, st.refused)
	}
}

func plain(t *testing.T, s *suite) {
	sink := s.open(t, 0, Identity(1, 1))
	s.deliver(t, sink, NewBatch(1, 1, Records(0, 5)))
	if err := sink.Close(); err != nil {
		t.Fatalf("closing: %v", err)
	}
}
