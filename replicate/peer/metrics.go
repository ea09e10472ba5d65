package peer

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one hub. They are always counted, and exported only if there is a registerer.
// Labels are bounded: nodes of the address book, and words of this package.
type metrics struct {
	reg        prometheus.Registerer
	collectors []prometheus.Collector

	handshakes *prometheus.CounterVec
	refusals   *prometheus.CounterVec
	calls      *prometheus.CounterVec
	rpcs       *prometheus.CounterVec
	bytes      *prometheus.CounterVec
	validUntil prometheus.Gauge
	peers      *peerCollector
	flows      map[purpose]*flow
}

// flow counts the bytes of streams of one purpose.
type flow struct{ sent, received prometheus.Counter }

func newMetrics(reg prometheus.Registerer, h *Hub) (*metrics, error) {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &metrics{
		reg:        reg,
		handshakes: vec("forebay_peer_handshakes_total", "Handshakes with peers, by who began and how they ended.", "direction", "result"),
		refusals:   vec("forebay_peer_refusals_total", "Handshakes that one of the two sides refused, by who began and why.", "direction", "reason"),
		calls:      vec("forebay_peer_calls_total", "Control calls, by who asked, kind and result.", "direction", "kind", "result"),
		rpcs:       vec("forebay_peer_rpcs_refused_total", "Raft RPCs refused because of the data directory at the other end.", "lane", "direction", "rpc"),
		bytes:      vec("forebay_peer_bytes_total", "Bytes exchanged with peers after the handshake.", "direction", "purpose"),
		validUntil: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "forebay_peer_certificate_valid_until_timestamp_seconds", Help: "End of this node's certificate in Unix time, 0 without TLS.",
		}),
		peers: &peerCollector{of: h},
		flows: map[purpose]*flow{},
	}
	for _, p := range []purpose{forRaft, forControl} {
		m.flows[p] = &flow{sent: m.bytes.WithLabelValues("out", p.String()), received: m.bytes.WithLabelValues("in", p.String())}
	}
	m.collectors = []prometheus.Collector{m.handshakes, m.refusals, m.calls, m.rpcs, m.bytes, m.validUntil, m.peers}
	if reg == nil {
		return m, nil
	}
	for i, c := range m.collectors {
		if err := reg.Register(c); err != nil {
			m.collectors = m.collectors[:i]
			m.unregister()
			return nil, errors.Join(errors.New("registering the metrics of peers"), err)
		}
	}
	return m, nil
}

func (m *metrics) unregister() {
	if m.reg == nil {
		return
	}
	for _, c := range m.collectors {
		m.reg.Unregister(c)
	}
}

func (m *metrics) certificate(notAfter time.Time) { m.validUntil.Set(float64(notAfter.Unix())) }

func (m *metrics) refused(direction string, r *Refusal) {
	m.handshakes.WithLabelValues(direction, "refused").Inc()
	m.refusals.WithLabelValues(direction, r.Code.String()).Inc()
}

func (m *metrics) call(direction, kind string, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.calls.WithLabelValues(direction, kind, result).Inc()
}

func (m *metrics) flow(p purpose) *flow { return m.flows[p] }

// peerCollector shows the address book as it is when it is asked.
type peerCollector struct{ of *Hub }

var (
	descReachable = prometheus.NewDesc("forebay_peer_reachable", "1 when the last attempt to speak to the peer succeeded.", []string{"peer"}, nil)
	descSkew      = prometheus.NewDesc("forebay_peer_clock_skew_seconds", "How far the peer's clock is ahead of this node's.", []string{"peer"}, nil)
	descStreams   = prometheus.NewDesc("forebay_peer_streams", "Open streams, by who began and purpose.", []string{"direction", "purpose"}, nil)
)

// Describe implements prometheus.Collector.
func (c *peerCollector) Describe(out chan<- *prometheus.Desc) {
	out <- descReachable
	out <- descSkew
	out <- descStreams
}

// Collect implements prometheus.Collector.
func (c *peerCollector) Collect(out chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
	}
	for _, s := range c.of.book.statuses() {
		reachable := 0.0
		if s.Reachable {
			reachable = 1
		}
		gauge(descReachable, reachable, s.Node)
		gauge(descSkew, s.Skew.Seconds(), s.Node)
	}
	for _, p := range []purpose{forRaft, forControl} {
		gauge(descStreams, float64(c.of.streams.total(p, true)), "in", p.String())
		gauge(descStreams, float64(c.of.streams.total(p, false)), "out", p.String())
	}
}
