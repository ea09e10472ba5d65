// Package demo plays the story that Forebay is for, on one machine and without a
// Kafka of one's own: a producer of user behaviour, an embedded Kafka, and a
// gateway process that takes it in at a limited rate, cuts batches, and delivers
// them to files and to running totals in SQLite. With Crash the gateway is killed
// in mid-stream, again and again, and what the sinks hold is compared with what was produced.
package demo

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Config of a demo.
type Config struct {
	// Program is the forebay executable that runs the gateway.
	Program string
	// Dir takes everything that the demo writes; it must not exist or be empty.
	Dir string
	// Out is told what happens.
	Out io.Writer
	// For is how long lines are produced; 0 until the context ends.
	For time.Duration
	// Rate is how many lines a second are produced, MaxRate how many are taken in.
	Rate, MaxRate int
	// Crashes is how often the gateway is killed while lines are produced.
	Crashes int
}

// drainTimeout bounds the wait for what was produced to arrive.
const drainTimeout = 2 * time.Minute

// Run plays the demo. It returns nil when all that Kafka confirmed is in the
// sinks once, and otherwise what is not so.
func Run(ctx context.Context, c Config) error {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty: the demo begins in an empty directory", c.Dir)
	}
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(0), kfake.SeedTopics(partitions, topic),
		kfake.DataDir(filepath.Join(c.Dir, "kafka")), kfake.GroupMinSessionTimeout(time.Second))
	if err != nil {
		return fmt.Errorf("starting the embedded Kafka: %w", err)
	}
	defer cluster.Close()
	g, err := newGateway(c.Program, c.Dir, cluster.ListenAddrs(), c.MaxRate)
	if err != nil {
		return err
	}
	p, err := newProducer(cluster.ListenAddrs(), rand.Uint64())
	if err != nil {
		return err
	}
	defer p.close()
	v := &view{out: c.Out, start: time.Now()}
	v.say("an embedded Kafka at %s, %d lines/s of user behaviour on %q", cluster.ListenAddrs()[0], c.Rate, topic)
	v.say("the gateway: forebay run --config %s (look: forebay status --addr %s)", g.config(), g.address)
	if err := g.start(); err != nil {
		return err
	}
	return c.play(ctx, v, p, g)
}

// play produces, shows, kills, and proves. The gateway runs when it is called
// and has ended when it returns.
func (c Config) play(ctx context.Context, v *view, p *producer, g *gateway) error {
	producing, stop := context.WithCancel(ctx)
	defer stop()
	if c.For > 0 {
		producing, stop = context.WithTimeout(ctx, c.For)
		defer stop()
	}
	produced := make(chan error, 1)
	go func() { produced <- p.run(producing, c.Rate) }()
	err := c.watch(producing, v, p, g)
	stop()
	if failed := <-produced; err == nil {
		err = failed
	}
	if err != nil {
		g.kill()
		return err
	}
	// What was produced still has to arrive, also when the story was ended by hand.
	v.say("produced %d lines; waiting until all have arrived", p.confirmed())
	draining, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	if err := c.drain(draining, v, p, g); err != nil {
		g.kill()
		return err
	}
	if err := g.stop(); err != nil {
		return err
	}
	result, err := prove(draining, p, g)
	if err != nil {
		return fmt.Errorf("NOT what was produced: %w", err)
	}
	v.say("proved: %d records in %d files, each once, in order, as it was produced", result.records, result.files)
	v.say("proved: the popularity of %d pages equals the producer's own arithmetic", result.pages)
	return nil
}

// watch shows what happens until the producing ends, and kills the gateway in between.
func (c Config) watch(producing context.Context, v *view, p *producer, g *gateway) error {
	if err := g.ready(producing); err != nil {
		if producing.Err() != nil {
			return nil // the time was short: what was produced is waited for
		}
		return err
	}
	v.say("ready: taking in at most %d records/s, a batch every 2 s", c.MaxRate)
	kills := c.killTimes(time.Since(v.start))
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case <-producing.Done():
			return nil
		case <-look.C:
		}
		if len(kills) > 0 && time.Since(v.start) > kills[0] {
			kills = kills[1:]
			if err := c.crash(producing, v, p, g); err != nil {
				return err
			}
		}
		if err := g.died(); err != nil {
			return err
		}
		v.look(producing, p, g)
	}
}

// killTimes are random moments while lines are produced, in order.
func (c Config) killTimes(begun time.Duration) []time.Duration {
	if c.Crashes == 0 {
		return nil
	}
	slot := (c.For - begun) / time.Duration(c.Crashes)
	times := make([]time.Duration, 0, c.Crashes)
	for i := range c.Crashes {
		times = append(times, begun+slot*time.Duration(i)+time.Duration(rand.Float64()*0.7*float64(slot)))
	}
	return times
}

func (c Config) crash(ctx context.Context, v *view, p *producer, g *gateway) error {
	g.kill()
	v.say("kill -9: the gateway is gone, %d lines produced so far", p.confirmed())
	killed := time.Now()
	if err := g.start(); err != nil {
		return err
	}
	if err := g.ready(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	v.say("started again, ready after %s; it goes on from its log", time.Since(killed).Round(10*time.Millisecond))
	return nil
}

// drain returns when both sinks have everything that Kafka confirmed.
func (c Config) drain(ctx context.Context, v *view, p *producer, g *gateway) error {
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		v.look(ctx, p, g)
		if c.arrived(ctx, p, g) {
			return nil
		}
		if err := g.died(); err != nil {
			return err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("not everything had arrived after %s; the gateway's log is %s", drainTimeout, g.log())
		}
	}
}

// arrived tells whether the log has all and no sink has anything to wait for.
func (c Config) arrived(ctx context.Context, p *producer, g *gateway) bool {
	status, err := g.client.Status(ctx)
	if err != nil || len(status.Lanes) == 0 {
		return false
	}
	lane := status.Lanes[0]
	var taken int64
	for _, q := range lane.Partitions {
		taken += max(q.Next, 0)
	}
	if taken != p.confirmed() || lane.Batches.Active > 0 {
		return false
	}
	// Everything is in the log; is it also cut? What is cut has been delivered.
	var cut int64
	for before := uint64(0); ; {
		page, err := g.client.Batches(ctx, 0, before, 1000)
		if err != nil {
			return false
		}
		for _, b := range page.Batches {
			cut += b.Records
		}
		if page.Next == nil {
			return cut == taken
		}
		before = *page.Next
	}
}
