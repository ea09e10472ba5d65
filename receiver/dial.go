package receiver

import (
	"context"
	"net"
	"sync"
	"time"
)

// dialer opens sarama's connections and closes them all when its context
// ends: sarama's requests take no context, so this is what bounds them.
type dialer struct {
	ctx     context.Context
	open    func(ctx context.Context, network, address string) (net.Conn, error)
	timeout time.Duration
}

// Dial implements golang.org/x/net/proxy.Dialer.
func (d *dialer) Dial(network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, d.timeout)
	defer cancel()
	c, err := d.open(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, forget: context.AfterFunc(d.ctx, func() { _ = c.Close() })}, nil
}

// conn lets go of the context when it is closed.
type conn struct {
	net.Conn
	once   sync.Once
	forget func() bool
}

func (c *conn) Close() error {
	c.once.Do(func() { c.forget() })
	return c.Conn.Close()
}
