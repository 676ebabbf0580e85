package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
)

// preferredPort is the edge's when nothing else is asked for and nobody has it.
const preferredPort = 8080

// loopback is where the demo lives. It is an address and not the name localhost, whose cookies are shared by all ports:
// there the demo's session would replace that of a Clerk application under development.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// listenAddress returns the loopback address that is asked for, or a free one for "".
func listenAddress(ctx context.Context, asked string) (netip.AddrPort, error) {
	if asked == "" {
		address, err := freeAddress(ctx, netip.AddrPortFrom(loopback, preferredPort))
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, syscall.EACCES) {
			return address, err
		}
		return freeAddress(ctx, netip.AddrPortFrom(loopback, 0))
	}
	address, err := parseAddress(asked)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return freeAddress(ctx, address)
}

// parseAddress reads ":port", "port" or "host:port" with a loopback host.
func parseAddress(asked string) (netip.AddrPort, error) {
	if !strings.Contains(asked, ":") {
		asked = ":" + asked
	}
	host, port, err := net.SplitHostPort(asked)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("--listen %q is no address; write it as 127.0.0.1:9000 or :9000", asked)
	}
	if host == "" || strings.EqualFold(host, "localhost") {
		host = loopback.String()
	}
	address, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("--listen %q is no address; write it as 127.0.0.1:9000 or :9000", asked)
	}
	if !address.Addr().IsLoopback() {
		return netip.AddrPort{}, fmt.Errorf("--listen %s is not on loopback, where anybody could sign in as anybody; use 127.0.0.1 or [::1]", asked)
	}
	return address, nil
}

// freeAddress proves that nobody listens on the address, and chooses a port for port 0. Caddy itself would
// share the port with another process that allows it.
func freeAddress(ctx context.Context, address netip.AddrPort) (netip.AddrPort, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", address.String())
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("the edge cannot listen: %w", err)
	}
	defer ln.Close()
	tcp, ok := ln.Addr().(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("the edge cannot listen on %s", ln.Addr())
	}
	return netip.AddrPortFrom(address.Addr(), tcp.AddrPort().Port()), nil
}

// siteHost is the address of the plain site and of the issuer. They share it because an instance in production signs people in
// by cookies that both can see. A publishable key has no room for an address with colons.
func siteHost(edge netip.AddrPort) netip.Addr {
	if host := edge.Addr().Unmap(); host.Is4() {
		return host
	}
	return loopback
}

// siteAddress returns a free address for the plain site: one of the ports after the edge's, or any.
func siteAddress(ctx context.Context, edge netip.AddrPort) (netip.AddrPort, error) {
	host := siteHost(edge)
	for n := range uint16(10) {
		port := edge.Port() + 1 + n
		if port <= edge.Port() { // beyond the last one
			break
		}
		if address, err := freeAddress(ctx, netip.AddrPortFrom(host, port)); err == nil {
			return address, nil
		}
	}
	return freeAddress(ctx, netip.AddrPortFrom(host, 0))
}
