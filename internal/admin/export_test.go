package admin

import (
	"context"
	"net"
	"net/http"
)

// NewClientOver makes a client that connects as a test wants.
func NewClientOver(address string, dial func() (net.Conn, error)) *Client {
	c := NewClient(address, "")
	c.http.Transport = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return dial() }}
	return c
}
