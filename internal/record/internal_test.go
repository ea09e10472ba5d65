package record

import (
	"errors"
	"testing"
)

// The memory below is never written to, and so never taken from the machine.

func TestARunIsNeverLargerThanABody(t *testing.T) {
	var run Run
	run.Reset("t", TopicID{}, 0, 0)
	run.body = make([]byte, MaxBody-9, MaxBody+64)
	before := run.Span()
	var limit *LimitError
	if err := run.Append(&Record{Value: make([]byte, 10)}); !errors.As(err, &limit) {
		t.Errorf("got %v, want a *LimitError", err)
	}
	if run.Size() != MaxBody-9 || run.Span() != before {
		t.Errorf("the run changed to %d bytes, %+v", run.Size(), run.Span())
	}
	if err := run.Append(&Record{Value: make([]byte, 4)}); err != nil || run.Size() != MaxBody {
		t.Errorf("%d bytes, %v", run.Size(), err)
	}
}

func TestABlockNobodyCouldReadIsNotSealed(t *testing.T) {
	runs := []*Run{{}, {}}
	for i, run := range runs {
		run.Reset("t", TopicID{}, int32(i), 0)
		if err := run.Append(&Record{}); err != nil {
			t.Fatal(err)
		}
		run.body = make([]byte, MaxBody/2+1)
	}
	defer func() {
		if recover() == nil {
			t.Error("it was sealed")
		}
	}()
	NewSealer(None).Seal(runs)
}
