package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"forebay/internal/e2e/kafka"
)

// shared is what the tests of this binary have in common: one program, one Kafka.
var shared struct {
	kafka kafka.Shared
	dir   string
	build func() error
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "forebay-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	shared.dir = dir
	shared.build = sync.OnceValue(build)
	code := m.Run()
	shared.kafka.Close()
	os.RemoveAll(dir)
	os.Exit(code)
}

// build makes the program as a user would, or with the race detector.
func build() error {
	args := []string{"build", "-o", shared.dir}
	if os.Getenv("FOREBAY_E2E_RACE") != "" {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "forebay/cmd/forebay")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the program: %w\n%s", err, out)
	}
	return nil
}

// program gives the path of the program, built once.
func program(t *testing.T) string {
	t.Helper()
	if err := shared.build(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(shared.dir, "forebay")
}

// sharedKafka is the cluster for tests that leave its nodes alone.
func sharedKafka(t *testing.T) *kafka.Cluster {
	t.Helper()
	return shared.kafka.Get(t, kafka.Options{})
}

// soak tells whether the long versions were asked for.
func soak() bool { return os.Getenv("FOREBAY_SOAK") != "" }

// size chooses between the quick and the long version of a test.
func size(quick, long int) int {
	if soak() {
		return long
	}
	return quick
}

// await polls until ok, and fails the test when that takes longer than within;
// state, if given, tells then how things stood.
func await(t *testing.T, what string, within time.Duration, ok func() bool, state ...func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			text := ""
			for _, f := range state {
				text += "\n" + f()
			}
			t.Fatalf("waited %s in vain: %s%s", within, what, text)
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("the test ended while waiting: %s", what)
		}
	}
}
