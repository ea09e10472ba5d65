package demo

import (
	"errors"
	"strings"
	"testing"
)

// TestAGatewayThatEndedIsSaid, also one that ended with success.
func TestAGatewayThatEndedIsSaid(t *testing.T) {
	failure := errors.New("exit status 1")
	for _, end := range []error{nil, failure} {
		g := &gateway{dir: "there", ended: make(chan error, 1)}
		if err := g.died(); err != nil {
			t.Errorf("it runs, and is said to have died: %v", err)
		}
		g.ended <- end
		for range 2 { // asked again it says so again
			if err := g.died(); err == nil || !errors.Is(err, failure) != (end == nil) || strings.Contains(err.Error(), "%!") || !strings.Contains(err.Error(), "there/gateway.log") {
				t.Errorf("ended with %v: %v", end, err)
			}
		}
	}
}
