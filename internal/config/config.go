// Package config is Forebay's configuration: the TOML file as Go values, its
// defaults, and everything that can be said to be wrong with it before anything
// is started. Load never touches anything but the file and what it names in
// ${file:…}; it returns every error at once, each with its line.
package config

// Config is one TOML file, with defaults filled in. Values are plain data: safe
// to read from several goroutines, and nobody changes them after Load.
type Config struct {
	Node     Node            `toml:"node"`
	WAL      WAL             `toml:"wal"`
	Receiver Receiver        `toml:"receiver"`
	Batch    Batch           `toml:"batch"`
	Parked   Parked          `toml:"parked"`
	Sinks    map[string]Sink `toml:"sinks"`
}

// Node is this process.
type Node struct {
	// ID names the node; default "n1". Letters, digits, '-', '_', '.', at most 64.
	ID string `toml:"id"`
	// Gateway is one name for the whole cluster; sinks store it beside each batch. Default "forebay".
	Gateway string `toml:"gateway"`
	// DataDir holds the log and the state. Required.
	DataDir string `toml:"dataDir"`
	// HTTP is the address of API, metrics and health. Default "127.0.0.1:8420".
	HTTP string `toml:"http"`
	// Token is what changing commands must bring; without it only a loopback
	// client may change anything.
	Token Secret `toml:"token"`
	// TLS serves HTTP with a certificate; beyond loopback it is required together with Token …
	TLS *ServerTLS `toml:"tls"`
	// … unless Insecure says by name that this is wanted.
	Insecure bool `toml:"insecure"`
	// Memory is the budget for buffers and the Go heap's soft limit. Default 256MiB, at least 64MiB.
	Memory Size `toml:"memory"`
	// StopTimeout bounds a graceful stop. Default 30s.
	StopTimeout Duration `toml:"stopTimeout"`
	// LogLevel is debug, info, warn or error; LogFormat text or json. Defaults info, text.
	LogLevel  string `toml:"logLevel"`
	LogFormat string `toml:"logFormat"`
}

// ServerTLS is a certificate and its key, PEM files.
type ServerTLS struct {
	Cert string `toml:"cert"`
	Key  string `toml:"key"`
}

// WAL is the log on disk.
type WAL struct {
	// Retention keeps delivered batches replayable this long. Default 24h.
	Retention Duration `toml:"retention"`
	// MaxBytes is the size of the log at which delivered batches go early, oldest first, and then the intake pauses. Default 50GiB.
	MaxBytes Size `toml:"maxBytes"`
	// MinFree does the same when the disk has less free space than this. Default 2GiB.
	MinFree Size `toml:"minFree"`
	// Compression of blocks: none, s2 or zstd. The default is record.DefaultCompression.
	Compression string `toml:"compression"`
	// InFlightBytes bounds what is proposed and not yet settled. Default 2MiB.
	InFlightBytes Size `toml:"inFlightBytes"`
	// SnapshotBytes of log between two snapshots of the state. Default 256MiB.
	SnapshotBytes Size `toml:"snapshotBytes"`
	// StallTimeout ends a process whose disk hangs. Default 10s.
	StallTimeout Duration `toml:"stallTimeout"`
}

// Receiver is the intake.
type Receiver struct {
	// MaxRate caps records per second, MaxBytesRate bytes per second, of the whole gateway. 0 is no cap.
	MaxRate      int64 `toml:"maxRate"`
	MaxBytesRate Size  `toml:"maxBytesRate"`
	// A block is sealed when it holds BlockBytes (default 256KiB, 4KiB to 512KiB) or is BlockInterval old (default 20ms).
	BlockBytes    Size     `toml:"blockBytes"`
	BlockInterval Duration `toml:"blockInterval"`
	Kafka         Kafka    `toml:"kafka"`
}

// Kafka is where records come from.
type Kafka struct {
	Brokers []string `toml:"brokers"`
	Group   string   `toml:"group"`
	Topics  []string `toml:"topics"`
	// MaxRatePerPartition caps records per second of each partition. 0 is no cap.
	MaxRatePerPartition int64 `toml:"maxRatePerPartition"`
	// OffsetOutOfRange: pause (default; that partition alone), earliest or latest.
	OffsetOutOfRange string `toml:"offsetOutOfRange"`
	// IsolationLevel: read_committed (default) or read_uncommitted.
	IsolationLevel string `toml:"isolationLevel"`
	// StartFrom is where topics that are there at the first start begin when the group has no committed offset: earliest (default) or latest.
	StartFrom string `toml:"startFrom"`
	ClientID  string `toml:"clientID"`
	// MetadataRefresh is how often topics and partitions are looked at. Default 1s.
	MetadataRefresh Duration `toml:"metadataRefresh"`
	// SessionTimeout of the group membership. Default 30s.
	SessionTimeout Duration   `toml:"sessionTimeout"`
	TLS            *ClientTLS `toml:"tls"`
	SASL           *SASL      `toml:"sasl"`
}

// ClientTLS speaks TLS to the brokers; an empty table uses the system's roots.
type ClientTLS struct {
	CA         string `toml:"ca"`
	Cert       string `toml:"cert"`
	Key        string `toml:"key"`
	ServerName string `toml:"serverName"`
}

// SASL authenticates to the brokers.
type SASL struct {
	// Mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
	Mechanism string `toml:"mechanism"`
	User      string `toml:"user"`
	Password  Secret `toml:"password"`
}

// Batch is how the log is cut.
type Batch struct {
	// Interval between cuts. Default 5s, at least 100ms.
	Interval Duration `toml:"interval"`
	// MaxBytes and MaxRecords cut early. Defaults 256MiB and 10000000.
	MaxBytes   Size  `toml:"maxBytes"`
	MaxRecords int64 `toml:"maxRecords"`
}

// Parked bounds the records that sinks refused and that are kept.
type Parked struct {
	// MaxBytes of parked records; beyond it a parking sink blocks. Default 256MiB.
	MaxBytes Size `toml:"maxBytes"`
}

// Sink is one destination: the common keys, and exactly one of the tables that say what it is.
type Sink struct {
	// Topics routed to this sink; empty is all.
	Topics []string `toml:"topics"`
	// Delivery: at-most-once, at-least-once or exactly-once. Default: the strongest that the sink can do.
	Delivery string `toml:"delivery"`
	// Refused: block (default), park or drop.
	Refused string `toml:"refused"`
	// StartFrom of a sink that is new to the log: oldest (default) or newest.
	StartFrom string `toml:"startFrom"`
	// Timeout of one attempt. Default 5m.
	Timeout Duration `toml:"timeout"`
	Backoff Backoff  `toml:"backoff"`
	Mapping *Mapping `toml:"mapping"`

	File   *FileSink   `toml:"file"`
	SQLite *SQLiteSink `toml:"sqlite"`
	Stdout *StdoutSink `toml:"stdout"`
}

// Backoff between attempts, with jitter. Defaults 200ms to 30s.
type Backoff struct {
	Initial Duration `toml:"initial"`
	Max     Duration `toml:"max"`
}

// Mapping is a program per record, in expr.
type Mapping struct {
	// When keeps the record if it is true.
	When string `toml:"when"`
	// Value replaces the record's value.
	Value string `toml:"value"`
	// Columns for sinks with columns, in order.
	Columns []Column `toml:"columns"`
}

// Column is one column of a mapping: its name and the expression that gives it.
type Column struct {
	Name  string `toml:"name"`
	Value string `toml:"value"`
}

// FileSink writes a file per batch.
type FileSink struct {
	Dir         string `toml:"dir"`
	Format      string `toml:"format"`
	Compression string `toml:"compression"`
	Encoding    string `toml:"encoding"`
	Shared      bool   `toml:"shared"`
}

// SQLiteSink writes rows.
type SQLiteSink struct {
	Path  string `toml:"path"`
	Table string `toml:"table"`
	// Mode: insert (default), upsert or accumulate.
	Mode   string            `toml:"mode"`
	Key    []string          `toml:"key"`
	Update map[string]string `toml:"update"`
	Types  map[string]string `toml:"types"`
	// Create makes the table when it is missing. Default true.
	Create *bool `toml:"create"`
	Shared bool  `toml:"shared"`
}

// StdoutSink prints records.
type StdoutSink struct {
	Format   string `toml:"format"`
	Encoding string `toml:"encoding"`
}
