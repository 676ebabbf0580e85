package wire

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"
)

// bufferSize holds the header of an answer and most small answers.
const bufferSize = 4 << 10

// past is a deadline that is over.
var past = time.Unix(1, 0)

// conn is a connection to the server. It belongs to one request at a time.
type conn struct {
	nc     net.Conn
	tls    *tls.Conn       // nc again, if it is secure
	recs   *records        // what is below TLS
	under  net.Conn        // what is below that; nc again, if it is not secure
	raw    syscall.RawConn // nil where there is none
	in     *bufio.Reader
	client *Client

	reused bool
	sent   time.Time     // when all of the request was written; zero: it was not
	heard  bool          // a byte of this request's answer
	keep   bool          // nothing in the answer speaks against another request
	broke  error         // why the network gave no more; who reads lines makes something else of it
	left   int64         // how many bytes may be read
	wait   time.Duration // for the next byte; 0 means that a deadline is set already
	until  time.Time     // the deadline that is set
	idleAt time.Time     // since when
	probe  probe
	hangUp func() // close, made once
}

func newConn(c *Client, nc net.Conn) *conn {
	cn := &conn{nc: nc, under: nc, client: c}
	cn.in = bufio.NewReaderSize(cn, bufferSize)
	cn.hangUp = cn.close
	if secure, ok := nc.(*tls.Conn); ok {
		cn.tls = secure
		if cn.recs, ok = secure.NetConn().(*records); ok {
			cn.under = cn.recs.Conn
		}
	}
	if s, ok := cn.under.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			cn.raw = raw
			cn.probe.init()
		}
	}
	return cn
}

// Read reads for the buffer.
func (cn *conn) Read(p []byte) (int, error) {
	n, err := cn.read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // the network's own
		cn.broke = err
	}
	return n, err
}

// read reads from the network, within the bounds that hold now.
func (cn *conn) read(p []byte) (int, error) {
	if cn.left <= 0 {
		return 0, errHeaderSize
	}
	if int64(len(p)) > cn.left {
		p = p[:cn.left]
	}
	if cn.wait > 0 {
		if err := cn.allow(time.Now().Add(cn.wait), cn.wait); err != nil {
			return 0, err
		}
	}
	n, err := cn.nc.Read(p)
	cn.left -= int64(n)
	cn.heard = cn.heard || n > 0
	return n, err //nolint:wrapcheck // as above
}

// ask sends the request and reads the header of the answer. After an error the connection is closed.
func (cn *conn) ask(ctx context.Context, request []byte, deadline time.Time) (*http.Response, error) {
	a := &Answer{cn: cn, ctx: ctx}
	if ctx.Done() != nil {
		a.stop = context.AfterFunc(ctx, cn.hangUp)
	}
	resp, err := cn.exchange(request, deadline)
	if err != nil {
		a.release(false)
		return nil, err
	}
	cn.left, cn.wait = math.MaxInt64, cn.client.BodyTimeout
	if resp.Body == http.NoBody {
		a.release(true)
		return resp, nil
	}
	a.src = resp.Body
	resp.Body = a
	return resp, nil
}

func (cn *conn) exchange(request []byte, deadline time.Time) (*http.Response, error) {
	cn.heard, cn.keep, cn.broke, cn.left, cn.wait, cn.sent = false, true, nil, cn.client.MaxHeader, 0, time.Time{}
	if err := cn.allow(deadline, cn.client.HeaderTimeout); err != nil {
		return nil, err
	}
	if _, err := cn.nc.Write(request); err != nil {
		return nil, err //nolint:wrapcheck // as above
	}
	cn.sent = time.Now()
	for range maxInterim + 1 {
		resp, err := http.ReadResponse(cn.in, nil)
		if err != nil {
			return nil, cmp.Or(cn.broke, err) //nolint:wrapcheck // as above
		}
		cn.keep = cn.keep && settled(resp)
		switch {
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, errSwitch
		case resp.StatusCode < http.StatusContinue || resp.StatusCode >= http.StatusOK:
			return resp, nil
		}
	}
	return nil, errInterim
}

// settled tells whether the server keeps the connection and leaves no doubt where the answer ends. In doubt no other request
// is sent over it: the rest of this answer, to whoever made it, could be taken for the next one.
func settled(resp *http.Response) bool {
	switch status := resp.StatusCode; {
	case resp.Close, status < http.StatusContinue:
		return false
	case resp.ProtoMajor != 1 || resp.ProtoMinor != 1:
		// Of HTTP/1.0's answers with chunks one cannot tell whether they are meant (RFC 9112, section 6.1).
		return false
	case status < http.StatusOK, status == http.StatusNoContent, status == http.StatusNotModified:
		// There is no body, whatever is said of it (RFC 9112, section 6.3). A 304 may give the length of another answer; few do.
		length := resp.Header.Get("Content-Length")
		return len(resp.TransferEncoding) == 0 && (length == "" || length == "0")
	default:
		return true
	}
}

// allow sees that the connection waits until then at least. Each time it moves the deadline it adds a little to it, so that
// not every request has to: that costs more than looking at the clock.
func (cn *conn) allow(until time.Time, wait time.Duration) error {
	slack := min(wait/16, time.Second)
	if !cn.until.Before(until) && cn.until.Before(until.Add(2*slack)) {
		return nil
	}
	cn.until = until.Add(slack)
	return cn.nc.SetDeadline(cn.until) //nolint:wrapcheck // the caller says what it was doing
}

// stale tells whether what failed is a connection which the server had closed before it saw the request, so that it may be sent again. It
// is not, if the request's time is over, or if the server had time to begin with it. Only of one that was not written it is certain, so others
// have to be safe. The error does not tell: an answer to TLS that was cut short before the request is a timeout, too.
func (cn *conn) stale(deadline time.Time, safe bool) bool {
	now := time.Now()
	if !cn.reused || cn.heard || !now.Before(deadline) {
		return false
	}
	return cn.sent.IsZero() || safe && now.Sub(cn.sent) < staleWithin
}

// usable tells whether the connection can take another request: the server has neither closed it nor sent a byte that
// nobody asked for, which would be taken for the beginning of the next answer.
func (cn *conn) usable(now time.Time) bool {
	if cn.raw == nil || cn.in.Buffered() > 0 || cn.tls != nil && !cn.quiet() {
		return false
	}
	// A deadline that is over would keep the system from being asked.
	if !now.Before(cn.until) {
		cn.until = time.Time{}
		if cn.nc.SetDeadline(time.Time{}) != nil {
			return false
		}
	}
	return cn.probe.silent(cn.raw)
}

// quiet tells whether TLS has nothing that was not read: decrypted, ready to be, or a part of a record. With a deadline that
// is over it does not ask the network. It may have to write, if the server wants other keys.
func (cn *conn) quiet() bool {
	if cn.recs == nil || !cn.recs.whole() {
		return false
	}
	cn.until = past
	if cn.tls.SetReadDeadline(past) != nil {
		return false
	}
	var one [1]byte
	n, err := cn.tls.Read(one[:])
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

// close closes the connection without TLS's farewell: a server that does not read could have us wait five seconds with it.
func (cn *conn) close() { _ = cn.under.Close() }

// Answer is the body of an answer. It gives the connection back at its end. It belongs to one goroutine.
type Answer struct {
	cn   *conn
	ctx  context.Context //nolint:containedctx // of the request that the answer belongs to
	src  io.Reader
	stop func() bool // ends the watch over the context; nil if there is none
	over error       // what later reads get
}

// Read reads more of the body.
func (a *Answer) Read(p []byte) (int, error) {
	if a.over != nil {
		return 0, a.over
	}
	n, err := a.src.Read(p)
	if err != nil {
		whole := err == io.EOF //nolint:errorlint // an error that wraps io.EOF is another one
		switch {
		case whole:
		case a.ctx.Err() != nil:
			err = context.Cause(a.ctx) // which closed the connection
		case a.cn.broke != nil:
			err = a.cn.broke
		}
		a.over = err
		a.release(whole)
	}
	return n, err
}

// GiveUpAfter bounds the time for all that is left of the body.
func (a *Answer) GiveUpAfter(d time.Duration) {
	if a.over != nil {
		return
	}
	a.cn.wait, a.cn.until = 0, time.Now().Add(d)
	_ = a.cn.nc.SetDeadline(a.cn.until) // if it fails, reading does
}

// Close ends the request. An answer that was not read to its end takes its connection with it.
func (a *Answer) Close() error {
	if a.over == nil {
		a.over = http.ErrBodyReadAfterClose
		a.release(false)
	}
	return nil
}

// release gives the connection back, if the whole answer was read and nothing else.
func (a *Answer) release(whole bool) {
	unwatched := a.stop == nil || a.stop()
	if whole && unwatched && a.cn.keep && a.cn.in.Buffered() == 0 {
		a.cn.client.idle.put(a.cn)
		return
	}
	a.cn.close()
}
