package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"forebay/batcher"
	"forebay/internal/config"
	"forebay/internal/record"
	"forebay/receiver"
	"forebay/replicate"
)

// lead is one term: what receives, cuts and delivers while this node leads.
type lead struct {
	term     *replicate.Term
	receiver *receiver.Receiver
	batcher  *batcher.Batcher
	// joined tells that the receiver has been seen in its group.
	joined atomic.Bool
}

// leadUntil runs the lane's terms until ctx ends, gracefully, or the node fails.
// All of them have ended when it returns, unless the error is abandoned.
func (n *Node) leadUntil(ctx context.Context, l *replicate.Lane) error {
	// Terms outlive ctx: a graceful stop settles and delivers within them.
	terms, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err := l.Lead(terms, func(termCtx context.Context, t *replicate.Term) {
			if err := n.runTerm(ctx, termCtx, l, t); err != nil && termCtx.Err() == nil {
				n.fail(err)
			}
			if ctx.Err() != nil {
				end()
			}
		})
		if err != nil && terms.Err() == nil {
			n.fail(err)
		}
	}()
	var failed error
	select {
	case failed = <-n.fatal:
	case <-ctx.Done():
		failed = n.stopLeading(ended, end)
	}
	end()
	grace := time.NewTimer(n.machine.endGrace)
	defer grace.Stop()
	select {
	case <-ended:
		return failed
	case <-grace.C:
	}
	if failed == nil {
		failed = fmt.Errorf("not all has ended within node.stopTimeout (%s): %s; what is not delivered stays in the log",
			time.Duration(n.config.Node.StopTimeout), n.hanging())
	}
	return abandoned{failed}
}

// stopLeading lets the term at hand end by itself, for as long as a graceful
// stop may take. It returns early with the reason when the node fails meanwhile.
func (n *Node) stopLeading(ended <-chan struct{}, end context.CancelFunc) error {
	limit := time.Duration(n.config.Node.StopTimeout)
	n.logger.Info("stopping", "within", limit)
	n.mu.Lock()
	n.stopping = true
	leading := n.lead != nil
	n.mu.Unlock()
	// A term that is only being built ends at once; one that begins now does so too, in runTerm.
	if !leading {
		end()
	}
	patience := time.NewTimer(limit)
	defer patience.Stop()
	select {
	case <-ended:
		select { // perhaps because of a failure
		case err := <-n.fatal:
			return err
		default:
		}
	case err := <-n.fatal:
		return err
	case <-patience.C:
	}
	return nil
}

// hanging says what does not end.
func (n *Node) hanging() string {
	var busy []string
	if _, lead := n.view(); lead != nil {
		for _, s := range lead.batcher.Status() {
			if s.State == batcher.StateDelivering {
				busy = append(busy, s.Name)
			}
		}
	}
	if len(busy) == 0 {
		return "the log or the receiver does not return"
	}
	return "no answer from sink " + strings.Join(busy, ", ")
}

// runTerm receives, cuts and delivers until the term ends, or stop does: then
// the receiver settles what it has appended, and what is being delivered is finished.
func (n *Node) runTerm(stop, term context.Context, l *replicate.Lane, t *replicate.Term) error {
	if stop.Err() != nil {
		return nil
	}
	current, err := n.newLead(term, l, t)
	switch {
	case err != nil && over(term, err):
		return nil
	case err != nil:
		return err
	}
	n.setLead(current)
	defer n.setLead(nil)
	intake, endIntake := context.WithCancel(term)
	defer endIntake()
	work, endWork := context.WithCancel(term)
	defer endWork()
	received, delivered := make(chan error, 1), make(chan error, 1)
	go func() { received <- current.receiver.Run(intake) }()
	go func() { delivered <- current.batcher.Run(work) }()

	var failure error
	select {
	case <-stop.Done():
		// Both at once: settling what was appended needs no delivery, nor the other way round.
		endIntake()
		n.drain(term, current.batcher)
	case <-term.Done():
	case err := <-received:
		failure = byItself(term, "receiving", err)
		received <- err
	case err := <-delivered:
		failure = byItself(term, "delivering", err)
		delivered <- err
	}
	endIntake()
	endWork()
	_ = <-received
	_ = <-delivered
	return failure
}

// drain waits for the deliveries under way, for two thirds of a stop: the rest
// is for those that have to be broken off.
func (n *Node) drain(term context.Context, b *batcher.Batcher) {
	ctx, cancel := context.WithTimeout(term, time.Duration(n.config.Node.StopTimeout)*2/3)
	defer cancel()
	if err := b.Drain(ctx); errors.Is(err, context.DeadlineExceeded) {
		n.logger.Warn("stopped before all that was under way was delivered; it stays in the log", "error", err)
	}
}

// leadLostGrace is how long a term may last once a part of it was told that it is over.
const leadLostGrace = 5 * time.Second

// byItself is the failure of a part that ended although nobody told it to: the
// term must not go on without it.
func byItself(term context.Context, doing string, err error) error {
	switch {
	case over(term, err):
		return nil
	case err == nil:
		return fmt.Errorf("%s ended although nobody told it to: please report this", doing)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// over tells whether a term has ended, and err with it. One that says so is waited
// with: the term hears of it too, but perhaps a moment later.
func over(term context.Context, err error) bool {
	if errors.Is(err, record.ErrLeadLost) {
		grace := time.NewTimer(leadLostGrace)
		defer grace.Stop()
		select {
		case <-term.Done():
		case <-grace.C:
		}
	}
	return term.Err() != nil
}

func (n *Node) setLead(l *lead) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lead = l
}

// newLead builds a term's receiver and batcher, and gives new sinks their cursors.
func (n *Node) newLead(ctx context.Context, l *replicate.Lane, t *replicate.Term) (*lead, error) {
	identity, _ := l.Identity()
	destinations := &destinations{node: n, lane: l, term: t, logID: identity.LogID.String()}
	n.at("the destinations of the sinks are being looked at")
	defer n.at("")
	configured, err := destinations.claim(ctx)
	if err != nil {
		return nil, err
	}
	c := n.config
	b, err := batcher.New(batcher.Config{
		Lane: identity.Lane, Gateway: identity.Gateway, LogID: identity.LogID.String(), Term: t.Number(),
		Interval: time.Duration(c.Batch.Interval), MaxBytes: int64(c.Batch.MaxBytes), MaxRecords: c.Batch.MaxRecords,
		Sinks: configured, Logger: n.parts, Registerer: n.metrics,
	}, t)
	if err != nil {
		return nil, fmt.Errorf("building the batcher: %w", err)
	}
	settings, err := n.receiverConfig(identity.Lane, identity.Lanes)
	if err != nil {
		return nil, err
	}
	r, err := receiver.New(settings, t)
	if err != nil {
		return nil, fmt.Errorf("building the receiver: %w", err)
	}
	return &lead{term: t, receiver: r, batcher: b}, nil
}

func (n *Node) receiverConfig(lane, lanes uint32) (receiver.Config, error) {
	c, k := &n.config.Receiver, &n.config.Receiver.Kafka
	compression, err := record.ParseCompression(n.config.WAL.Compression)
	if err != nil {
		return receiver.Config{}, err
	}
	encryption, err := clientTLS(k.TLS)
	if err != nil {
		return receiver.Config{}, fmt.Errorf("receiver.kafka.tls: %w", err)
	}
	settings := receiver.Config{
		Brokers: k.Brokers, Group: k.Group, Topics: k.Topics, ClientID: k.ClientID,
		InstanceID: fmt.Sprintf("%s-lane-%d", n.config.Node.Gateway, lane), Lane: lane, Lanes: lanes,
		IsolationLevel: k.IsolationLevel, OffsetOutOfRange: k.OffsetOutOfRange, StartFrom: k.StartFrom,
		BlockBytes: int(c.BlockBytes), BlockInterval: time.Duration(c.BlockInterval), Compression: compression,
		MaxRate: float64(c.MaxRate), MaxBytesRate: float64(c.MaxBytesRate), MaxRatePerPartition: float64(k.MaxRatePerPartition),
		MetadataRefresh: time.Duration(k.MetadataRefresh), SessionTimeout: time.Duration(k.SessionTimeout),
		MemoryBytes: int64(n.config.Node.Memory) / 4, TLS: encryption,
		StopGrace: time.Duration(n.config.Node.StopTimeout) / 3, Dial: n.wires.dial,
		Logger: n.parts, Registerer: n.metrics,
	}
	if k.SASL != nil {
		settings.SASL = receiver.SASL{Mechanism: k.SASL.Mechanism, User: k.SASL.User, Password: string(k.SASL.Password)}
	}
	return settings, nil
}

func clientTLS(c *config.ClientTLS) (*tls.Config, error) {
	if c == nil {
		return nil, nil
	}
	settings := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, fmt.Errorf("reading the authorities: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate", c.CA)
		}
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("reading the certificate %s and its key %s: %w", c.Cert, c.Key, err)
		}
		settings.Certificates = []tls.Certificate{pair}
	}
	return settings, nil
}
