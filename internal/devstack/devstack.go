// Package devstack stands in for Clerk and for Tinybird: an issuer that signs people in and signs session tokens as a
// Clerk instance does, and an API that answers pipes as Tinybird does. The demo and the integration tests run against
// it, on loopback, without any account.
//
// It reads the services' documents on its own and shares no code with the packages it is used to test, so that a
// misreading there is not repeated here. Where the documents leave a question open it takes the answer that would
// hurt most, and says so where it does.
package devstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// Options configures a Stack. The zero value is a stack on two free ports of 127.0.0.1.
type Options struct {
	Issuer IssuerOptions
	API    APIOptions

	// IssuerAddr and APIAddr are the addresses to listen on; "" is 127.0.0.1 with a free port. Only loopback
	// addresses are accepted: anybody who reaches the issuer can sign in as anybody.
	IssuerAddr, APIAddr string

	// Now is the clock of both, unless their own options name another; nil is time.Now.
	Now func() time.Time
}

// Stack is a running issuer and a running API.
type Stack struct {
	Issuer *Issuer
	API    *API

	// IssuerURL and APIURL are the base URLs, without a trailing slash. IssuerURL is also the tokens' iss.
	IssuerURL, APIURL string

	servers []*http.Server
	wait    sync.WaitGroup
	once    sync.Once
	stop    func() bool
	err     error
}

// Start listens and serves until Close is called or ctx ends.
func Start(ctx context.Context, o Options) (*Stack, error) {
	if o.Issuer.Now == nil {
		o.Issuer.Now = o.Now
	}
	if o.API.Now == nil {
		o.API.Now = o.Now
	}
	i, err := NewIssuer(o.Issuer)
	if err != nil {
		return nil, err
	}
	s := &Stack{Issuer: i, API: NewAPI(o.API)}
	if s.IssuerURL, err = s.serve(ctx, o.IssuerAddr, s.Issuer); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if s.APIURL, err = s.serve(ctx, o.APIAddr, s.API); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if o.Issuer.URL == "" {
		s.Issuer.SetURL(s.IssuerURL)
	}
	s.stop = context.AfterFunc(ctx, func() { _ = s.shut() })
	return s, nil
}

// Close ends both servers, breaks the requests that still run, and returns when all goroutines are gone.
func (s *Stack) Close() error {
	if s.stop != nil {
		s.stop()
	}
	return s.shut()
}

func (s *Stack) shut() error {
	s.once.Do(func() {
		s.Issuer.Close()
		s.API.Close()
		for _, srv := range s.servers {
			s.err = errors.Join(s.err, srv.Close())
		}
	})
	s.wait.Wait()
	return s.err
}

func (s *Stack) serve(ctx context.Context, addr string, h http.Handler) (string, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	if err := checkLoopback(addr); err != nil {
		return "", err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return "", fmt.Errorf("listen on %s: %w", addr, err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	s.servers = append(s.servers, srv)
	s.wait.Go(func() {
		// Serve returns only after Close, and then with http.ErrServerClosed.
		_ = srv.Serve(ln)
	})
	return "http://" + ln.Addr().String(), nil
}

func checkLoopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("address %q: %w", addr, err)
	}
	if !isLoopback(host) {
		return fmt.Errorf("address %q is not a loopback address: use 127.0.0.1, [::1] or localhost", addr)
	}
	return nil
}
