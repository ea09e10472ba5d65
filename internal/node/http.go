package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"forebay/internal/admin"
	"forebay/internal/config"
)

// serve listens, waiting for a predecessor to let go of the address, and serves
// until what it returns is called.
func (n *Node) serve(ctx context.Context) (stop func(), err error) {
	server := admin.NewServer(n, string(n.config.Node.Token), n.metrics)
	server.ErrorLog = slog.NewLogLogger(n.logger.Handler(), slog.LevelDebug)
	if server.TLSConfig, err = serverTLS(n.config.Node.TLS); err != nil {
		return nil, fmt.Errorf("node.tls: %w", err)
	}
	listener, err := listen(ctx, n.config.Node.HTTP, turn{n.machine.serveWait, func(string) {
		n.logger.Warn("waiting: another process has the address of node.http", "address", n.config.Node.HTTP, "at_most", n.machine.serveWait)
	}})
	if errors.Is(err, ErrInUse) {
		if holder := dataDirHolder(n.config.Node.DataDir); holder != "" {
			return nil, fmt.Errorf("%w; the data directory %s is in use, too (%q): this node runs already", err, n.config.Node.DataDir, holder)
		}
	}
	if err != nil {
		return nil, err
	}
	n.wires.serving(server)
	n.mu.Lock()
	n.address = listener.Addr().String()
	n.mu.Unlock()
	served := make(chan struct{})
	go func() {
		defer close(served)
		err := serveOn(server, listener)
		if !errors.Is(err, http.ErrServerClosed) {
			n.fail(fmt.Errorf("serving HTTP: %w", err))
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			_ = server.Close()
		}
		<-served
	}, nil
}

func serveOn(server *http.Server, listener net.Listener) error {
	if server.TLSConfig != nil {
		return server.ServeTLS(listener, "", "")
	}
	return server.Serve(listener)
}

// serverTLS reads a certificate and its key; nil is plain HTTP.
func serverTLS(c *config.ServerTLS) (*tls.Config, error) {
	if c == nil {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate %s and its key %s: %w", c.Cert, c.Key, err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}, nil
}

// listen takes an address, and waits a while for one that is taken.
func listen(ctx context.Context, address string, turn turn) (net.Listener, error) {
	deadline := time.Now().Add(turn.most)
	for {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		switch {
		case err == nil:
			return l, nil
		case ctx.Err() != nil: // the name was being looked up
			return nil, context.Cause(ctx)
		case !errors.Is(err, syscall.EADDRINUSE):
			return nil, fmt.Errorf("listening on node.http: %w", err)
		case !time.Now().Before(deadline):
			return nil, fmt.Errorf("node.http %s is %w: end that one (another node runs already?), or set another address", address, ErrInUse)
		}
		turn.begins("")
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
