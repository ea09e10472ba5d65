package admin_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"forebay/internal/admin"
	"forebay/internal/record"
)

// fakeNode answers with what it is given and notes what it was asked to change.
type fakeNode struct {
	reasons []string
	err     error
	changes []string
}

func (n *fakeNode) Ready() []string { return n.reasons }
func (n *fakeNode) Status() admin.Status {
	return admin.Status{Gateway: "g", Node: "n1", Reasons: []string{}, Lanes: []admin.Lane{}}
}

func (n *fakeNode) Batches(lane uint32, before uint64, limit int) (admin.BatchPage, error) {
	return admin.BatchPage{Batches: []admin.Batch{{Lane: lane, Seq: before, Records: int64(limit)}}}, n.err
}

func (n *fakeNode) PauseSink(_ context.Context, name string, paused bool) error {
	verb := " resumed"
	if paused {
		verb = " paused"
	}
	n.changes = append(n.changes, name+verb)
	return n.err
}

func (n *fakeNode) RemoveSink(_ context.Context, name string, from record.BatchID) error {
	n.changes = append(n.changes, name+" removed from "+from.String())
	return n.err
}
func (n *fakeNode) Parked() ([]admin.Parked, error) { return []admin.Parked{{ID: 7}}, n.err }
func (n *fakeNode) ParkedRecord(context.Context, uint32, uint64) (record.Record, error) {
	return record.Record{Topic: "t", Key: nil, Value: []byte{}, Headers: []record.Header{{Key: []byte("k")}}}, n.err
}

func (n *fakeNode) DiscardParked(_ context.Context, _ uint32, ids []uint64) error {
	n.changes = append(n.changes, "discarded")
	return n.err
}
func (n *fakeNode) Gaps() ([]admin.Gap, error) { return []admin.Gap{}, n.err }
func (n *fakeNode) SkipGap(_ context.Context, topic string, partition int32) (admin.Gap, error) {
	n.changes = append(n.changes, "skipped "+topic)
	return admin.Gap{Topic: topic, Partition: partition}, n.err
}
func (n *fakeNode) Config() string { return "[node]\n" }

func request(node *fakeNode, token, method, target, body string, change func(*http.Request)) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.RemoteAddr, r.Host = "127.0.0.1:5000", "127.0.0.1:8420"
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	admin.NewServer(node, token, prometheus.NewRegistry()).Handler.ServeHTTP(w, r)
	return w
}

func TestReadyTellsItsReasons(t *testing.T) {
	w := request(&fakeNode{reasons: []string{"no broker answers"}}, "", "GET", "/-/ready", "", nil)
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "no broker answers") {
		t.Errorf("not ready: got %d %s", w.Code, w.Body)
	}
	if w := request(&fakeNode{}, "", "GET", "/-/ready", "", nil); w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != `{"ready":true,"reasons":[]}` {
		t.Errorf("ready: got %d %s", w.Code, w.Body)
	}
}

func TestWhoMayChangeAnything(t *testing.T) {
	for _, c := range []struct {
		name   string
		token  string
		change func(*http.Request)
		want   int
	}{
		{"loopback without a token", "", nil, http.StatusOK},
		{"from elsewhere without a token", "", func(r *http.Request) { r.RemoteAddr = "10.0.0.9:5000" }, http.StatusForbidden},
		{"a page that resolves its name to loopback", "", func(r *http.Request) { r.Host = "evil.example:8420" }, http.StatusForbidden},
		{"a page of another origin", "", func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, http.StatusForbidden},
		{"through a web server on this machine", "", func(r *http.Request) { r.Header.Set("X-Forwarded-For", "10.0.0.9") }, http.StatusForbidden},
		{"from elsewhere with the token", "s3", func(r *http.Request) {
			r.RemoteAddr = "10.0.0.9:5000"
			r.Header.Set("Authorization", "Bearer s3")
		}, http.StatusOK},
		{"loopback with a wrong token", "s3", func(r *http.Request) { r.Header.Set("Authorization", "Bearer s4") }, http.StatusUnauthorized},
		{"loopback with none where one is set", "s3", nil, http.StatusUnauthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			node := &fakeNode{}
			w := request(node, c.token, "POST", "/api/v1/sinks/pages/pause", "{}", c.change)
			if w.Code != c.want {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, c.want)
			}
			if changed := len(node.changes) > 0; changed != (c.want == http.StatusOK) {
				t.Errorf("changed: %v with answer %d", changed, w.Code)
			}
		})
	}
}

func TestProfilesAreGuarded(t *testing.T) {
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/profile?seconds=1", "/debug/pprof/heap", "/debug/pprof/cmdline"} {
		if w := request(&fakeNode{}, "", "GET", path, "", func(r *http.Request) { r.RemoteAddr = "10.0.0.9:5000" }); w.Code != http.StatusForbidden {
			t.Errorf("%s from elsewhere: got %d", path, w.Code)
		}
	}
	if w := request(&fakeNode{}, "", "GET", "/debug/pprof/heap", "", nil); w.Code != http.StatusOK {
		t.Errorf("a heap profile from loopback: got %d", w.Code)
	}
}

func TestErrorsBecomeStatuses(t *testing.T) {
	for err, want := range map[error]int{
		admin.ErrNotFound: 404, record.ErrRefused: 409, admin.ErrNotLeader: 503, record.ErrReleased: 410, errors.New("else"): 500,
	} {
		if w := request(&fakeNode{err: err}, "", "POST", "/api/v1/sinks/pages/pause", "{}", nil); w.Code != want {
			t.Errorf("%v: got %d, want %d", err, w.Code, want)
		}
	}
	for _, bad := range []string{"/api/v1/batches?limit=x", "/api/v1/batches?before=-1"} {
		if w := request(&fakeNode{}, "", "GET", bad, "", nil); w.Code != 400 {
			t.Errorf("%s: got %d, want 400", bad, w.Code)
		}
	}
	if w := request(&fakeNode{}, "", "POST", "/api/v1/gaps/skip", `{"topc":"t"}`, nil); w.Code != 400 {
		t.Errorf("an unknown field: got %d, want 400", w.Code)
	}
}

func TestClientSpeaksToServer(t *testing.T) {
	node := &fakeNode{}
	server := httptest.NewServer(admin.NewServer(node, "", prometheus.NewRegistry()).Handler)
	defer server.Close()
	c := admin.NewClient(strings.TrimPrefix(server.URL, "http://"), "")
	ctx := t.Context()
	if s, err := c.Status(ctx); err != nil || s.Gateway != "g" {
		t.Errorf("status: %+v, %v", s, err)
	}
	if page, err := c.Batches(ctx, 2, 9, 3); err != nil || page.Batches[0].Lane != 2 || page.Batches[0].Seq != 9 || page.Batches[0].Records != 3 {
		t.Errorf("batches: %+v, %v", page, err)
	}
	for _, err := range []error{
		c.PauseSink(ctx, "pages", true), c.PauseSink(ctx, "pages", false),
		c.RemoveSink(ctx, "a/b", record.BatchID{Seq: 4}), c.DiscardParked(ctx, 0, []uint64{1}),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := c.SkipGap(ctx, "t", 1); err != nil {
		t.Error(err)
	}
	want := []string{"pages paused", "pages resumed", "a/b removed from 0-00000000000000000004", "discarded", "skipped t"}
	if diff := cmp.Diff(want, node.changes); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	shown, err := c.ParkedRecord(ctx, 0, 7)
	if err != nil || shown.Key != nil || shown.Value == nil || shown.Headers[0][1] != nil {
		t.Errorf("a parked record lost what tells nil from empty: %+v, %v", shown, err)
	}
	server.Close()
	if _, err := c.Status(ctx); !errors.Is(err, admin.ErrUnavailable) {
		t.Errorf("a node that is gone: %v, want ErrUnavailable", err)
	}
}
