package node

import (
	"os"
	"os/exec"
	"testing"

	"go.uber.org/goleak"
)

// childEnv is set in a process that plays one test by itself.
const childEnv = "FOREBAY_TEST_CHILD"

// TestMain finds goroutines that outlive all nodes. The one that is left alone
// ticks for all meters of sarama's metrics library, for the life of the process.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/rcrowley/go-metrics.(*meterArbiter).tick"))
}

// inChild plays a test in a process of its own, because it leaves a node behind
// that hangs; only there it returns true.
func inChild(t *testing.T) bool {
	t.Helper()
	if os.Getenv(childEnv) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}
