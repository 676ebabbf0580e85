package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
)

// In a container loopback is the container's own, and what is published of it arrives at another of its addresses. Everything goes on
// listening on loopback, and thinks that it is asked there: a relay carries the connections in. So the browser's addresses stay what
// the config, the cookies and the checks of Host and Origin have.

// containerListen is the edge's address in a container, where it cannot be another one each time.
var containerListen = netip.AddrPortFrom(loopback, preferredPort).String()

// issuerPort is what the issuer listens on, 0 for any free one. In a container it has to be known: the plain site is the port after the
// edge's, and the issuer the one after that.
func (o Options) issuerPort(edge netip.AddrPort) (uint16, error) {
	if !o.Container {
		return 0, nil
	}
	if edge.Port() > 65533 {
		return 0, errors.New("--container needs the two ports after that of --listen as well")
	}
	return edge.Port() + 2, nil
}

// letIn opens the demo's ports on the container's other addresses.
func (d *Demo) letIn(ctx context.Context, addresses []netip.Addr) error {
	if len(addresses) == 0 {
		return errors.New("this container has no address but loopback, so nothing of it can be published; run it with a network")
	}
	for _, origin := range []string{d.Origin, d.Site, d.Stack.IssuerURL} {
		inside, err := netip.ParseAddrPort(origin[len("http://"):])
		if err != nil {
			return fmt.Errorf("read the address of %s: %w", origin, err)
		}
		for _, a := range addresses {
			r, err := startRelay(ctx, netip.AddrPortFrom(a, inside.Port()), inside)
			if err != nil {
				return err
			}
			d.relays = append(d.relays, r)
		}
	}
	return nil
}

// outsideAddresses are this machine's addresses that others can reach.
func outsideAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the addresses of this machine: %w", err)
	}
	var outside []netip.Addr
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsGlobalUnicast() {
			outside = append(outside, p.Addr())
		}
	}
	slices.SortFunc(outside, netip.Addr.Compare)
	return outside, nil
}

// relay carries connections from one address to another.
type relay struct {
	ln      net.Listener
	to      netip.AddrPort
	running sync.WaitGroup
	stop    context.CancelFunc
}

func startRelay(ctx context.Context, from, to netip.AddrPort) (*relay, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", from.String())
	if err != nil {
		return nil, fmt.Errorf("listen at what is published of port %d: %w", from.Port(), err)
	}
	r := &relay{ln: ln, to: to}
	ctx, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	r.running.Go(func() {
		for {
			outer, err := ln.Accept()
			if err != nil {
				return // closed
			}
			r.running.Go(func() { r.carry(ctx, outer) })
		}
	})
	return r, nil
}

// carry copies both ways until both are at their end, or the relay is closed.
func (r *relay) carry(ctx context.Context, outer net.Conn) {
	defer func() { _ = outer.Close() }()
	var d net.Dialer
	inner, err := d.DialContext(ctx, "tcp", r.to.String())
	if err != nil {
		return
	}
	defer func() { _ = inner.Close() }()
	stop := context.AfterFunc(ctx, func() {
		_ = outer.Close()
		_ = inner.Close()
	})
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { pour(inner, outer) })
	both.Go(func() { pour(outer, inner) })
	both.Wait()
}

// pour copies until there is no more, and says so to the one that was written to.
func pour(to, from net.Conn) {
	// An error ends this direction as the end does.
	_, _ = io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// Close breaks the connections and returns when all goroutines are gone.
func (r *relay) Close() error {
	r.stop()
	err := r.ln.Close()
	r.running.Wait()
	if err != nil {
		return fmt.Errorf("close a relay: %w", err)
	}
	return nil
}
