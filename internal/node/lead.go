package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"forebay/batcher"
	"forebay/internal/config"
	"forebay/internal/record"
	"forebay/receiver"
	"forebay/replicate"
	"forebay/sinks"
)

// lead is one term: what receives, cuts and delivers while this node leads.
type lead struct {
	term     *replicate.Term
	receiver *receiver.Receiver
	batcher  *batcher.Batcher
}

// leadUntil runs the lane's terms until ctx ends, gracefully, or the node fails.
func (n *Node) leadUntil(ctx context.Context, l *replicate.Lane) error {
	// Terms outlive ctx: a graceful stop settles and delivers within them.
	terms, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var running sync.WaitGroup
	running.Go(func() {
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
	})
	var failed error
	select {
	case <-ctx.Done():
		n.logger.Info("stopping", "within", time.Duration(n.config.Node.StopTimeout).String())
		stopped := make(chan struct{})
		go func() { running.Wait(); close(stopped) }()
		n.mu.Lock()
		leading := n.lead != nil
		n.mu.Unlock()
		if !leading {
			end()
		}
		select {
		case <-stopped:
		case failed = <-n.fatal:
		case <-time.After(time.Duration(n.config.Node.StopTimeout)):
			n.logger.Warn("the graceful stop took too long; what was not delivered stays in the log")
		}
	case failed = <-n.fatal:
	}
	end()
	running.Wait()
	return failed
}

// runTerm receives, cuts and delivers until the term ends, or stop does: then
// the receiver settles what it has appended, and what is being delivered is finished.
func (n *Node) runTerm(stop, term context.Context, l *replicate.Lane, t *replicate.Term) error {
	if stop.Err() != nil {
		return nil
	}
	current, err := n.newLead(term, l, t)
	if err != nil {
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
		// Intake first: what it has appended is settled and committed to Kafka.
		endIntake()
		<-received
		drain, cancel := context.WithTimeout(term, time.Duration(n.config.Node.StopTimeout)/2)
		defer cancel()
		if err := current.batcher.Drain(drain); err != nil {
			n.logger.Warn("stopped before all that was under way was delivered; it stays in the log", "error", err)
		}
		endWork()
		<-delivered
		return nil
	case <-term.Done():
	case err := <-received:
		failure = unlessOver(term, "receiving", err)
		received <- err
	case err := <-delivered:
		failure = unlessOver(term, "delivering", err)
		delivered <- err
	}
	endIntake()
	endWork()
	<-received
	<-delivered
	return failure
}

// unlessOver gives the error of a part that ended by itself while its term goes on.
func unlessOver(term context.Context, doing string, err error) error {
	if err == nil || term.Err() != nil || errors.Is(err, record.ErrLeadLost) {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
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
	configured, err := destinations.claim(ctx)
	if err != nil {
		return nil, err
	}
	c := n.config
	b, err := batcher.New(batcher.Config{
		Lane: identity.Lane, Gateway: identity.Gateway, LogID: identity.LogID.String(), Term: t.Number(),
		Interval: time.Duration(c.Batch.Interval), MaxBytes: int64(c.Batch.MaxBytes), MaxRecords: c.Batch.MaxRecords,
		Sinks: configured, Logger: n.logger, Registerer: n.metrics,
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
		StopGrace: time.Duration(n.config.Node.StopTimeout) / 3,
		Logger:    n.logger, Registerer: n.metrics,
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
			return nil, err
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate", c.CA)
		}
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, err
		}
		settings.Certificates = []tls.Certificate{pair}
	}
	return settings, nil
}

// destinations joins the configured sinks with the cursors of the log.
type destinations struct {
	node  *Node
	lane  *replicate.Lane
	term  *replicate.Term
	logID string
}

// claim makes every configured sink, gives new ones a cursor, and refuses what
// must not start: an exactly-once sink that points elsewhere than before, or a
// destination that belongs to somebody else.
func (d *destinations) claim(ctx context.Context) ([]batcher.SinkConfig, error) {
	var configured []batcher.SinkConfig
	for name, c := range d.node.config.Sinks {
		sink, err := newSink(name, c, d.node.stdout, d.node.logger)
		if err != nil {
			return nil, errDestination(name, err)
		}
		if err := d.cursor(ctx, name, c, sink.Destination()); err != nil {
			return nil, errDestination(name, err)
		}
		open := func(ctx context.Context, next record.BatchID) error { return sink.Open(ctx, d.identity(name, next)) }
		configured = append(configured, batcher.SinkConfig{
			Name: name, Topics: c.Topics, Guarantee: batcher.Guarantee(c.Delivery), Refused: batcher.Policy(c.Refused),
			Timeout: time.Duration(c.Timeout), Backoff: batcher.Backoff{Initial: time.Duration(c.Backoff.Initial), Max: time.Duration(c.Backoff.Max)},
			Sink: sink, Open: open, Close: sink.Close,
		})
	}
	return configured, d.look(ctx, configured)
}

// cursor adds a sink that the log does not know.
func (d *destinations) cursor(ctx context.Context, name string, c config.Sink, destination string) error {
	known, ok := d.lane.Sink(name)
	switch {
	case !ok:
		return d.term.AddSink(ctx, name, destination, c.StartFrom == "newest")
	case c.Delivery == "exactly-once" && known.Destination != destination:
		return fmt.Errorf("its destination was %s and is now %s: batches that the old one has would be missing in the new one. "+
			"Give the new destination a new sink name (the old sink keeps its place in the log until `forebay sinks remove`), or set the old destination again",
			known.Destination, destination)
	}
	return nil
}

func (d *destinations) identity(name string, next record.BatchID) sinks.Identity {
	return sinks.Identity{
		Gateway: d.node.config.Node.Gateway, LogID: d.logID, Sink: name, Node: d.node.config.Node.ID,
		Lane: next.Lane, Term: d.term.Number(), Next: next,
	}
}

// look opens every destination once before the first term of this process, all at
// the same time, and stops the start where one belongs to somebody else. Whatever
// else is wrong with one is left to its deliveries: a dead sink holds nobody back.
func (d *destinations) look(ctx context.Context, configured []batcher.SinkConfig) error {
	if d.node.open {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	errs := make([]error, len(configured))
	var looking sync.WaitGroup
	for i, c := range configured {
		looking.Go(func() {
			state, _ := d.lane.Sink(c.Name)
			err := c.Open(ctx, record.BatchID{Seq: state.Cursor})
			_ = c.Close()
			if errors.Is(err, sinks.ErrForeign) || errors.Is(err, sinks.ErrAhead) {
				errs[i] = errDestination(c.Name, err)
			}
		})
	}
	looking.Wait()
	d.node.open = true
	return errors.Join(errs...)
}
