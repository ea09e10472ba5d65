package admin_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"forebay/internal/admin"
)

// TestAChangeWithoutAnAnswerMayHaveBeenDone, and "no node answers" alone would have the
// operator believe that it was not.
func TestAChangeWithoutAnAnswerMayHaveBeenDone(t *testing.T) {
	asked, release := make(chan struct{}, 2), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-release
	}))
	defer server.Close()
	defer close(release)
	c := admin.NewClient(server.URL, "")
	ask := func(do func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		go func() { <-asked; cancel() }()
		return do(ctx)
	}
	const words = "may have been done"
	err := ask(func(ctx context.Context) error { return c.PauseSink(ctx, "pages", true) })
	if !errors.Is(err, admin.ErrUnavailable) || !strings.Contains(err.Error(), words) {
		t.Errorf("a change: %v", err)
	}
	err = ask(func(ctx context.Context) error { _, err := c.Status(ctx); return err })
	if !errors.Is(err, admin.ErrUnavailable) || strings.Contains(err.Error(), words) {
		t.Errorf("a question: %v", err)
	}
	if err := admin.NewClient("127.0.0.1:1", "").PauseSink(t.Context(), "pages", true); !errors.Is(err, admin.ErrUnavailable) || strings.Contains(err.Error(), words) {
		t.Errorf("a change that never went out: %v", err)
	}
}
