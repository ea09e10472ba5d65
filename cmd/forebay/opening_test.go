package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestNoSinksAreNotSaidOfALogThatIsBeingOpened: a script would take an empty list for
// an answer.
func TestNoSinksAreNotSaidOfALogThatIsBeingOpened(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"node":"n1","ready":false,"reasons":["the log is being opened"],"lanes":[]}`)
	}))
	defer server.Close()
	var out, errs bytes.Buffer
	code := (&program{out: &out, err: &errs}).run(t.Context(), []string{"sinks", "list", "-o", "json", "--addr", server.URL})
	if code != exitTryAgain || out.Len() > 0 || !strings.Contains(errs.String(), "the log is being opened") {
		t.Errorf("exit code %d, %q, %q", code, out.String(), errs.String())
	}
}
