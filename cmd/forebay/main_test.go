package main

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"github.com/rogpeppe/go-internal/testscript"

	"forebay/internal/record"
	"forebay/replicate/state"
	"forebay/wal"
)

var update = flag.Bool("update", false, "write the golden texts of the scripts anew")

// TestMain lets the scripts run this binary as the program.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"forebay": main})
}

// TestScripts plays testdata/script: what an operator types, and what comes back.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"), UpdateScripts: *update, RequireUniqueNames: true, RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("FOREBAY_ADDR", "127.0.0.1:1") // where nobody listens
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits, "fixture": fixture},
	})
}

// exits runs a command that must end with the exit code: exits CODE COMMAND...
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	command := args[1:]
	if command[0] == "locked" { // exits CODE locked DIR COMMAND...: while somebody has the log in DIR
		held, err := wal.Hold(ts.MkAbs(command[1]), -1)
		ts.Check(err)
		defer func() { _ = held.Close() }()
		command = command[2:]
	}
	err = ts.Exec(command[0], command[1:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d\n%s%s", code, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// fixture makes a data directory with a small log: fixture DIR [torn|damaged|missing|first|other].
func fixture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: fixture DIR [torn|damaged|missing|first|other]")
	}
	lane := filepath.Join(ts.MkAbs(args[0]), "lanes", "0")
	id := state.LogID{1, 2, 3}
	if len(args) > 1 && args[1] == "other" {
		id[0] = 9
	}
	ts.Check(writeLog(lane, id))
	segments, err := filepath.Glob(filepath.Join(lane, "log", "*"))
	ts.Check(err)
	switch strings.Join(args[1:], " ") {
	case "", "other":
	case "torn": // the beginning of a frame that was never synced
		f, err := os.OpenFile(segments[len(segments)-1], os.O_APPEND|os.O_WRONLY, 0)
		ts.Check(err)
		_, err = f.Write([]byte("\xff\x01half a frame"))
		ts.Check(errors.Join(err, f.Close()))
	case "damaged": // one flipped bit in the first segment
		text, err := os.ReadFile(segments[0])
		ts.Check(err)
		text[len(text)/2] ^= 4
		ts.Check(os.WriteFile(segments[0], text, 0o600))
	case "first": // one flipped bit in the first entry
		text, err := os.ReadFile(segments[0])
		ts.Check(err)
		text[70] ^= 4
		ts.Check(os.WriteFile(segments[0], text, 0o600))
	case "missing":
		ts.Check(os.Remove(segments[1]))
	default:
		ts.Fatalf("unknown fixture %q", args[1])
	}
}

// writeLog writes a log in which every kind of entry is the same each time.
func writeLog(dir string, logID state.LogID) error {
	log, err := wal.Open(wal.Config{Dir: dir, SegmentSize: 4 << 10})
	if err != nil {
		return err
	}
	const at = 1_700_000_000_000
	id := record.TopicID{15: 7}
	var block record.Run
	block.Reset("clicks", id, 2, 100)
	for _, r := range []record.Record{
		{Offset: 100, Timestamp: at, Key: []byte("k"), Value: []byte(`{"page":"<a&b>"}`), Headers: []record.Header{{Key: []byte("h")}, {Key: []byte{0xff}, Value: []byte{}}}},
		{Offset: 103, Timestamp: -1, Value: []byte{}},
	} {
		if err := block.Append(&r); err != nil {
			return err
		}
	}
	var big record.Run
	big.Reset("clicks", id, 2, 104)
	if err := big.Append(&record.Record{Offset: 104, Timestamp: at, Value: []byte(strings.Repeat("x", 5000))}); err != nil {
		return err
	}
	seal := func(r *record.Run) []byte { return record.NewSealer(record.None).Seal([]*record.Run{r}) }
	entries := [][]byte{
		state.Encode(state.Form{LogID: logID, Gateway: "forebay", Lanes: 1, Node: "n1", At: at}),
		state.Encode(state.Begin{Term: 2, Node: "n1", At: at}),
		state.Encode(state.SinkAdd{Name: "pages", Destination: "file:/pages", At: at}),
		state.Encode(state.Bases{Bases: []record.Base{{Topic: "clicks", TopicID: id, Partition: 2, Next: 100}}, At: at}),
		seal(&block), seal(&big),
		state.Encode(state.Cut{Term: 2, Seq: 1, At: at + 5000}),
		state.Encode(state.Done{Done: record.Done{Sink: "pages", Seq: 1, Attempts: 1, StartedAt: at + 5001, DoneAt: at + 5010}, Term: 2}),
		state.Encode(state.Advance{Advance: record.Advance{Topic: "clicks", TopicID: id, Partition: 2, Base: 105, Next: 110, Reason: record.AdvanceExpired}, At: at}),
	}
	logs := []*raft.Log{{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(raft.Configuration{})}}
	for i, data := range entries {
		logs = append(logs, &raft.Log{Index: uint64(i) + 2, Term: 2, Type: raft.LogCommand, Data: data})
	}
	for _, l := range logs {
		if err = log.StoreLog(l); err != nil {
			break
		}
	}
	return errors.Join(err, log.Close())
}

// TestEveryCommandSaysWhatItDoes in the list of its parent.
func TestEveryCommandSaysWhatItDoes(t *testing.T) {
	root := (&program{}).root()
	for _, c := range root.Commands() {
		for _, sub := range append(c.Commands(), c) {
			if sub.Short == "" {
				t.Errorf("%s says nothing", sub.CommandPath())
			}
		}
	}
}
