package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"forebay/internal/record"
)

// maxAnswer bounds what a client reads of an answer.
const maxAnswer = 256 << 20

// Client asks a node's API, for the commands. Safe for concurrent use.
type Client struct {
	base  string
	token string
	http  *http.Client
}

const (
	// readTimeout bounds a question, its answer included: a node answers from memory.
	readTimeout = 10 * time.Second
	// changeTimeout bounds a change, which waits for the log's disk.
	changeTimeout = time.Minute
)

// ErrUnavailable says that no node answered at the address.
var ErrUnavailable = errors.New("no node answers")

// NewClient makes a client for a node at "host:port" or a URL.
func NewClient(address, token string) *Client {
	base := strings.TrimSuffix(address, "/")
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	return &Client{base: base, token: token, http: &http.Client{}}
}

// Status asks for /api/v1/status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	status, err := call[Status](ctx, c, http.MethodGet, "/api/v1/status", nil)
	if err == nil && status.Lanes == nil { // JSON, but not a node's
		err = fmt.Errorf("%w at %s, but something else does: is that the address of node.http (--addr, FOREBAY_ADDR)?", ErrUnavailable, c.base)
	}
	return status, err
}

// Ready asks for /-/ready: the reasons against it, empty when ready.
func (c *Client) Ready(ctx context.Context) ([]string, error) {
	answer, err := c.do(ctx, http.MethodGet, "/-/ready", nil)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var body struct {
		Reasons []string `json:"reasons"`
	}
	err = json.NewDecoder(io.LimitReader(answer.Body, maxAnswer)).Decode(&body)
	return body.Reasons, err
}

// Batches asks for one page of batches, newest first, below before (0: the newest).
func (c *Client) Batches(ctx context.Context, lane uint32, before uint64, limit int) (BatchPage, error) {
	query := url.Values{"lane": {strconv.FormatUint(uint64(lane), 10)}, "limit": {strconv.Itoa(limit)}}
	if before > 0 {
		query.Set("before", strconv.FormatUint(before, 10))
	}
	return call[BatchPage](ctx, c, http.MethodGet, "/api/v1/batches?"+query.Encode(), nil)
}

// PauseSink pauses a sink or resumes it.
func (c *Client) PauseSink(ctx context.Context, name string, paused bool) error {
	verb := "resume"
	if paused {
		verb = "pause"
	}
	_, err := call[struct{}](ctx, c, http.MethodPost, "/api/v1/sinks/"+url.PathEscape(name)+"/"+verb, struct{}{})
	return err
}

// RemoveSink makes the node forget a sink.
func (c *Client) RemoveSink(ctx context.Context, name string, givesUpFrom record.BatchID) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/api/v1/sinks/"+url.PathEscape(name)+"/remove", SinkRemoval{givesUpFrom.String()})
	return err
}

// Parked lists the parked records' references.
func (c *Client) Parked(ctx context.Context) ([]Parked, error) {
	return call[[]Parked](ctx, c, http.MethodGet, "/api/v1/parked", nil)
}

// ParkedRecord reads one parked record.
func (c *Client) ParkedRecord(ctx context.Context, lane uint32, id uint64) (Record, error) {
	return call[Record](ctx, c, http.MethodGet, fmt.Sprintf("/api/v1/parked/%d/%d", lane, id), nil)
}

// DiscardParked forgets parked records for good.
func (c *Client) DiscardParked(ctx context.Context, lane uint32, ids []uint64) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/api/v1/parked/discard", Discard{lane, ids})
	return err
}

// Gaps lists the gaps, those that wait for a skip included.
func (c *Client) Gaps(ctx context.Context) ([]Gap, error) {
	return call[[]Gap](ctx, c, http.MethodGet, "/api/v1/gaps", nil)
}

// SkipGap lets a partition that is out of range go on.
func (c *Client) SkipGap(ctx context.Context, topic string, partition int32) (Gap, error) {
	return call[Gap](ctx, c, http.MethodPost, "/api/v1/gaps/skip", Skip{topic, &partition})
}

// Config asks for the configuration in force.
func (c *Client) Config(ctx context.Context) (string, error) {
	answer, err := c.do(ctx, http.MethodGet, "/api/v1/config", nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return "", c.refusal(answer)
	}
	if !strings.HasPrefix(answer.Header.Get("Content-Type"), "application/toml") {
		return "", c.stranger(answer, nil)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	return string(text), err
}

func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var result T
	answer, err := c.do(ctx, method, path, body)
	if err != nil {
		return result, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return result, c.refusal(answer)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return result, fmt.Errorf("reading the answer of %s: %w", c.base, err)
	}
	if err := json.Unmarshal(text, &result); err != nil {
		return result, c.stranger(answer, text)
	}
	return result, nil
}

// refusal reads an answer that is not a success.
func (c *Client) refusal(answer *http.Response) error {
	var problem Problem
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil || json.Unmarshal(text, &problem) != nil || problem.Error == "" {
		return c.stranger(answer, text)
	}
	return &AnswerError{Status: answer.StatusCode, Message: problem.Error}
}

// stranger says that what answers is no node, or one that wants to be asked otherwise.
func (c *Client) stranger(answer *http.Response, text []byte) error {
	if bytes.Contains(text, []byte("HTTP request to an HTTPS server")) {
		return fmt.Errorf("%w at %s: it wants TLS: ask for https://%s (--addr, FOREBAY_ADDR)", ErrUnavailable, c.base, strings.TrimPrefix(c.base, "http://"))
	}
	what := answer.Status
	if kind := answer.Header.Get("Content-Type"); kind != "" {
		what += ", " + kind
	}
	return fmt.Errorf("%w at %s, but something else does (%s): is that the address of node.http (--addr, FOREBAY_ADDR)?", ErrUnavailable, c.base, what)
}

// AnswerError is a node's answer that was not a success.
type AnswerError struct {
	Status  int
	Message string
}

func (e *AnswerError) Error() string { return e.Message }

func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, reader)
	if err != nil {
		return nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	timeout := readTimeout
	if method != http.MethodGet {
		timeout = changeTimeout
	}
	asking := *c.http
	asking.Timeout = timeout // of the whole answer, which is read later
	answer, err := asking.Do(request)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w at %s: is `forebay run` up, and its node.http this address (--addr, FOREBAY_ADDR)?", ErrUnavailable, c.base)
	}
	var late interface{ Timeout() bool }
	if errors.As(err, &late) && late.Timeout() && ctx.Err() == nil {
		return nil, fmt.Errorf("%w at %s within %s%s: is `forebay run` there, and what does its log say?", ErrUnavailable, c.base, timeout, perhapsDone(method, err))
	}
	if err != nil {
		return nil, fmt.Errorf("%w%s: %w", ErrUnavailable, perhapsDone(method, err), err)
	}
	return answer, nil
}

// perhapsDone is what to say of a change whose answer is missing, once it went out.
func perhapsDone(method string, err error) string {
	var dialing *net.OpError
	if method == http.MethodGet || errors.As(err, &dialing) && dialing.Op == "dial" {
		return ""
	}
	return ", and the change may have been done all the same"
}
