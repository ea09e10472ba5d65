package config_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"forebay/internal/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares with a file of testdata, or rewrites it.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestEachBadFileSaysWhatIsWrong(t *testing.T) {
	t.Chdir("testdata")
	files, err := filepath.Glob("*.bad.toml")
	if err != nil || len(files) < 50 {
		t.Fatalf("found %d bad files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(file, ".bad.toml"), func(t *testing.T) {
			_, err := config.Load(file)
			if err == nil {
				t.Fatal("was taken for good")
			}
			if !errors.Is(err, config.ErrInvalid) {
				t.Errorf("%v is no ErrInvalid", err)
			}
			golden(t, strings.TrimSuffix(file, ".toml")+".txt", err.Error()+"\n")
		})
	}
}

func TestEveryKeyIsTaken(t *testing.T) {
	t.Setenv("FOREBAY_TEST_USER", "alice")
	t.Chdir("testdata")
	f, err := config.Load("whole.toml")
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Node.Token; string(got) != "s3cret" {
		t.Errorf("the token of a file reads %q", string(got))
	}
	if f.Receiver.Kafka.SASL.User != "alice" || string(f.Receiver.Kafka.SASL.Password) != "hunter2" {
		t.Errorf("SASL reads %q %q", f.Receiver.Kafka.SASL.User, string(f.Receiver.Kafka.SASL.Password))
	}
	if got := time.Duration(f.WAL.Retention); got != 7*24*time.Hour {
		t.Errorf("7d reads %v", got)
	}
	if f.WAL.MaxBytes != 100e9 || f.WAL.MinFree != 0 {
		t.Errorf("100GB and 0 read %d and %d", f.WAL.MaxBytes, f.WAL.MinFree)
	}
	if got := f.Sinks["pages"].Mapping.Columns[1].Name; got != "score" {
		t.Errorf("the second column reads %q", got)
	}
	text, err := f.Render()
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"s3cret", "hunter2", "alice"} {
		if strings.Contains(text, secret) {
			t.Errorf("the rendered configuration shows %q", secret)
		}
	}
	golden(t, "whole.txt", text)
}

// TestASecretNeverShows, whatever a configuration is printed with.
func TestASecretNeverShows(t *testing.T) {
	var c config.Config
	c.Node.Token = "hunter2"
	c.Receiver.Kafka.SASL = &config.SASL{Password: "hunter2"}
	var logged bytes.Buffer
	slog.New(slog.NewTextHandler(&logged, nil)).Info("text", "config", c, "node", c.Node, "token", c.Node.Token)
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("json", "config", c, "node", c.Node, "token", c.Node.Token)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		for _, value := range []any{c.Node.Token, c.Node, *c.Receiver.Kafka.SASL} {
			fmt.Fprintf(&logged, verb+"\n", value)
		}
	}
	if text := logged.String(); strings.Contains(text, "hunter2") || strings.Contains(strings.ToLower(text), "68756e74657232") {
		t.Errorf("the secret shows in:\n%s", text)
	}
}

// TestASecretOfTwoParts is shown in none: what stands beside a reference is secret too.
func TestASecretOfTwoParts(t *testing.T) {
	t.Setenv("FOREBAY_TEST_TAIL", "ter2")
	f, err := config.Parse("forebay.toml", []byte(`
[node]
dataDir = "/var/lib/forebay"
token = "hun${env:FOREBAY_TEST_TAIL}"
[receiver.kafka]
brokers = ["localhost:9092"]
topics = ["clicks"]
[sinks.files.file]
dir = "/out"
`))
	if err != nil {
		t.Fatal(err)
	}
	text, err := f.Render()
	if err != nil {
		t.Fatal(err)
	}
	if string(f.Node.Token) != "hunter2" || strings.Contains(text, "hun") || !strings.Contains(text, "token = '[redacted]'") {
		t.Errorf("the token %q is shown in:\n%s", string(f.Node.Token), text)
	}
}

func TestDefaultsAreSaid(t *testing.T) {
	f, err := config.Parse("forebay.toml", []byte(`
[node]
dataDir = "/var/lib/forebay"
[receiver.kafka]
brokers = ["localhost:9092"]
topics = ["clicks"]
[sinks.files.file]
dir = "/out"
`))
	if err != nil {
		t.Fatal(err)
	}
	text, err := f.Render()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, filepath.Join("testdata", "defaults.txt"), text)
	again, err := config.Parse("rendered.toml", []byte(text))
	if err != nil {
		t.Fatalf("what was rendered does not read: %v", err)
	}
	if diff := cmp.Diff(f.Config, again.Config, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("what was rendered reads as something else (-want +got):\n%s", diff)
	}
}

func TestUnitsReadWhatTheyWrite(t *testing.T) {
	for _, c := range []struct {
		size config.Size
		want string
	}{{0, "0"}, {1, "1B"}, {1 << 10, "1KiB"}, {1536, "1536B"}, {256 << 20, "256MiB"}, {50 << 30, "50GiB"}, {1 << 40, "1TiB"}} {
		if got := c.size.String(); got != c.want {
			t.Errorf("%d: got %s, want %s", int64(c.size), got, c.want)
		}
	}
	for _, c := range []struct {
		duration time.Duration
		want     string
	}{{0, "0s"}, {20 * time.Millisecond, "20ms"}, {5 * time.Second, "5s"}, {90 * time.Second, "1m30s"}, {time.Minute, "1m"}, {10 * time.Minute, "10m"}, {24 * time.Hour, "24h"}, {20 * time.Hour, "20h"}} {
		if got := config.Duration(c.duration).String(); got != c.want {
			t.Errorf("%v: got %s, want %s", c.duration, got, c.want)
		}
	}
}

func TestChecksCarryTheLine(t *testing.T) {
	t.Setenv("FOREBAY_TEST_USER", "alice")
	t.Chdir("testdata")
	f, err := config.Load("whole.toml")
	if err != nil {
		t.Fatal(err)
	}
	err = f.Check(nil, func(report config.Report) {
		report("sinks.pages.mapping.columns[1].value", "does not compile")
	})
	if want := "whole.toml:64: sinks.pages.mapping.columns[1].value: does not compile"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.toml")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(_ *testing.T, text []byte) {
		_, _ = config.Parse("fuzz.toml", text)
	})
}
