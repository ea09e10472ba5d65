package batcher

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are those of one lane. Counters and histograms live on over the terms;
// gauges of a sink go with the term, so that a node that does not lead shows no stale cursor.
type metrics struct {
	cuts        *prometheus.CounterVec // lane, cause
	cutFailures prometheus.Counter
	lastCut     prometheus.Gauge

	batches, records, bytes  *prometheus.CounterVec // lane, sink
	attempts, failures, lost *prometheus.CounterVec
	refused                  *prometheus.CounterVec // lane, sink, policy
	state                    *prometheus.GaugeVec   // lane, sink, state
	cursor, lag, lastSuccess *prometheus.GaugeVec
	delivery                 *prometheus.HistogramVec
	scheduling, processing   *prometheus.HistogramVec
	total                    *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer, lane string) (*metrics, error) {
	r := &registrar{reg: reg}
	cutFailures := r.counter("forebay_batch_cut_failures_total", "Cuts that the log did not take.", "lane")
	lastCut := r.gauge("forebay_batch_last_cut", "Sequence number of the batch cut last in this process.", "lane")
	m := &metrics{
		cuts:        r.counter("forebay_batch_cuts_total", "Batches cut, by what made them due.", "lane", "cause"),
		cutFailures: cutFailures.WithLabelValues(lane),
		lastCut:     lastCut.WithLabelValues(lane),

		batches:     r.counter("forebay_sink_delivered_batches_total", "Batches delivered.", "lane", "sink"),
		records:     r.counter("forebay_sink_delivered_records_total", "Records delivered, repeats not counted.", "lane", "sink"),
		bytes:       r.counter("forebay_sink_delivered_bytes_total", "Bytes of keys, values and headers delivered.", "lane", "sink"),
		attempts:    r.counter("forebay_sink_attempts_total", "Attempts to open the sink or to deliver a batch.", "lane", "sink"),
		failures:    r.counter("forebay_sink_failures_total", "Attempts that failed.", "lane", "sink"),
		lost:        r.counter("forebay_sink_lost_batches_total", "Batches that an at-most-once sink did not take.", "lane", "sink"),
		refused:     r.counter("forebay_sink_refused_records_total", "Records refused by the sink, by policy; a blocked sink counts them at each attempt.", "lane", "sink", "policy"),
		state:       r.gauge("forebay_sink_state", "1 for the state that the sink is in.", "lane", "sink", "state"),
		cursor:      r.gauge("forebay_sink_cursor", "Sequence number of the batch that the sink needs next.", "lane", "sink"),
		lag:         r.gauge("forebay_sink_lag_batches", "Batches cut that the sink does not have.", "lane", "sink"),
		lastSuccess: r.gauge("forebay_sink_last_success_timestamp_seconds", "Unix time of the last batch delivered.", "lane", "sink"),
		delivery:    r.histogram("forebay_sink_delivery_seconds", "Duration of an attempt to deliver a batch."),
		scheduling:  r.histogram("forebay_batch_scheduling_delay_seconds", "From the cut to the first attempt."),
		processing:  r.histogram("forebay_batch_processing_seconds", "From the first attempt to the done."),
		total:       r.histogram("forebay_batch_total_delay_seconds", "From the cut to the done."),
	}
	return m, errors.Join(r.errs...)
}

// sinkMetrics are those of one sink.
type sinkMetrics struct {
	all                                     *metrics
	lane, sink                              string
	batches, records, bytes                 prometheus.Counter
	attempts, failures, lost                prometheus.Counter
	delivery, scheduling, processing, total prometheus.Observer
}

func (m *metrics) forSink(lane, sink string) *sinkMetrics {
	return &sinkMetrics{
		all: m, lane: lane, sink: sink,
		batches: m.batches.WithLabelValues(lane, sink), records: m.records.WithLabelValues(lane, sink),
		bytes: m.bytes.WithLabelValues(lane, sink), attempts: m.attempts.WithLabelValues(lane, sink),
		failures: m.failures.WithLabelValues(lane, sink), lost: m.lost.WithLabelValues(lane, sink),
		delivery: m.delivery.WithLabelValues(lane, sink), scheduling: m.scheduling.WithLabelValues(lane, sink),
		processing: m.processing.WithLabelValues(lane, sink), total: m.total.WithLabelValues(lane, sink),
	}
}

func (s *sinkMetrics) refused(p Policy, n int) {
	s.all.refused.WithLabelValues(s.lane, s.sink, string(p)).Add(float64(n))
}

// inState shows one state and takes the one before away.
func (s *sinkMetrics) inState(before, now State) {
	if before != now {
		s.all.state.DeleteLabelValues(s.lane, s.sink, string(before))
	}
	s.all.state.WithLabelValues(s.lane, s.sink, string(now)).Set(1)
}

func (s *sinkMetrics) at(cursor, lag uint64) {
	s.all.cursor.WithLabelValues(s.lane, s.sink).Set(float64(cursor))
	s.all.lag.WithLabelValues(s.lane, s.sink).Set(float64(lag))
}

func (s *sinkMetrics) succeeded(unixSeconds float64) {
	s.all.lastSuccess.WithLabelValues(s.lane, s.sink).Set(unixSeconds)
}

// end takes away what is only true while this node leads the lane.
func (s *sinkMetrics) end() {
	s.all.state.DeletePartialMatch(prometheus.Labels{"lane": s.lane, "sink": s.sink})
	s.all.cursor.DeleteLabelValues(s.lane, s.sink)
	s.all.lag.DeleteLabelValues(s.lane, s.sink)
}

// registrar registers metrics, or finds those of an earlier term or another lane.
type registrar struct {
	reg  prometheus.Registerer
	errs []error
}

func (r *registrar) counter(name, help string, labels ...string) *prometheus.CounterVec {
	return register(r, prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels))
}

func (r *registrar) gauge(name, help string, labels ...string) *prometheus.GaugeVec {
	return register(r, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels))
}

// histogram of seconds, from 1 ms to an hour, by lane and sink.
func (r *registrar) histogram(name, help string) *prometheus.HistogramVec {
	buckets := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600}
	opts := prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}
	return register(r, prometheus.NewHistogramVec(opts, []string{"lane", "sink"}))
}

func register[C prometheus.Collector](r *registrar, c C) C {
	if r.reg == nil {
		return c
	}
	err := r.reg.Register(c)
	var twice prometheus.AlreadyRegisteredError
	if errors.As(err, &twice) {
		if existing, ok := twice.ExistingCollector.(C); ok {
			return existing
		}
	}
	if err != nil {
		r.errs = append(r.errs, err)
	}
	return c
}
