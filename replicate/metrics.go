package replicate

import (
	"errors"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// Reasons for which intake is held, as Held reports them.
const (
	HeldMaxBytes   = "wal.maxBytes"
	HeldMinFree    = "wal.minFree"
	HeldMaxBatches = "wal.maxBatches"
)

var heldReasons = [...]string{HeldMaxBytes, HeldMinFree, HeldMaxBatches}

// metrics are the numbers of one lane.
type metrics struct {
	registerer prometheus.Registerer
	registered []prometheus.Collector

	appends   prometheus.Histogram
	inFlight  prometheus.Gauge
	refused   prometheus.Counter
	applied   prometheus.Gauge
	floor     prometheus.Gauge
	snapshots *prometheus.CounterVec
	held      *prometheus.GaugeVec
	leading   prometheus.Gauge
	copied    prometheus.Counter
}

// newMetrics declares the metrics and registers them; reg may be nil.
func newMetrics(reg prometheus.Registerer, lane uint32, store Store) (*metrics, error) {
	labels := prometheus.Labels{"lane": strconv.FormatUint(uint64(lane), 10)}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels})
	}
	read := func(name, help string, fn func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, fn)
	}
	m := &metrics{
		registerer: reg,
		appends: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "forebay_log_append_seconds", Help: "From the proposal of a block to its outcome.", ConstLabels: labels,
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16),
		}),
		inFlight: gauge("forebay_log_in_flight_bytes", "Blocks proposed and not yet settled."),
		refused:  counter("forebay_log_refused_entries_total", "Entries that the state machine refused."),
		applied:  gauge("forebay_log_applied_index", "Last entry applied to the state."),
		floor:    gauge("forebay_log_floor_index", "First entry that anything still needs."),
		snapshots: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "forebay_log_snapshots_total", Help: "Snapshots of the state taken, by result.", ConstLabels: labels,
		}, []string{"result"}),
		held: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "forebay_intake_held", Help: "1 while intake is held for want of room, by reason.", ConstLabels: labels,
		}, []string{"reason"}),
		leading: gauge("forebay_lane_leading", "1 while this node leads the lane."),
		copied:  counter("forebay_log_parked_copied_bytes_total", "Bytes of parked records appended again."),
	}
	m.snapshots.WithLabelValues("ok")
	m.snapshots.WithLabelValues("error")
	m.setHeld("")
	all := []prometheus.Collector{
		m.appends, m.inFlight, m.refused, m.applied, m.floor, m.snapshots, m.held, m.leading, m.copied,
		read("forebay_log_bytes", "Size of the log on disk.", func() float64 { return float64(store.Bytes()) }),
		read("forebay_log_first_index", "First entry in the log.", func() float64 { return index(store.FirstIndex) }),
		read("forebay_log_last_index", "Last entry in the log.", func() float64 { return index(store.LastIndex) }),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			m.unregister()
			return nil, errors.Join(errors.New("registering the lane's metrics"), err)
		}
		m.registered = append(m.registered, c)
	}
	return m, nil
}

func index(fn func() (uint64, error)) float64 {
	i, err := fn()
	if err != nil {
		return 0
	}
	return float64(i)
}

// setHeld shows the reason for which intake is held, "" for none.
func (m *metrics) setHeld(reason string) {
	for _, r := range heldReasons {
		v := 0.0
		if r == reason {
			v = 1
		}
		m.held.WithLabelValues(r).Set(v)
	}
}

// unregister takes the metrics away again, so that a lane can be reopened.
func (m *metrics) unregister() {
	for _, c := range m.registered {
		m.registerer.Unregister(c)
	}
}
