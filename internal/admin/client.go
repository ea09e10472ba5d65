package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// ErrUnavailable says that no node answered at the address.
var ErrUnavailable = errors.New("no node answers")

// NewClient makes a client for a node at "host:port" or a URL.
func NewClient(address, token string) *Client {
	base := strings.TrimSuffix(address, "/")
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	return &Client{base: base, token: token, http: &http.Client{Timeout: time.Minute}}
}

// Status asks for /api/v1/status.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, "/api/v1/status", nil)
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
	decoder := json.NewDecoder(io.LimitReader(answer.Body, maxAnswer))
	if answer.StatusCode == http.StatusOK {
		if err := decoder.Decode(&result); err != nil {
			return result, fmt.Errorf("reading the answer of %s: %w", c.base, err)
		}
		return result, nil
	}
	var problem Problem
	if err := decoder.Decode(&problem); err != nil || problem.Error == "" {
		problem.Error = answer.Status
	}
	return result, &AnswerError{Status: answer.StatusCode, Message: problem.Error}
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
	answer, err := c.http.Do(request)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w at %s: is `forebay run` up, and its node.http this address (--addr, FOREBAY_ADDR)?", ErrUnavailable, c.base)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return answer, nil
}
