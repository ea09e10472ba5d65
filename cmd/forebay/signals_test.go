package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"forebay/internal/admin"
)

// TestTheGatewayOutlivesTheReadersOfItsLog: a log shipper that dies, or a pipe that is
// closed early, is no reason to end; and a terminal that hangs up ends it as
// gracefully as SIGTERM does.
func TestTheGatewayOutlivesTheReadersOfItsLog(t *testing.T) {
	for _, told := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(told.String(), func(t *testing.T) {
			// Under nohup the child would begin with it ignored, and rightly keep it so; what is
			// caught here it begins with as ever.
			caught := make(chan os.Signal, 1)
			signal.Notify(caught, told)
			defer signal.Stop(caught)
			read, write, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			read.Close()
			defer write.Close()
			cmd, client := unjoined(t)
			cmd.Stdout, cmd.Stderr = write, write
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			t.Cleanup(func() { _ = cmd.Process.Kill() })
			tick := time.NewTicker(10 * time.Millisecond)
			defer tick.Stop()
			deadline := time.After(patience)
			for up := false; !up; {
				select {
				case <-tick.C:
					status, err := client.Status(t.Context())
					up = err == nil && len(status.Lanes) > 0
				case err := <-ended:
					t.Fatalf("ended by itself: %v", err)
				case <-deadline:
					t.Fatal("does not come up")
				}
			}
			// As timeout(1), and a shell whose terminal hangs up, it is told more than once.
			for began := time.Now(); ; {
				select {
				case <-tick.C:
					if time.Since(began) < sameSignal/2 { // with the race detector the exit takes longer than that
						_ = cmd.Process.Signal(told)
					}
					continue
				case err := <-ended:
					if err != nil {
						t.Errorf("told to stop, it ended with: %v", err)
					}
				case <-deadline:
					t.Error("told to stop, it does not end")
				}
				return
			}
		})
	}
}

// TestASecondSignalEndsWhatDoesNotStop, when it comes a while after the first.
func TestASecondSignalEndsWhatDoesNotStop(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "forebay.toml")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "forebay", "validate", "-c", fifo) // waits for somebody who writes
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	reading, err := os.OpenFile(fifo, os.O_WRONLY, 0) // returns once it is read: it has begun
	if err != nil {
		t.Fatal(err)
	}
	defer reading.Close()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for began := time.Now(); ; {
		select {
		case <-tick.C:
			_ = cmd.Process.Signal(syscall.SIGTERM)
		case err := <-ended:
			status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
			if took := time.Since(began); !ok || status.Signal() != syscall.SIGTERM || took < sameSignal {
				t.Errorf("ended after %s with %v", took, err)
			}
			return
		case <-deadline:
			t.Fatal("does not end")
		}
	}
}

// unjoined is a gateway of its own process whose Kafka is not there, and a client for it.
func unjoined(t *testing.T) (*exec.Cmd, *admin.Client) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	text := fmt.Sprintf("[node]\ndataDir = %q\nhttp = %q\n[wal]\nminFree = \"1MiB\"\n[receiver.kafka]\nbrokers = [\"127.0.0.1:1\"]\ntopics = [\"clicks\"]\n[sinks.files.file]\ndir = %q\n",
		filepath.Join(dir, "data"), address, filepath.Join(dir, "files"))
	path := filepath.Join(dir, "forebay.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(t.Context(), "forebay", "run", "-c", path), admin.NewClient(address, "")
}
