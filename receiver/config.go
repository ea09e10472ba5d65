package receiver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"

	"forebay/internal/record"
)

// Values of Config.OffsetOutOfRange and Config.StartFrom.
const (
	// Pause keeps the partition out until an operator calls Skip.
	Pause = "pause"
	// Earliest goes on at the oldest record that Kafka still has.
	Earliest = "earliest"
	// Latest goes on at the end, past all that Kafka still has.
	Latest = "latest"
)

// Values of Config.IsolationLevel.
const (
	ReadCommitted   = "read_committed"
	ReadUncommitted = "read_uncommitted"
)

// SASL is how the receiver says who it is. An empty Mechanism means not at all.
type SASL struct {
	// Mechanism is "PLAIN", "SCRAM-SHA-256" or "SCRAM-SHA-512".
	Mechanism      string
	User, Password string
}

// Config says what to read and how. Zero values take the default named here.
type Config struct {
	// Brokers are addresses host:port to start from. Required.
	Brokers []string
	// Group is the gateway's consumer group. Required.
	Group string
	// Topics are read by exact name. One that does not exist is said in
	// Status and taken up when it appears. Required.
	Topics []string
	// InstanceID is the static member name, "<gateway>-lane-<k>": who joins
	// under it replaces who held it. "" joins as an ordinary member.
	InstanceID string
	// ClientID is what brokers log and count quotas by; default "forebay".
	ClientID string
	// Lane and Lanes choose the partitions; see the function Lane. Lanes
	// defaults to 1.
	Lane, Lanes uint32

	// IsolationLevel defaults to ReadCommitted.
	IsolationLevel string
	// OffsetOutOfRange is the policy for a partition whose next offset Kafka
	// does not have: Pause (default), Earliest or Latest. The gap is recorded
	// whatever it is. With Latest, records that Kafka still has are passed too.
	OffsetOutOfRange string
	// StartFrom is where a partition without a committed offset of the group
	// begins when the log is still empty: Earliest (default) or Latest. What is
	// first seen later begins at its oldest record, whatever this says; a
	// partition added to a topic that the log knows begins at 0.
	StartFrom string

	// BlockBytes is the encoded size at which a block is sealed; default 256 KiB.
	BlockBytes int
	// BlockInterval is the age at which a smaller one is; default 20 ms.
	BlockInterval time.Duration
	// Compression of blocks; the zero value is the codec's zero value.
	Compression record.Compression

	// MaxRate (records/s) and MaxBytesRate (bytes/s of keys, values and
	// headers) cap the gateway; a lane takes the share of its partitions.
	// MaxRatePerPartition (records/s) caps each partition. 0: no cap.
	MaxRate, MaxBytesRate, MaxRatePerPartition float64

	// MetadataRefresh is how often topics and end offsets are looked at;
	// default 1 s.
	MetadataRefresh time.Duration
	// MemoryBytes is the budget for what has been fetched and is not yet in
	// a block; default 64 MiB. Records larger than their share of it still
	// pass, a few per partition at a time.
	MemoryBytes int64

	// TLS turns encryption on when it is not nil.
	TLS  *tls.Config
	SASL SASL
	// KafkaVersion is the protocol to speak, lowered to what each broker
	// knows; default "2.8.0", the first with topic ids and enough for all.
	KafkaVersion string
	// SessionTimeout (30 s) and Heartbeat (3 s) are the group's; DialTimeout
	// (5 s) and RequestTimeout (30 s) the connections'.
	SessionTimeout, Heartbeat, DialTimeout, RequestTimeout time.Duration

	// CommitInterval is the pace of commits to Kafka; default 1 s.
	CommitInterval time.Duration
	// StopGrace bounds how long Run takes to end after its context; default 5 s.
	StopGrace time.Duration
	// FencedWait is how long a receiver that another one replaced waits before
	// it takes its place back, if its term still stands then. It must be longer
	// than a deposed leader needs to notice; default 5 s.
	FencedWait time.Duration
	// TruncationWait is over how long an offset must lie beyond the end before
	// that is believed; default 10 s. It is looked at three times.
	TruncationWait time.Duration

	// Dial opens connections to brokers; default: the operating system's. Whoever
	// gives it can close them all at any moment.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Logger defaults to none. Registerer may be nil.
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// withDefaults fills in what was left out.
func (c Config) withDefaults() Config {
	c.ClientID = or(c.ClientID, "forebay")
	c.Lanes = or(c.Lanes, 1)
	c.IsolationLevel = or(c.IsolationLevel, ReadCommitted)
	c.OffsetOutOfRange = or(c.OffsetOutOfRange, Pause)
	c.StartFrom = or(c.StartFrom, Earliest)
	c.BlockBytes = or(c.BlockBytes, 256<<10)
	c.BlockInterval = or(c.BlockInterval, 20*time.Millisecond)
	c.MetadataRefresh = or(c.MetadataRefresh, time.Second)
	c.MemoryBytes = or(c.MemoryBytes, 64<<20)
	c.KafkaVersion = or(c.KafkaVersion, "2.8.0")
	c.SessionTimeout = or(c.SessionTimeout, 30*time.Second)
	c.Heartbeat = or(c.Heartbeat, 3*time.Second)
	c.DialTimeout = or(c.DialTimeout, 5*time.Second)
	c.RequestTimeout = or(c.RequestTimeout, 30*time.Second)
	c.CommitInterval = or(c.CommitInterval, time.Second)
	c.StopGrace = or(c.StopGrace, 5*time.Second)
	c.FencedWait = or(c.FencedWait, 5*time.Second)
	c.TruncationWait = or(c.TruncationWait, 10*time.Second)
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// validate reports all that is wrong, joined.
func (c Config) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(len(c.Brokers) > 0, "no brokers given")
	check(c.Group != "", "no consumer group given")
	check(len(c.Topics) > 0, "no topics given")
	check(c.Lane < c.Lanes, "lane %d of %d lanes", c.Lane, c.Lanes)
	check(c.IsolationLevel == ReadCommitted || c.IsolationLevel == ReadUncommitted, "isolation level %q: want %s or %s", c.IsolationLevel, ReadCommitted, ReadUncommitted)
	check(c.OffsetOutOfRange == Pause || c.OffsetOutOfRange == Earliest || c.OffsetOutOfRange == Latest, "offset out of range policy %q: want pause, earliest or latest", c.OffsetOutOfRange)
	check(c.StartFrom == Earliest || c.StartFrom == Latest, "start from %q: want earliest or latest", c.StartFrom)
	check(c.MaxRate >= 0 && c.MaxBytesRate >= 0 && c.MaxRatePerPartition >= 0, "rates cannot be negative")
	check(c.BlockBytes > 0 && c.BlockInterval > 0 && c.MemoryBytes > 0, "sizes and intervals cannot be negative")
	version, err := sarama.ParseKafkaVersion(c.KafkaVersion)
	check(err == nil && version.IsAtLeast(sarama.V0_11_0_0), "Kafka version %q: want 0.11.0.0 or later", c.KafkaVersion)
	switch c.SASL.Mechanism {
	case "":
	case sarama.SASLTypePlaintext, sarama.SASLTypeSCRAMSHA256, sarama.SASLTypeSCRAMSHA512:
		check(c.SASL.User != "" && c.SASL.Password != "", "SASL needs a user and a password")
	default:
		check(false, "SASL mechanism %q: want PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", c.SASL.Mechanism)
	}
	return errors.Join(errs...)
}

const (
	// channelBuffer is how many records wait between sarama and a claim.
	channelBuffer = 64
	// maxFetch bounds one fetch whatever the budget.
	maxFetch = 50 << 20
)

// sarama gives the client's configuration for a lane of so many partitions.
// Every line that differs from sarama's default has its reason in DESIGN.md.
func (c Config) sarama(partitions int, dialer *dialer, strategy sarama.BalanceStrategy) *sarama.Config {
	s := sarama.NewConfig()
	s.ClientID = c.ClientID
	s.Version, _ = sarama.ParseKafkaVersion(c.KafkaVersion) // validate has seen to it
	s.ChannelBufferSize = channelBuffer
	s.Net.DialTimeout = c.DialTimeout
	s.Net.ReadTimeout, s.Net.WriteTimeout = c.RequestTimeout, c.RequestTimeout
	s.Net.Proxy.Enable, s.Net.Proxy.Dialer = true, dialer
	if c.TLS != nil {
		s.Net.TLS.Enable, s.Net.TLS.Config = true, c.TLS
	}
	if c.SASL.Mechanism != "" {
		s.Net.SASL.Enable = true
		s.Net.SASL.Mechanism = sarama.SASLMechanism(c.SASL.Mechanism)
		s.Net.SASL.User, s.Net.SASL.Password = c.SASL.User, c.SASL.Password
		if c.SASL.Mechanism != sarama.SASLTypePlaintext {
			s.Net.SASL.SCRAMClientGeneratorFunc = newSCRAM(c.SASL.Mechanism)
		}
	}
	s.Metadata.Full = false
	s.Metadata.AllowAutoTopicCreation = false
	s.Metadata.RefreshFrequency = time.Minute
	s.Metadata.Retry.Backoff = 100 * time.Millisecond

	s.Consumer.Return.Errors = true
	s.Consumer.IsolationLevel = sarama.ReadCommitted
	if c.IsolationLevel == ReadUncommitted {
		s.Consumer.IsolationLevel = sarama.ReadUncommitted
	}
	s.Consumer.Offsets.AutoCommit.Enable = false
	s.Consumer.Offsets.Initial = sarama.OffsetOldest
	s.Consumer.Group.ResetInvalidOffsets = false
	s.Consumer.Retry.Backoff = 250 * time.Millisecond
	s.Consumer.MaxWaitTime = 100 * time.Millisecond
	s.Consumer.Fetch.Max = 0
	s.Consumer.Fetch.MaxBytes = int32(min(maxFetch, max(1<<20, c.MemoryBytes/4)))
	s.Consumer.Fetch.Default = int32(min(1<<20, max(64<<10, c.MemoryBytes/4/int64(max(1, partitions)))))

	s.Consumer.Group.InstanceId = c.InstanceID
	s.Consumer.Group.Session.Timeout = c.SessionTimeout
	s.Consumer.Group.Heartbeat.Interval = c.Heartbeat
	s.Consumer.Group.Rebalance.Retry.Backoff = 500 * time.Millisecond
	if strategy != nil {
		s.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategy}
	}
	return s
}
