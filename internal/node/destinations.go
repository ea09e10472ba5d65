package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"forebay/batcher"
	"forebay/internal/record"
	"forebay/replicate"
	"forebay/sinks"
)

// openTimeout bounds the look at each destination before the first term.
const openTimeout = 10 * time.Second

// errDestination says which sink stops the start.
func errDestination(name string, err error) error { return fmt.Errorf("sink %s: %w", name, err) }

// destinations joins the configured sinks with the cursors of the log.
type destinations struct {
	node  *Node
	lane  *replicate.Lane
	term  *replicate.Term
	logID string
}

// misrouted names a topic that a sink is routed, and that it can never get: nobody
// reads it, and the log holds nothing of it. One that is only read no more is no
// mistake: the sink gets what the log still holds of it.
func (d *destinations) misrouted(name string) error {
	for _, topic := range d.node.config.Sinks[name].Topics {
		if _, held := d.term.TopicID(topic); !held && !slices.Contains(d.node.config.Receiver.Kafka.Topics, topic) {
			return fmt.Errorf("its topics name %q, which receiver.kafka.topics does not and of which the log holds nothing: it would get nothing of it, in silence. Correct the name in one of the two", topic)
		}
	}
	return nil
}

// claim makes every configured sink, gives new ones a cursor, and refuses what
// must not start: an exactly-once sink that points elsewhere than before, or a
// destination that belongs to somebody else. A new sink that is refused gets no
// cursor: the log would hold it to that destination, and wait for it.
func (d *destinations) claim(ctx context.Context) ([]batcher.SinkConfig, error) {
	var configured []batcher.SinkConfig
	add := map[string]func() error{}
	for _, name := range slices.Sorted(maps.Keys(d.node.config.Sinks)) {
		c := d.node.config.Sinks[name]
		if err := d.misrouted(name); err != nil {
			return nil, errDestination(name, err)
		}
		sink, err := d.node.machine.sink(name, c, d.node.stdout, d.node.parts)
		if err != nil {
			return nil, errDestination(name, err)
		}
		switch known, ok := d.lane.Sink(name); {
		case !ok:
			add[name] = func() error { return d.term.AddSink(ctx, name, sink.Destination(), c.StartFrom == "newest") }
		case c.Delivery == "exactly-once" && known.Destination != sink.Destination():
			return nil, errDestination(name, errMoved(known.Destination, sink.Destination()))
		}
		open := func(ctx context.Context, next record.BatchID) error { return sink.Open(ctx, d.identity(name, next)) }
		configured = append(configured, batcher.SinkConfig{
			Name: name, Topics: c.Topics, Guarantee: batcher.Guarantee(c.Delivery), Refused: batcher.Policy(c.Refused),
			Timeout: time.Duration(c.Timeout), Backoff: batcher.Backoff{Initial: time.Duration(c.Backoff.Initial), Max: time.Duration(c.Backoff.Max)},
			Sink: sink, Open: open, Close: sink.Close,
		})
	}
	errs := d.look(ctx, configured)
	var all error
	for i, c := range configured {
		err := errs[i]
		if err == nil && add[c.Name] != nil {
			err = add[c.Name]()
		}
		switch {
		case err == nil:
		case all == nil:
			all = errDestination(c.Name, err)
		default:
			all = fmt.Errorf("%w; %w", all, errDestination(c.Name, err))
		}
	}
	return configured, all
}

func errMoved(before, now string) error {
	return fmt.Errorf("its destination was %s and is now %s: batches that the old one has would be missing in the new one. "+
		"Give the new destination a new sink name (the old sink keeps its place in the log until `forebay sinks remove`), or set the old destination again",
		before, now)
}

func (d *destinations) identity(name string, next record.BatchID) sinks.Identity {
	return sinks.Identity{
		Gateway: d.node.config.Node.Gateway, LogID: d.logID, Sink: name, Node: d.node.config.Node.ID,
		Lane: next.Lane, Term: d.term.Number(), Next: next, Newest: record.BatchID{Lane: next.Lane, Seq: d.lane.LastSeq()},
	}
}

// look opens every destination once before the first term of this process, all at
// the same time, and gives for each why it must stop the start: it belongs to
// somebody else. Whatever else is wrong with one is left to its deliveries: a dead
// sink holds nobody back.
func (d *destinations) look(ctx context.Context, configured []batcher.SinkConfig) []error {
	errs := make([]error, len(configured))
	if d.node.looked {
		return errs
	}
	limited, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	var looking sync.WaitGroup
	for i, c := range configured {
		looking.Go(func() { errs[i] = d.lookAt(limited, c) })
	}
	looking.Wait()
	// A look that the end of the term broke off is for the next term to take.
	d.node.looked = ctx.Err() == nil
	return errs
}

func (d *destinations) lookAt(ctx context.Context, c batcher.SinkConfig) error {
	identity, _ := d.lane.Identity()
	err := c.Open(ctx, record.BatchID{Lane: identity.Lane, Seq: d.next(c.Name)})
	_ = c.Close()
	if errors.Is(err, sinks.ErrForeign) || errors.Is(err, sinks.ErrAhead) {
		return err
	}
	return nil
}

// next is the batch that a sink needs next, or will once it is added.
func (d *destinations) next(name string) uint64 {
	state, known := d.lane.Sink(name)
	switch {
	case known:
		return state.Cursor
	case d.node.config.Sinks[name].StartFrom == "newest":
		return d.lane.LastSeq() + 1
	}
	return d.lane.FirstSeq()
}
