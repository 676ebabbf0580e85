//go:build unix

package wire

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"syscall"
	"testing"
)

// fuzzMaxHeader is the bound on headers that both clients get.
const fuzzMaxHeader = 16 << 10

// outcome is what a client makes of a server's bytes.
type outcome struct {
	failed bool // there is no answer; nothing else counts then
	broken bool // its body broke off, after body

	status    int
	proto     string
	header    http.Header
	trailer   http.Header
	length    int64
	encodings []string
	ends      bool // the connection, after the answer
	body      string
}

func (o *outcome) String() string {
	type plain outcome
	return fmt.Sprintf("%.600s", fmt.Sprintf("%+v", plain(*o)))
}

func (o *outcome) equal(p *outcome) bool {
	if o.failed || p.failed {
		return o.failed == p.failed
	}
	sameFields := func(a, b http.Header) bool { return maps.EqualFunc(a, b, slices.Equal) }
	return o.broken == p.broken && o.status == p.status && o.proto == p.proto && sameFields(o.header, p.header) && sameFields(o.trailer, p.trailer) &&
		o.length == p.length && slices.Equal(o.encodings, p.encodings) && o.ends == p.ends && o.body == p.body
}

func outcomeOf(resp *http.Response, err error) *outcome {
	if err != nil {
		return &outcome{failed: true}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return &outcome{
		broken: err != nil,
		status: resp.StatusCode, proto: resp.Proto, header: resp.Header, trailer: resp.Trailer, length: resp.ContentLength,
		encodings: resp.TransferEncoding, ends: resp.Close, body: string(body),
	}
}

// scripted makes connections to a server that sends data in two pieces once it has had the request, and then says that this is
// all, unless it stays open. It tells on the channel when it has sent everything.
func scripted(t testing.TB, data []byte, split int, open bool) (dial func(context.Context, string, string) (net.Conn, error), sent <-chan struct{}) {
	t.Helper()
	done := make(chan struct{}, 16)
	return func(context.Context, string, string) (net.Conn, error) {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			return nil, err
		}
		near, err := connOf(fds[0])
		if err != nil {
			return nil, err
		}
		far, err := connOf(fds[1])
		if err != nil {
			return nil, err
		}
		go func() {
			defer far.Close()
			r := bufio.NewReader(far)
			for line := ""; line != "\r\n"; {
				if line, err = r.ReadString('\n'); err != nil {
					return
				}
			}
			_, _ = far.Write(data[:split])
			_, _ = far.Write(data[split:])
			if !open {
				_ = far.(*net.UnixConn).CloseWrite()
			}
			done <- struct{}{}
			_, _ = io.Copy(io.Discard, r)
		}()
		return near, nil
	}, done
}

func connOf(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	return net.FileConn(f)
}

// byWire is what this package makes of the bytes.
func byWire(t testing.TB, data []byte, split int) *outcome {
	t.Helper()
	dial, _ := scripted(t, data, split, false)
	c := New(Options{Addr: "a:80", Dial: dial, HeaderTimeout: patience, BodyTimeout: patience, MaxHeader: fuzzMaxHeader})
	defer c.Close()
	return outcomeOf(c.Do(t.Context(), text("/")))
}

// byTransport is what net/http makes of them.
func byTransport(t testing.TB, data []byte, split int) *outcome {
	t.Helper()
	dial, _ := scripted(t, data, split, false)
	tr := &http.Transport{DialContext: dial, DisableCompression: true, MaxResponseHeaderBytes: fuzzMaxHeader}
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://a/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return outcomeOf(tr.RoundTrip(r))
}

// framed tells whether the bytes hold a whole answer whose end does not depend on the connection's, and how many follow it.
func framed(data []byte) (whole bool, after int) {
	under := bytes.NewReader(data)
	r := bufio.NewReaderSize(under, bufferSize)
	for {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return false, 0
		}
		if resp.StatusCode >= 100 && resp.StatusCode <= 199 {
			continue
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return err == nil && !resp.Close, r.Buffered() + under.Len()
	}
}

// kept tells whether the connection is used again after the bytes. They must hold a whole answer.
func kept(t testing.TB, data []byte, split int) bool {
	t.Helper()
	dial, sent := scripted(t, data, split, true)
	c := New(Options{Addr: "a:80", Dial: dial, HeaderTimeout: patience, BodyTimeout: patience, MaxHeader: fuzzMaxHeader})
	defer c.Close()
	if o := outcomeOf(c.Do(t.Context(), text("/"))); o.failed || o.broken {
		t.Errorf("%.600q: waits for more than it needs: %v", data, o)
		return false
	}
	receive(t, sent)
	cn := c.idle.get()
	if cn != nil {
		cn.close()
	}
	return cn != nil
}

// stricter tells whether this package refuses what net/http takes, and should:
//   - An answer that switches protocols (101). net/http hands over the connection for that. Nobody here asks for it.
//   - More than maxInterim announcements (1xx). net/http bounds only their size.
func stricter(data []byte) bool {
	r := bufio.NewReaderSize(bytes.NewReader(data), bufferSize)
	for range maxInterim + 1 {
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode < 100 || resp.StatusCode > 199 {
			return false
		}
		if resp.StatusCode == http.StatusSwitchingProtocols {
			return true
		}
	}
	return true
}

// compare fails if the two clients differ, or if this package keeps a connection on which something followed its answer.
func compare(t testing.TB, data []byte, split int) {
	t.Helper()
	got, want := byWire(t, data, split), byTransport(t, data, split)
	if stricter(data) {
		if !got.failed {
			t.Errorf("%.600q: answered with %v", data, got)
		}
	} else if !got.equal(want) {
		t.Errorf("%.600q:\n%v\nnet/http:\n%v", data, got, want)
	}
	if whole, after := framed(data); whole && after > 0 && !got.failed && !got.broken && kept(t, data, split) {
		t.Errorf("%.600q: the connection is kept with %d bytes after the answer", data, after)
	}
}

// FuzzAnswers: whatever a server sends, this package makes of it what net/http's transport does, and never uses a connection again
// on which something followed the answer.
func FuzzAnswers(f *testing.F) {
	for _, c := range framings {
		f.Add([]byte(c.bytes), uint16(len(c.bytes)/2))
		f.Add([]byte(c.bytes+poison), uint16(len(c.bytes)))
	}
	f.Fuzz(func(t *testing.T, data []byte, split uint16) { compare(t, data, min(int(split), len(data))) })
}

// A client that net/http's transport would not be is none at all: the comparison itself must be able to fail.
func TestOutcomesDiffer(t *testing.T) {
	t.Parallel()
	a := byTransport(t, []byte(answer("a")), 0)
	for _, b := range []string{answer("b"), "HTTP/1.1 201 OK\r\nContent-Length: 1\r\n\r\na", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na", "HTTP/1.1 200 OK\r\n\r\na", "x"} {
		if b := byWire(t, []byte(b), 0); a.equal(b) || b.equal(a) {
			t.Errorf("the same: %v", b)
		}
	}
	if !a.equal(byWire(t, []byte(answer("a")), 0)) || a.failed {
		t.Errorf("not the same: %v", a)
	}
}
