package peer

import (
	"fmt"
	"net"
	"net/netip"
)

// Loopback tells whether an address, host:port, can be reached from this machine only: its
// host is "localhost" or an address of the loopback network. Other names are not
// looked up, and count as reachable from elsewhere; so does no host at all, which listens everywhere.
func Loopback(address string) (bool, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false, fmt.Errorf("address %q is not host:port: %w", address, err)
	}
	if host == "localhost" {
		return true, nil
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback(), nil
}
