package node

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// lastWordTimeout is how long the last line may take: whoever reads the log may hang as well.
const lastWordTimeout = time.Second

// unlessHung gives what build returns. It waits for nothing that the disk may
// hold: when the log hangs, in whatever role or stage, the connections are cut and its reason
// is returned at once; and a node that was told to stop and does not return long
// after its time is left behind.
func (n *Node) unlessHung(ctx context.Context, build func(context.Context) error) error {
	built := make(chan error, 1)
	go func() { built <- build(ctx) }()
	told := ctx.Done()
	var overdue <-chan time.Time
	for {
		select {
		case err := <-built:
			return err
		case err := <-n.hung:
			n.wires.cutAll()
			return abandoned{err}
		case <-told:
			told = nil
			timer := time.NewTimer(n.stopBound())
			defer timer.Stop()
			overdue = timer.C
		case <-overdue:
			n.wires.cutAll()
			return abandoned{errors.New("told to stop, the node does not return: see to its disk")}
		}
	}
}

// stopBound is more than a stop can take while the disk answers.
func (n *Node) stopBound() time.Duration {
	return time.Duration(n.config.Node.StopTimeout) + n.machine.endGrace + closeTimeout + 2*shutdownTimeout
}

// stalled ends the node because its disk hangs. It never blocks.
func (n *Node) stalled(err error) {
	n.failed.Store(true)
	select {
	case n.hung <- fmt.Errorf("the disk has not answered within wal.stallTimeout (%s): %w; see to the disk and start the node again",
		time.Duration(n.config.WAL.StallTimeout), err):
	default:
	}
}

// lastWord says something if that can be said: a log that nobody takes does not
// keep the process.
func lastWord(say func()) {
	said := make(chan struct{})
	go func() {
		defer close(said)
		say()
	}()
	patience := time.NewTimer(lastWordTimeout)
	defer patience.Stop()
	select {
	case <-said:
	case <-patience.C:
	}
}
