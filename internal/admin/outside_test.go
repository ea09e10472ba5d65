package admin_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"forebay/internal/admin"
)

// TestRecordsAreShownOnlyToThoseWhoMayChangeThings: what Kafka guards by its own
// rights is not given to whoever reaches the listener.
func TestRecordsAreShownOnlyToThoseWhoMayChangeThings(t *testing.T) {
	const path = "/api/v1/parked/0/7"
	for _, c := range []struct {
		name, token string
		change      func(*http.Request)
		want        int
	}{
		{"from the node's machine", "", nil, http.StatusOK},
		{"from elsewhere", "", func(r *http.Request) { r.RemoteAddr = "10.0.0.9:5000" }, http.StatusForbidden},
		{"a page that resolves its name to loopback", "", func(r *http.Request) { r.Host = "evil.example:8420" }, http.StatusForbidden},
		{"without the token", "s3", nil, http.StatusUnauthorized},
		{"with the token", "s3", func(r *http.Request) { r.Header.Set("Authorization", "Bearer s3") }, http.StatusOK},
	} {
		w := request(&fakeNode{}, c.token, "GET", path, "", c.change)
		if w.Code != c.want {
			t.Errorf("%s: got %d %s, want %d", c.name, w.Code, w.Body, c.want)
		}
	}
}

// TestEveryAnswerThatIsNoSuccessIsAProblem, those of the library included.
func TestEveryAnswerThatIsNoSuccessIsAProblem(t *testing.T) {
	for _, c := range []struct {
		method, path string
		change       func(*http.Request)
		want         int
	}{
		{"GET", "/", nil, 404},
		{"GET", "/api/v1/nope", nil, 404},
		{"DELETE", "/api/v1/status", nil, 405},
		{"GET", "/api/v1/gaps/skip", nil, 405},
		{"POST", "/api/v1/sinks/pages/pause", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 403},
		{"POST", "/api/v1/gaps/skip", nil, 400}, // no body
	} {
		w := request(&fakeNode{}, "", c.method, c.path, "", c.change)
		var problem admin.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &problem); w.Code != c.want || err != nil || problem.Error == "" || strings.Contains(problem.Error, "\n") {
			t.Errorf("%s %s: got %d %q, want %d and a problem", c.method, c.path, w.Code, w.Body, c.want)
		}
		if got := w.Header().Get("Content-Type"); got != "application/json" {
			t.Errorf("%s %s: it is %s", c.method, c.path, got)
		}
	}
}

// TestASkipNamesItsPartition: what is left out is not partition 0.
func TestASkipNamesItsPartition(t *testing.T) {
	for _, body := range []string{`{"topic":"t"}`, `{"partition":3}`, `{"topic":"t","partition":0} {"topic":"u","partition":1}`, `null`} {
		node := &fakeNode{}
		if w := request(node, "", "POST", "/api/v1/gaps/skip", body, nil); w.Code != 400 || len(node.changes) > 0 {
			t.Errorf("%s: got %d %s", body, w.Code, w.Body)
		}
	}
	if w := request(&fakeNode{}, "", "POST", "/api/v1/gaps/skip", `{"topic":"t","partition":0}`, nil); w.Code != 200 {
		t.Errorf("partition 0: got %d %s", w.Code, w.Body)
	}
}

// TestASlowClientIsNotWaitedForForEver: each connection is a file descriptor, which
// the log needs too.
func TestASlowClientIsNotWaitedForForEver(t *testing.T) {
	server := admin.NewServer(&fakeNode{}, "", prometheus.NewRegistry())
	for name, limit := range map[string]*time.Duration{"read": &server.ReadTimeout, "write": &server.WriteTimeout, "header": &server.ReadHeaderTimeout} {
		if *limit <= 0 || *limit > 5*time.Minute {
			t.Errorf("%s: the limit is %s", name, *limit)
		}
		*limit = 50 * time.Millisecond
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "POST /api/v1/gaps/skip HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
	if _, err := io.Copy(io.Discard, bufio.NewReader(conn)); err != nil {
		t.Errorf("the connection stays: %v", err)
	}
}

// FuzzRequests: whatever comes is answered, by no panic, and what is refused changes nothing.
func FuzzRequests(f *testing.F) {
	for _, seed := range [][3]string{
		{"GET", "/api/v1/batches?limit=5&before=7&lane=0", ""},
		{"GET", "/api/v1/parked/0/7", ""},
		{"POST", "/api/v1/parked/discard", `{"lane":0,"ids":[1,2]}`},
		{"POST", "/api/v1/gaps/skip", `{"topic":"clicks","partition":0}`},
		{"POST", "/api/v1/sinks/pages/remove", `{"givesUpFrom":"0-00000000000000000042"}`},
		{"POST", "/api/v1/sinks/pa%2fges/pause", ``},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, method, target, body string) {
		if u, err := url.ParseRequestURI(target); err != nil || !strings.HasPrefix(u.Path, "/api/") {
			t.Skip()
		}
		if _, err := http.NewRequest(method, "http://127.0.0.1"+target, nil); err != nil || strings.ContainsAny(method+target, " \r\n\t") || method == "" {
			t.Skip()
		}
		node := &fakeNode{}
		w := request(node, "", method, target, body, nil)
		if changed := len(node.changes) > 0; changed && (w.Code != 200 || method != "POST") {
			t.Errorf("%s %s %q: changed %v with answer %d", method, target, body, node.changes, w.Code)
		}
		if w.Code == 500 {
			t.Errorf("%s %s %q: %s", method, target, body, w.Body)
		}
	})
}
