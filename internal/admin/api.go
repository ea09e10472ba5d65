// Package admin is the node's HTTP surface: health, metrics, and the API that
// the commands and the page read. Reading is open to whoever reaches the
// listener; changing anything, and reading the bytes of a record, takes the token or,
// where none is set, a loopback client. Handlers are safe for concurrent use; they keep no state of their own.
package admin

import (
	"context"
	"errors"
	"time"

	"forebay/internal/record"
)

// Node is what the HTTP surface needs of the process that it speaks for. All
// methods are safe for concurrent use and return soon.
type Node interface {
	// Ready lists what keeps the node from being ready, empty when it is.
	Ready() []string
	Status() Status
	// Batches lists cut batches, newest first, below before (0: from the newest).
	Batches(lane uint32, before uint64, limit int) (BatchPage, error)
	// PauseSink pauses or resumes a sink, durably; resuming also retries a
	// blocked or failed one at once.
	PauseSink(ctx context.Context, name string, paused bool) error
	// RemoveSink forgets a sink that gives up the batches from its cursor on.
	RemoveSink(ctx context.Context, name string, givesUpFrom record.BatchID) error
	// Parked and Gaps give ErrNotLeader, not an empty list, while there is no log to ask.
	Parked() ([]Parked, error)
	// ParkedRecord reads one parked record from the log.
	ParkedRecord(ctx context.Context, lane uint32, id uint64) (record.Record, error)
	DiscardParked(ctx context.Context, lane uint32, ids []uint64) error
	Gaps() ([]Gap, error)
	// SkipGap lets a partition that is out of range go on, and records the gap.
	SkipGap(ctx context.Context, topic string, partition int32) (Gap, error)
	// Config is the configuration in force, secrets redacted, as TOML.
	Config() string
}

// Errors that the surface tells apart by HTTP status.
var (
	ErrNotFound  = errors.New("not found")        // 404
	ErrConflict  = errors.New("not as expected")  // 409
	ErrNotLeader = errors.New("no leader here")   // 503
	ErrInvalid   = errors.New("invalid argument") // 400
)

// Status is /api/v1/status. Fields are added, never renamed.
type Status struct {
	Gateway string   `json:"gateway"`
	Node    string   `json:"node"`
	Version string   `json:"version"`
	LogID   string   `json:"logId"`
	Ready   bool     `json:"ready"`
	Reasons []string `json:"reasons"`
	Lanes   []Lane   `json:"lanes"`
}

// Lane is one lane as this node sees it.
type Lane struct {
	Lane       uint32      `json:"lane"`
	Role       string      `json:"role"`
	Leader     string      `json:"leader"`
	Term       uint64      `json:"term"`
	Log        Log         `json:"log"`
	Intake     Intake      `json:"intake"`
	Batches    Batches     `json:"batches"`
	Sinks      []Sink      `json:"sinks"`
	Partitions []Partition `json:"partitions"`
}

// Log is a lane's log: entry indexes, bytes on disk.
type Log struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	Floor uint64 `json:"floor"`
	Bytes int64  `json:"bytes"`
}

// Intake is what comes in, per second, the limit in records per second (0: none) and what holds it back.
type Intake struct {
	RecordsPerSecond float64 `json:"recordsPerSecond"`
	BytesPerSecond   float64 `json:"bytesPerSecond"`
	Limit            int64   `json:"limit"`
	HeldBy           string  `json:"heldBy"`
}

// Batches tells the newest cut and how many batches some sink still needs.
type Batches struct {
	LastCut string `json:"lastCut"`
	Active  int    `json:"active"`
}

// Sink is one sink's progress. Configured is false for one that still holds the
// log's floor but is no longer in the configuration.
type Sink struct {
	Name        string     `json:"name"`
	Cursor      string     `json:"cursor"`
	State       string     `json:"state"`
	Retries     int        `json:"retries"`
	LastError   string     `json:"lastError"`
	LastSuccess *time.Time `json:"lastSuccess,omitempty"`
	Parked      int64      `json:"parked"`
	Dropped     int64      `json:"dropped"`
	Configured  bool       `json:"configured"`
}

// Partition is one partition's intake. End is -1 when it is not known.
type Partition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Next      int64  `json:"next"`
	End       int64  `json:"end"`
	State     string `json:"state"`
	Detail    string `json:"detail,omitempty"`
}

// BatchPage is /api/v1/batches; Next is the "before" of the next page, null at the end.
type BatchPage struct {
	Batches []Batch `json:"batches"`
	Next    *uint64 `json:"next"`
}

// Batch is one cut batch.
type Batch struct {
	ID      string         `json:"id"`
	Lane    uint32         `json:"lane"`
	Seq     uint64         `json:"seq"`
	CutAt   time.Time      `json:"cutAt"`
	Records int64          `json:"records"`
	Bytes   int64          `json:"bytes"`
	Ranges  []record.Range `json:"ranges"`
	Sinks   []BatchSink    `json:"sinks"`
}

// BatchSink is a batch's way into one sink; times are null before they come.
type BatchSink struct {
	Name      string     `json:"name"`
	State     string     `json:"state"`
	Attempts  int        `json:"attempts"`
	StartedAt *time.Time `json:"startedAt"`
	DoneAt    *time.Time `json:"doneAt"`
	Error     string     `json:"error"`
}

// Parked is one parked record's reference.
type Parked struct {
	Lane      uint32    `json:"lane"`
	ID        uint64    `json:"id"`
	Sink      string    `json:"sink"`
	Batch     string    `json:"batch"`
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Offset    int64     `json:"offset"`
	Reason    string    `json:"reason"`
	Bytes     int64     `json:"bytes"`
	At        time.Time `json:"at"`
}

// Gap is a range of offsets, both ends included, that never came; Pending ones
// wait for an operator's skip.
type Gap struct {
	Lane      uint32     `json:"lane"`
	Topic     string     `json:"topic"`
	Partition int32      `json:"partition"`
	First     int64      `json:"first"`
	Last      int64      `json:"last"`
	Reason    string     `json:"reason"`
	At        *time.Time `json:"at"`
	Pending   bool       `json:"pending"`
}

// Record is a record as the API shows it; bytes are base64, null is nil.
type Record struct {
	Topic     string      `json:"topic"`
	Partition int32       `json:"partition"`
	Offset    int64       `json:"offset"`
	Timestamp int64       `json:"timestamp"`
	Key       []byte      `json:"key"`
	Value     []byte      `json:"value"`
	Headers   [][2][]byte `json:"headers"`
}

// Problem is the body of every answer that is not a success.
type Problem struct {
	Error string `json:"error"`
}
