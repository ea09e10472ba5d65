package torture

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forebay/internal/faultfs"
	"forebay/replicate"
	"forebay/wal"
)

// laneTrials is how many damages one child tries.
const laneTrials = 40

// TestDamagedLanes damages whole lanes: log, snapshots, and stable.db. Children open them: a
// panic ends the child and not the count. A damaged lane is refused with its reason, or reads as
// before, or says what it cannot read.
func TestDamagedLanes(t *testing.T) {
	needsE2E(t)
	deadline := time.Now().Add(budget(t, 13))
	first := firstSeed(t)
	root := memoryDir(t)
	k := plainLane(t, root, first)
	claim, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	count := &tally{kinds: map[string]int{}}
	for seed := first; time.Now().Before(deadline) && !t.Failed(); seed += laneTrials {
		cmd := start(t, "lane damage", root, seed, claimEnv+"="+string(claim))
		var errs bytes.Buffer
		cmd.Stderr = &errs
		said, err := cmd.Output()
		last := "nothing"
		for lines := bufio.NewScanner(bytes.NewReader(said)); lines.Scan(); {
			word, rest, _ := strings.Cut(lines.Text(), " ")
			switch word {
			case "try":
				last = rest
			case "wrong":
				t.Errorf("%s: %s", last, rest)
			default:
				kind, _, _ := strings.Cut(strings.SplitN(last, ": ", 2)[1], " /")
				count.count(kind, map[string]*int{"refused": &count.refused, "read": &count.read, "harmless": &count.harmless}[word])
			}
		}
		if err != nil {
			t.Errorf("%s: the process ended: %v\n%.3000s", last, err, errs.String())
		}
	}
	if !t.Failed() {
		count.print(t, "lane")
	}
}

// plainLane has a child make a lane in root/base, and returns what it claimed.
func plainLane(t *testing.T, root string, seed uint64) laneKnown {
	t.Helper()
	base := filepath.Join(root, "base")
	if err := os.Mkdir(base, 0o750); err != nil {
		t.Fatal(err)
	}
	marks := filepath.Join(base, faultfs.MarkName)
	if err := os.WriteFile(marks, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := start(t, "lane", base, seed).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(marks)
	if err != nil {
		t.Fatal(err)
	}
	w := &laneWitness{}
	w.begin()
	for d := json.NewDecoder(bytes.NewReader(b)); d.More(); {
		var raw json.RawMessage
		if err := errors.Join(d.Decode(&raw), w.claim(string(raw))); err != nil {
			t.Fatal(err)
		}
	}
	return w.known
}

// laneDamage is the child: it damages copies of a lane, opens them, and says what came of it.
func laneDamage(root string, seed uint64, _ *claims) error {
	var k laneKnown
	if err := json.Unmarshal([]byte(os.Getenv(claimEnv)), &k); err != nil {
		return err
	}
	dir := filepath.Join(root, "damaged")
	for i := seed; i < seed+laneTrials; i++ {
		if err := errors.Join(os.RemoveAll(dir), os.CopyFS(dir, os.DirFS(filepath.Join(root, "base", "lane")))); err != nil {
			return err
		}
		kind, what, err := inflict(rand.New(rand.NewPCG(i, 12)), dir)
		if err != nil {
			return err
		}
		fmt.Printf("try seed %d: %s /%s\n", i, kind, what)
		outcome, err := judgeDamagedLane(dir, &k)
		if err != nil {
			fmt.Printf("wrong %s\n", strings.ReplaceAll(err.Error(), "\n", " | "))
			continue
		}
		fmt.Println(outcome)
	}
	return nil
}

func judgeDamagedLane(dir string, k *laneKnown) (string, error) {
	_, err := openAndJudge(dir, k)
	if err == nil {
		return "harmless", nil
	}
	outcome := "refused"
	var corrupt *wal.CorruptError
	var version *wal.VersionError
	var snapshot *replicate.SnapshotError
	var stable *replicate.StableError
	switch {
	case errors.Is(err, replicate.ErrDamaged):
		outcome = "read"
	case errors.As(err, &corrupt), errors.As(err, &version), errors.As(err, &snapshot), errors.As(err, &stable),
		errors.Is(err, replicate.ErrNoBase), errors.Is(err, replicate.ErrForeign):
	default:
		return "", err
	}
	if !strings.Contains(err.Error(), dir) && outcome == "refused" {
		return "", fmt.Errorf("the error names no file: %w", err)
	}
	return outcome, nil
}
