package demo

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ asked, want string }{
		{"127.0.0.1:9000", "127.0.0.1:9000"},
		{":9000", "127.0.0.1:9000"},
		{"9000", "127.0.0.1:9000"},
		{"localhost:9000", "127.0.0.1:9000"},
		{"127.0.0.2:9000", "127.0.0.2:9000"},
		{"[::1]:9000", "[::1]:9000"},
		{"127.0.0.1:0", "127.0.0.1:0"},
		// Whoever reaches the demo can sign in as anybody.
		{"0.0.0.0:9000", ""},
		{"[::]:9000", ""},
		{"192.168.1.2:9000", ""},
		{"example.com:9000", ""},
		{":http", ""},
		{":70000", ""},
		{"127.0.0.1", ""},
		{"", ""},
	} {
		t.Run(c.asked, func(t *testing.T) {
			t.Parallel()
			got, err := parseAddress(c.asked)
			if c.want == "" {
				if err == nil {
					t.Errorf("got %s, want an error", got)
				}
				return
			}
			if err != nil || got.String() != c.want {
				t.Errorf("got %s, %v; want %s", got, err, c.want)
			}
		})
	}
}

func TestListenAddress(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if got, err := listenAddress(t.Context(), taken.Addr().String()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("an address that is taken: %s, %v", got, err)
	}
	got, err := listenAddress(t.Context(), "127.0.0.1:0")
	if err != nil || got.Port() == 0 {
		t.Errorf("a free port: %s, %v", got, err)
	}
	// Whether or not 8080 is free here, the default is an address on loopback.
	got, err = listenAddress(t.Context(), "")
	if err != nil || got.Addr() != netip.MustParseAddr("127.0.0.1") || got.Port() == 0 {
		t.Errorf("the default: %s, %v", got, err)
	}
}

// The plain site stands next to the edge where there is room, and has the issuer's address, whose cookies it needs.
func TestSiteAddress(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	next := netip.MustParseAddrPort(taken.Addr().String())
	for _, c := range []struct {
		name string
		edge netip.AddrPort
		host string
	}{
		{"the next port is taken", netip.AddrPortFrom(next.Addr(), next.Port()-1), "127.0.0.1"},
		{"there is no next port", netip.MustParseAddrPort("127.0.0.1:65535"), "127.0.0.1"},
		{"another address", netip.MustParseAddrPort("127.0.0.2:9000"), "127.0.0.2"},
		{"an address with colons", netip.MustParseAddrPort("[::1]:9000"), "127.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := siteAddress(t.Context(), c.edge)
			if err != nil || got.Addr().String() != c.host || got.Port() == 0 || got == next || got == c.edge {
				t.Errorf("got %s, %v", got, err)
			}
		})
	}
	got, err := siteAddress(t.Context(), next)
	if err != nil || got.Port() <= next.Port() || got.Port() > next.Port()+10 {
		t.Errorf("a neighbour of %s: %s, %v", next, got, err)
	}
}
