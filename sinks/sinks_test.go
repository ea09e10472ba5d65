package sinks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/record"
)

func TestGuarantee(t *testing.T) {
	for g := AtMostOnce; g <= ExactlyOnce; g++ {
		if got, err := ParseGuarantee(g.String()); got != g || err != nil {
			t.Errorf("%v reads as %v, %v", g, got, err)
		}
	}
	for _, s := range []string{"", "unknown", "twice"} {
		if got, err := ParseGuarantee(s); err == nil {
			t.Errorf("%q reads as %v", s, got)
		}
	}
	if got := Guarantee(9).String(); got != "unknown" {
		t.Errorf("Guarantee(9) is %q", got)
	}
}

func TestPermanent(t *testing.T) {
	cause := errors.New("wrong password")
	err := fmt.Errorf("opening: %w", Permanent(cause))
	if !IsPermanent(err) || !errors.Is(err, cause) || err.Error() != "opening: wrong password" {
		t.Errorf("got %v, permanent: %v", err, IsPermanent(err))
	}
	if IsPermanent(cause) || IsPermanent(nil) {
		t.Error("an unmarked error is taken for a permanent one")
	}
}

func TestRefusals(t *testing.T) {
	var r Refusals
	if r.List() != nil {
		t.Error("the empty list is not nil")
	}
	rec := record.Record{Topic: "pages", Partition: 2, Offset: 7}
	if err := r.Add(&rec, errors.New(strings.Repeat("x", maxReason-1)+"é")); err != nil {
		t.Fatal(err)
	}
	rec.Topic, rec.Offset = "visits", 8
	if err := r.Add(&rec, errors.New("bad \xff")); err != nil {
		t.Fatal(err)
	}
	want := []record.Refusal{
		{RecordID: record.RecordID{Topic: "pages", Partition: 2, Offset: 7}, Reason: strings.Repeat("x", maxReason-1) + "\uFFFD"},
		{RecordID: record.RecordID{Topic: "visits", Partition: 2, Offset: 8}, Reason: "bad \uFFFD"},
	}
	if diff := cmp.Diff(want, r.List()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for len(r.List()) < MaxRefusals {
		if err := r.Add(&rec, errors.New("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Add(&rec, errors.New("the last")); !errors.Is(err, ErrTooManyRefusals) || IsPermanent(err) || !strings.Contains(err.Error(), "the last") {
		t.Errorf("got %v, want a temporary %v with the last reason", err, ErrTooManyRefusals)
	}
}

// TestStubborn: a call that hangs is left behind when the context ends, and the
// next one begins only when it is over.
func TestStubborn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Stubborn
		if err := s.Do(t.Context(), func() error { return context.Canceled }); !errors.Is(err, context.Canceled) || s.Hung() {
			t.Fatalf("a call's own error: got %v, hung %v", err, s.Hung())
		}
		release, ended := make(chan struct{}), false
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := s.Do(ctx, func() error { <-release; ended = true; return nil })
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second || !s.Hung() {
			t.Fatalf("got %v after %v, hung %v", err, time.Since(start), s.Hung())
		}
		if err := s.Do(ctx, func() error { t.Error("a call began under an ended context"); return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		time.AfterFunc(time.Minute, func() { close(release) })
		err = s.Do(t.Context(), func() error {
			if !ended {
				t.Error("the next call began before the one that was left behind was over")
			}
			return nil
		})
		if err != nil || time.Since(start) != time.Second+time.Minute || s.Hung() {
			t.Fatalf("got %v after %v, hung %v", err, time.Since(start), s.Hung())
		}
		ended2, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Do(ended2, func() error { t.Error("a call began under an ended context"); return nil }); !errors.Is(err, context.Canceled) {
			t.Fatalf("got %v", err)
		}
	})
}
