package demo

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// In a container the edge, the plain site and the issuer have ports that can be published, in a row.
func TestContainerPorts(t *testing.T) {
	t.Parallel()
	for listen, want := range map[uint16]uint16{8080: 8082, 65533: 65535, 65534: 0} {
		got, err := Options{Container: true}.issuerPort(netip.AddrPortFrom(loopback, listen))
		if got != want || (err != nil) != (want == 0) {
			t.Errorf("after %d: %d, %v", listen, got, err)
		}
	}
	if got, err := (Options{}).issuerPort(netip.AddrPortFrom(loopback, 8080)); got != 0 || err != nil {
		t.Errorf("outside of a container: %d, %v", got, err)
	}
}

// Who comes by another address signs in, reads and meets the same checks as on loopback.
func TestLetIn(t *testing.T) {
	t.Parallel()
	edge := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Host+" from "+r.RemoteAddr)
	})}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = edge.Serve(ln) }()
	t.Cleanup(func() { edge.Close() })
	s, err := devstack.Start(t.Context(), devstack.Options{Issuer: devstack.IssuerOptions{Live: true}})
	if err != nil {
		t.Fatal(err)
	}
	d := &Demo{Origin: "http://" + ln.Addr().String(), Site: s.APIURL, Stack: s, decisions: newDecisions()}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := d.letIn(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "run it with a network") {
		t.Errorf("without an address: %v", err)
	}
	outside := netip.MustParseAddr("127.0.0.2")
	if err := d.letIn(t.Context(), []netip.Addr{outside}); err != nil {
		t.Fatal(err)
	}
	if len(d.relays) != 3 {
		t.Fatalf("%d relays", len(d.relays))
	}
	at := func(origin string) string {
		return netip.AddrPortFrom(outside, netip.MustParseAddrPort(strings.TrimPrefix(origin, "http://")).Port()).String()
	}
	// The browser asks for 127.0.0.1, and the container's engine brings that to another address.
	body := exchange(t, at(d.Origin), "GET / HTTP/1.1\r\nHost: "+ln.Addr().String()+"\r\nConnection: close\r\n\r\n")
	if !strings.HasPrefix(body, "200 "+ln.Addr().String()+" from 127.0.0.1:") {
		t.Errorf("the edge says %q", body)
	}
	signIn := func(host string) string {
		return exchange(t, at(s.IssuerURL), "POST /dev/sign-in HTTP/1.1\r\nHost: "+host+"\r\nContent-Type: application/json\r\n"+
			"Content-Length: 14\r\nConnection: close\r\n\r\n"+`{"user":"ada"}`)
	}
	if got := signIn(strings.TrimPrefix(s.IssuerURL, "http://")); !strings.HasPrefix(got, "200 ") {
		t.Errorf("signing in: %s", got)
	}
	// A name of somebody else that resolves to this machine is refused as before.
	if got := signIn("evil.example.com"); !strings.HasPrefix(got, "403 ") {
		t.Errorf("signing in under another name: %s", got)
	}
}

// Closing a relay breaks the connections that stand.
func TestRelayCloses(t *testing.T) {
	t.Parallel()
	inside, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inside.Close() })
	to := netip.MustParseAddrPort(inside.Addr().String())
	r, err := startRelay(t.Context(), netip.MustParseAddrPort("127.0.0.2:0"), to)
	if err != nil {
		t.Fatal(err)
	}
	outer, err := net.Dial("tcp", r.ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { outer.Close() })
	inner, err := inside.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inner.Close() })
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if n, err := outer.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d, %v", n, err)
	}
	if _, err := inner.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the demo's side: %v", err)
	}
}

// Loopback is never among the addresses that the relay listens on: the demo itself does.
func TestOutsideAddresses(t *testing.T) {
	t.Parallel()
	got, err := outsideAddresses()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range got {
		if a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() {
			t.Errorf("%s", a)
		}
	}
}

// exchange sends bytes to an address and returns the answer's status and body.
func exchange(t *testing.T, address, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Status[:4] + string(body)
}
