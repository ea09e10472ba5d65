package receiver

import (
	"testing"

	"go.uber.org/goleak"
)

// goleakMain runs the tests and then looks for goroutines that nobody ended.
// The meter of sarama's metrics library is one per process, for ever.
func goleakMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick"))
}
