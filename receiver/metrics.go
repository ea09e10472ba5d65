package receiver

import (
	"errors"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one lane's receiver. A receiver of a later term goes on with the
// collectors that the one before registered.
type metrics struct {
	records, bytes, blocks  prometheus.Counter
	sessions, commits       prometheus.Counter
	commitFailures, refused prometheus.Counter
	held                    prometheus.Counter
	limit                   prometheus.Gauge
	joined, blocked         prometheus.Gauge
	unkeepable              prometheus.Counter
	lag                     *prometheus.GaugeVec
	gaps, skipped           *prometheus.CounterVec
	errors                  prometheus.Counter
	topicChanges            prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, lane uint32) (*metrics, error) {
	labels := prometheus.Labels{"lane": strconv.FormatUint(uint64(lane), 10)}
	var errs []error
	counter := func(name, help string) prometheus.Counter {
		return registered(reg, &errs, prometheus.NewCounter(prometheus.CounterOpts{Name: "forebay_receiver_" + name, Help: help, ConstLabels: labels}))
	}
	gauge := func(name, help string) prometheus.Gauge {
		return registered(reg, &errs, prometheus.NewGauge(prometheus.GaugeOpts{Name: "forebay_receiver_" + name, Help: help, ConstLabels: labels}))
	}
	counters := func(name, help string, by ...string) *prometheus.CounterVec {
		return registered(reg, &errs, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "forebay_receiver_" + name, Help: help, ConstLabels: labels}, by))
	}
	m := &metrics{
		records:        counter("records_total", "Records taken from Kafka into blocks."),
		bytes:          counter("bytes_total", "Bytes of keys, values and headers taken from Kafka into blocks."),
		blocks:         counter("blocks_total", "Blocks that the log has taken."),
		refused:        counter("blocks_refused_total", "Blocks that the log has refused, whose partitions were taken up again."),
		sessions:       counter("sessions_total", "Sessions of the consumer group that began: one more at every rebalance."),
		commits:        counter("commits_total", "Commits of offsets to Kafka that were tried."),
		commitFailures: counter("commit_failures_total", "Errors that Kafka answered to commits of offsets."),
		held:           counter("held_seconds_total", "Time during which the log held the intake."),
		errors:         counter("kafka_errors_total", "Errors that the Kafka consumer reported."),
		topicChanges:   counter("topic_changes_total", "Topics found deleted and made again."),
		limit:          gauge("rate_limit_records_per_second", "This lane's share of the cap on records; 0: none."),
		joined:         gauge("joined", "1 while the lane is a member of the consumer group."),
		blocked:        gauge("blocked_partitions", "Partitions that wait before a record which the log cannot keep: see status and gaps skip."),
		unkeepable:     counter("unkeepable_records_total", "Records found that the log cannot keep: too large, or with too many headers."),
		gaps:           counters("gaps_total", "Gaps recorded in the log.", "reason"),
		skipped:        counters("gap_records_total", "Offsets in recorded gaps.", "reason"),
		lag: registered(reg, &errs, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "forebay_receiver_lag_records", Help: "Offsets between the log's next and Kafka's end.", ConstLabels: labels,
		}, []string{"topic", "partition"})),
	}
	return m, errors.Join(errs...)
}

// registered registers a collector, or gives the one that is there already.
func registered[C prometheus.Collector](reg prometheus.Registerer, errs *[]error, c C) C {
	if reg == nil {
		return c
	}
	var already prometheus.AlreadyRegisteredError
	switch err := reg.Register(c); {
	case err == nil:
	case errors.As(err, &already):
		if old, ok := already.ExistingCollector.(C); ok {
			return old
		}
		*errs = append(*errs, err)
	default:
		*errs = append(*errs, err)
	}
	return c
}
