package config

import (
	"maps"
	"math"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

const nameRule = "wants letters, digits, '-', '_' or '.', at most 64, beginning with a letter or digit"

// validate checks what the types don't say. Every rule has a file in testdata.
func validate(c *Config, s *source) {
	validateNode(&c.Node, s)
	validateWAL(c, s)
	validateReceiver(&c.Receiver, s)
	validateKafka(&c.Receiver.Kafka, s)
	validateBatch(c, s)
	if len(c.Sinks) == 0 {
		s.add("sinks", "no sink is configured: add at least one, such as [sinks.files] with [sinks.files.file]")
	}
	for _, sinkName := range slices.Sorted(maps.Keys(c.Sinks)) {
		sink := c.Sinks[sinkName]
		validateSink("sinks."+sinkName, sinkName, &sink, s)
	}
}

func oneOf(s *source, key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		s.add(key, "%q is none of %s", value, strings.Join(allowed, ", "))
	}
}

func within[T ~int64](s *source, key string, value, least, most T, leastText, mostText string) {
	switch {
	case value < least:
		s.add(key, "is less than %s", leastText)
	case value > most:
		s.add(key, "is more than %s", mostText)
	}
}

func required(s *source, key, value, example string) {
	if value == "" {
		s.add(key, "is required, such as %s", example)
	}
}

func validateNode(n *Node, s *source) {
	if !name.MatchString(n.ID) {
		s.add("node.id", nameRule)
	}
	if !name.MatchString(n.Gateway) {
		s.add("node.gateway", nameRule)
	}
	required(s, "node.dataDir", n.DataDir, `"/var/lib/forebay"`)
	oneOf(s, "node.logLevel", n.LogLevel, "debug", "info", "warn", "error")
	oneOf(s, "node.logFormat", n.LogFormat, "text", "json")
	within(s, "node.memory", n.Memory, 64<<20, math.MaxInt64, "64MiB", "")
	within(s, "node.stopTimeout", n.StopTimeout, Duration(time.Second), Duration(time.Hour), "1s", "1h")
	if n.TLS != nil {
		required(s, "node.tls.cert", n.TLS.Cert, `"node.crt"`)
		required(s, "node.tls.key", n.TLS.Key, `"node.key"`)
	}
	host, port, err := net.SplitHostPort(n.HTTP)
	if err != nil || !isPort(port) {
		s.add("node.http", `wants an address with its port, such as "127.0.0.1:8420"`)
		return
	}
	ip := net.ParseIP(host)
	local := host == "localhost" || ip != nil && ip.IsLoopback()
	if !local && !n.Insecure && (n.Token == "" || n.TLS == nil) {
		s.add("node.http", "listens beyond this machine, which takes node.token and node.tls (or node.insecure = true, if that is really wanted)")
	}
}

func isPort(text string) bool {
	_, err := strconv.ParseUint(text, 10, 16)
	return err == nil
}

func validateWAL(c *Config, s *source) {
	w := &c.WAL
	oneOf(s, "wal.compression", w.Compression, "none", "s2", "zstd")
	within(s, "wal.maxBytes", w.MaxBytes, 64<<20, math.MaxInt64, "64MiB", "")
	within(s, "wal.minFree", w.MinFree, 0, math.MaxInt64, "0", "")
	within(s, "wal.inFlightBytes", w.InFlightBytes, 64<<10, 1<<30, "64KiB", "1GiB")
	within(s, "wal.snapshotBytes", w.SnapshotBytes, 1<<20, 16<<30, "1MiB", "16GiB")
	within(s, "wal.stallTimeout", w.StallTimeout, Duration(time.Second), Duration(time.Hour), "1s", "1h")
}

func validateReceiver(r *Receiver, s *source) {
	within(s, "receiver.maxRate", r.MaxRate, 0, math.MaxInt64, "0 (no cap)", "")
	within(s, "receiver.maxBytesRate", r.MaxBytesRate, 0, math.MaxInt64, "0 (no cap)", "")
	within(s, "receiver.blockBytes", r.BlockBytes, 4<<10, 512<<10, "4KiB", "512KiB: no log entry is larger than 1MiB")
	within(s, "receiver.blockInterval", r.BlockInterval, Duration(time.Millisecond), Duration(time.Minute), "1ms", "1m")
}

var topicName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)

// topicNames holds a list of topics to Kafka's rule for their names: another one can
// never be there.
func topicNames(key string, topics []string, s *source) {
	for i, topic := range topics {
		switch {
		case !topicName.MatchString(topic) || topic == "." || topic == "..":
			s.add(key, "%q is no name of a topic: Kafka wants letters, digits, '-', '_' or '.', at most 249, and neither \".\" nor \"..\"", topic)
		case slices.Contains(topics[:i], topic):
			s.add(key, "%q is there twice", topic)
		}
	}
}

func validateKafka(k *Kafka, s *source) {
	const table = "receiver.kafka."
	if len(k.Brokers) == 0 {
		s.add(table+"brokers", `is required, such as ["localhost:9092"]`)
	}
	for _, broker := range k.Brokers {
		if host, port, err := net.SplitHostPort(broker); err != nil || host == "" || !isPort(port) {
			s.add(table+"brokers", `%q wants host and port, such as "localhost:9092"`, broker)
		}
	}
	if len(k.Topics) == 0 {
		s.add(table+"topics", `is required, such as ["user-behavior-topic"]`)
	}
	topicNames(table+"topics", k.Topics, s)
	required(s, table+"group", k.Group, `"forebay"`)
	within(s, table+"maxRatePerPartition", k.MaxRatePerPartition, 0, math.MaxInt64, "0 (no cap)", "")
	oneOf(s, table+"offsetOutOfRange", k.OffsetOutOfRange, "pause", "earliest", "latest")
	oneOf(s, table+"isolationLevel", k.IsolationLevel, "read_committed", "read_uncommitted")
	oneOf(s, table+"startFrom", k.StartFrom, "earliest", "latest")
	within(s, table+"metadataRefresh", k.MetadataRefresh, Duration(100*time.Millisecond), Duration(time.Hour), "100ms", "1h")
	within(s, table+"sessionTimeout", k.SessionTimeout, Duration(6*time.Second), Duration(30*time.Minute), "6s", "30m")
	if k.TLS != nil && (k.TLS.Cert == "") != (k.TLS.Key == "") {
		s.add(table+"tls", "cert and key go together")
	}
	if k.SASL != nil {
		oneOf(s, table+"sasl.mechanism", k.SASL.Mechanism, "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
		required(s, table+"sasl.user", k.SASL.User, `"forebay"`)
		required(s, table+"sasl.password", string(k.SASL.Password), `"${env:KAFKA_PASSWORD}"`)
	}
}

// maxBatches bounds the batches that retention may keep: each costs some
// hundred bytes of replicated state.
const maxBatches = 200_000

func validateBatch(c *Config, s *source) {
	b := &c.Batch
	within(s, "batch.interval", b.Interval, Duration(100*time.Millisecond), Duration(24*time.Hour), "100ms", "24h")
	within(s, "batch.maxBytes", b.MaxBytes, 1<<20, math.MaxInt64, "1MiB", "")
	within(s, "batch.maxRecords", b.MaxRecords, 1, math.MaxInt64, "1", "")
	if b.Interval >= Duration(100*time.Millisecond) && int64(c.WAL.Retention/b.Interval) > maxBatches {
		s.add("wal.retention", "keeps more than %d batches of %s: shorten it, or lengthen batch.interval", maxBatches, b.Interval)
	}
	within(s, "parked.maxBytes", c.Parked.MaxBytes, 0, math.MaxInt64, "0", "")
}
