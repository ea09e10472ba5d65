package kafka

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

//go:embed pom.xml
var pom []byte

//go:embed log4j2.properties
var log4j []byte

// Require is the environment variable that turns a missing Kafka from a skip
// into a failure; CI sets it. Without it, tests against a real broker are
// skipped and say so, so that a plain `go test ./...` needs Go alone.
const Require = "FOREBAY_E2E"

// jars returns the directory with Kafka's jars and the log configuration,
// fetching them once from Maven's repository into the user's cache.
func jars(tb testing.TB) string {
	tb.Helper()
	if os.Getenv(Require) == "" {
		tb.Skipf("skipped: needs a real Kafka; run it with %s=1 (Java 17 and Maven)", Require)
	}
	for _, program := range []string{"java", "mvn"} {
		if _, err := exec.LookPath(program); err != nil {
			tb.Fatalf("a real Kafka was asked for by %s, but there is no %s: %v", Require, program, err)
		}
	}
	dir, err := fetch()
	if err != nil {
		tb.Fatalf("fetching Kafka's jars: %v", err)
	}
	return dir
}

func fetch() (string, error) {
	base := os.Getenv("FOREBAY_TEST_CACHE")
	if base == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		base = filepath.Join(cache, "forebay-tests")
	}
	sum := sha256.Sum256(append(append([]byte{}, pom...), log4j...))
	dir := filepath.Join(base, "kafka-"+hex.EncodeToString(sum[:6]))
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	// Several test binaries may come here at once.
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(dir, "log4j2.properties")); err == nil {
		return dir, nil
	}
	fresh := dir + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return "", err
	}
	if err := os.MkdirAll(fresh, 0o755); err != nil {
		return "", err
	}
	pomFile := filepath.Join(fresh, "pom.xml")
	if err := os.WriteFile(pomFile, pom, 0o644); err != nil {
		return "", err
	}
	mvn := exec.Command("mvn", "-q", "-B", "-Dstyle.color=never", "-f", pomFile,
		"dependency:copy-dependencies", "-DoutputDirectory="+filepath.Join(fresh, "lib"))
	mvn.Dir = fresh
	if out, err := mvn.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	if err := os.WriteFile(filepath.Join(fresh, "log4j2.properties"), log4j, 0o644); err != nil {
		return "", err
	}
	return dir, os.Rename(fresh, dir)
}
