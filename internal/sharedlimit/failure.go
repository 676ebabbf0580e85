package sharedlimit

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Kind is what an operator has to look at when a store cannot be used.
type Kind uint8

// The kinds of failures.
const (
	Away        Kind = iota // nobody answers there, or not to the end
	Slow                    // it answers later than requests wait
	Password                // it does not accept the credentials, or there are none
	Permission              // the user may not do what counting needs
	NoTLS                   // TLS is not spoken there
	Certificate             // one side does not accept the other's certificate
	Cluster                 // it is a cluster and the address does not say so, or the other way round
	Refused                 // it answers with another error
	NoRedis                 // what came back is not of a Redis
)

// StoreError is why a store cannot be used, in words that may be shown: nothing of the address but hosts is in them, and nothing of what
// was answered but the code of an error, because servers repeat user names and what they were sent.
type StoreError struct {
	Kind Kind
	text string
}

// Error implements error.
func (f *StoreError) Error() string { return f.text }

// slowError is for a store that answers, but not in time.
type slowError struct{ timeout time.Duration }

func (e slowError) Error() string {
	return fmt.Sprintf("it answers, but not within %s (timeout)", e.timeout)
}

// codes are those that Redis' errors begin with.
var codes = []string{
	"ASK", "BUSY", "CLUSTERDOWN", "CROSSSLOT", "ERR", "LOADING", "MASTERDOWN", "MISCONF", "MOVED", "NOAUTH", "NOPERM", "NOREPLICAS", "NOSCRIPT", "OOM",
	"READONLY", "TRYAGAIN", "WRONGPASS", "WRONGTYPE",
}

// Explain says what an error of a store means.
func Explain(err error) *StoreError {
	var (
		answered redis.Error
		slow     slowError
		timeout  net.Error
	)
	switch {
	case errors.As(err, &answered):
		return explainAnswer(answered)
	case errors.As(err, &slow):
		return &StoreError{Slow, slow.Error()}
	case errors.Is(err, errBusy), errors.Is(err, errClosed), errors.Is(err, errUnanswered):
		return &StoreError{Away, err.Error()}
	case errors.Is(err, errTimeout), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, redis.ErrPoolTimeout),
		errors.As(err, &timeout) && timeout.Timeout():
		return &StoreError{Away, errTimeout.Error()}
	}
	return explainConnection(err)
}

// explainAnswer is for what the server itself says.
func explainAnswer(e redis.Error) *StoreError {
	begins := func(starts ...string) bool {
		return slices.ContainsFunc(starts, func(s string) bool { return redis.HasErrorPrefix(e, s) || strings.HasPrefix(e.Error(), s) })
	}
	switch {
	case begins("NOAUTH"):
		return &StoreError{Password, "it wants a password (NOAUTH)"}
	case begins("WRONGPASS", "ERR invalid password"):
		return &StoreError{Password, "it does not accept the password (WRONGPASS)"}
	case begins("ERR AUTH", "ERR Client sent AUTH"):
		return &StoreError{Password, "it has no password, and the address has one"}
	case begins("NOPERM"):
		return &StoreError{Permission, "the user may not do what counting needs (NOPERM)"}
	case begins("ERR unknown command"):
		return &StoreError{Permission, "it does not know a command that counting needs"}
	case begins("MOVED", "ASK "):
		return &StoreError{Cluster, "it is a node of a cluster (MOVED)"}
	case begins("ERR This instance has cluster support disabled"):
		return &StoreError{Cluster, "it is not a cluster"}
	}
	code, _, _ := strings.Cut(e.Error(), " ")
	if !slices.Contains(codes, code) {
		return &StoreError{Refused, "it answers with an error"}
	}
	return &StoreError{Refused, "it answers with the error " + code}
}

// explainConnection is for what happens to a connection.
func explainConnection(err error) *StoreError {
	var (
		certificate *tls.CertificateVerificationError
		noTLS       tls.RecordHeaderError
		alert       tls.AlertError
		network     *net.OpError
		name        *net.DNSError
	)
	switch {
	case errors.As(err, &certificate):
		return &StoreError{Certificate, certificate.Error()}
	case errors.As(err, &noTLS):
		return &StoreError{NoTLS, "what answers there does not speak TLS"}
	case errors.As(err, &alert):
		return &StoreError{Certificate, "it ends the TLS handshake: " + alert.Error()}
	case errors.As(err, &network) && network.Op == "remote error":
		return &StoreError{Certificate, "it ends the TLS handshake: " + network.Error()}
	case errors.As(err, &network):
		return &StoreError{Away, network.Error()}
	case errors.As(err, &name):
		return &StoreError{Away, name.Error()}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return &StoreError{Away, "it ends the connection"}
	}
	return &StoreError{NoRedis, "what answers there cannot be understood as a Redis"}
}
