package admin_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"forebay/internal/admin"
)

// TestWhatAnswersIsNoNode: the commands say so, and how to name the node.
func TestWhatAnswersIsNoNode(t *testing.T) {
	page := func(status int, kind, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}
	}
	for name, c := range map[string]struct {
		server *httptest.Server
		words  string
	}{
		"a page":         {httptest.NewServer(page(200, "text/html", "<html>")), "but something else does (200 OK, text/html)"},
		"none there":     {httptest.NewServer(http.NotFoundHandler()), "but something else does (404 Not Found, text/plain"},
		"another's JSON": {httptest.NewServer(page(200, "application/json", `{"status":"green"}`)), "but something else does"},
		"a node's TLS":   {httptest.NewTLSServer(http.NotFoundHandler()), "ask for https://127.0.0.1:"},
	} {
		t.Run(name, func(t *testing.T) {
			defer c.server.Close()
			address := c.server.Listener.Addr().String()
			client := admin.NewClient(address, "")
			_, status := client.Status(t.Context())
			_, config := client.Config(t.Context())
			for what, err := range map[string]error{"status": status, "config": config} {
				if !errors.Is(err, admin.ErrUnavailable) || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), "--addr") {
					t.Errorf("%s: %v", what, err)
				}
			}
			if status == nil || !strings.Contains(status.Error(), c.words) {
				t.Errorf("got %v, want %q", status, c.words)
			}
		})
	}
}

// TestANodeThatHangs is waited for ten seconds by who reads.
func TestANodeThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		defer func() { _ = there.Close() }()
		go func() { _, _ = io.Copy(io.Discard, there) }()
		client := admin.NewClientOver("node:8420", func() (net.Conn, error) { return here, nil })
		began := time.Now()
		_, err := client.Status(t.Context())
		if took := time.Since(began); !errors.Is(err, admin.ErrUnavailable) || took != 10*time.Second || !strings.Contains(err.Error(), "within 10s") {
			t.Errorf("after %s: %v", took, err)
		}
	})
}
