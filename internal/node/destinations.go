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
	"forebay/internal/config"
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

// claim makes every configured sink, gives new ones a cursor, and refuses what
// must not start: an exactly-once sink that points elsewhere than before, or a
// destination that belongs to somebody else.
func (d *destinations) claim(ctx context.Context) ([]batcher.SinkConfig, error) {
	var configured []batcher.SinkConfig
	for _, name := range slices.Sorted(maps.Keys(d.node.config.Sinks)) {
		c := d.node.config.Sinks[name]
		sink, err := d.node.machine.sink(name, c, d.node.stdout, d.node.parts)
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
	if d.node.looked {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	errs := make([]error, len(configured))
	var looking sync.WaitGroup
	for i, c := range configured {
		looking.Go(func() { errs[i] = d.lookAt(limited, c) })
	}
	looking.Wait()
	// A look that the end of the term broke off is for the next term to take.
	d.node.looked = ctx.Err() == nil
	var all error
	for _, err := range errs {
		switch {
		case all == nil:
			all = err
		case err != nil:
			all = fmt.Errorf("%w; %w", all, err)
		}
	}
	return all
}

func (d *destinations) lookAt(ctx context.Context, c batcher.SinkConfig) error {
	state, known := d.lane.Sink(c.Name)
	if !known {
		return nil // an operator removed it this very moment
	}
	identity, _ := d.lane.Identity()
	err := c.Open(ctx, record.BatchID{Lane: identity.Lane, Seq: state.Cursor})
	_ = c.Close()
	if errors.Is(err, sinks.ErrForeign) || errors.Is(err, sinks.ErrAhead) {
		return errDestination(c.Name, err)
	}
	return nil
}
