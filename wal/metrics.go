package wal

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one log. They are always counted and are exported only if there is
// a registerer.
type metrics struct {
	reg        prometheus.Registerer
	collectors []prometheus.Collector

	appendSeconds prometheus.Histogram
	syncSeconds   prometheus.Histogram
	appended      prometheus.Counter
	appendedBytes prometheus.Counter
	coldReads     prometheus.Counter
	tornTails     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, lane string, l *Log) (*metrics, error) {
	// From 50 µs to 6.5 s, and then all the rest: a hung disk.
	buckets := prometheus.ExponentialBuckets(50e-6, 2, 18)
	m := &metrics{
		appendSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "forebay_wal_append_seconds", Help: "Time to write and sync one group of entries.", Buckets: buckets,
		}),
		syncSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "forebay_wal_sync_seconds", Help: "Time of the sync of one group of entries.", Buckets: buckets,
		}),
		appended: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "forebay_wal_appended_entries_total", Help: "Entries written and synced.",
		}),
		appendedBytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "forebay_wal_appended_bytes_total", Help: "Bytes of entries written and synced, frames included.",
		}),
		coldReads: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "forebay_wal_cold_reads_total", Help: "Entries read from disk, and not from memory.",
		}),
		tornTails: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "forebay_wal_torn_tails_total", Help: "Torn tails cut off at open; they were never acknowledged.",
		}),
	}
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	m.collectors = []prometheus.Collector{
		m.appendSeconds, m.syncSeconds, m.appended, m.appendedBytes, m.coldReads, m.tornTails,
		gauge("forebay_wal_bytes", "Bytes of the segments on disk.", func() float64 { return float64(l.Bytes()) }),
		gauge("forebay_wal_segments", "Segments on disk.", func() float64 { return float64(l.Stats().Segments) }),
		gauge("forebay_wal_first_index", "Oldest entry, 0 if there is none.", func() float64 { return float64(l.Stats().First) }),
		gauge("forebay_wal_last_index", "Newest entry, 0 if there is none.", func() float64 { return float64(l.Stats().Last) }),
		gauge("forebay_wal_floor_index", "First entry that is still needed.", func() float64 { return float64(l.Stats().Floor) }),
		gauge("forebay_wal_failed", "1 after a failed write or sync, or damage.", func() float64 {
			if l.Err() != nil {
				return 1
			}
			return 0
		}),
	}
	if reg == nil {
		return m, nil
	}
	m.reg = prometheus.WrapRegistererWith(prometheus.Labels{"lane": lane}, reg)
	for i, c := range m.collectors {
		if err := m.reg.Register(c); err != nil {
			m.collectors = m.collectors[:i]
			m.unregister()
			return nil, fmt.Errorf("registering metrics of lane %q: %w", lane, err)
		}
	}
	return m, nil
}

// unregister lets a log of the same lane be opened again.
func (m *metrics) unregister() {
	if m == nil || m.reg == nil {
		return
	}
	for _, c := range m.collectors {
		m.reg.Unregister(c)
	}
}
