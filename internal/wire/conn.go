package wire

import (
	"bufio"
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
	raw    syscall.RawConn // nil where there is none
	in     *bufio.Reader
	client *Client

	reused bool
	heard  bool          // a byte of this request's answer
	left   int64         // how many bytes may be read
	wait   time.Duration // for the next byte; 0 means that a deadline is set already
	until  time.Time     // the deadline that is set
	idleAt time.Time     // since when
	probe  probe
	hangUp func() // close, made once
}

func newConn(c *Client, nc net.Conn) *conn {
	cn := &conn{nc: nc, client: c}
	cn.in = bufio.NewReaderSize(cn, bufferSize)
	cn.hangUp = cn.close
	under := nc
	if secure, ok := nc.(*tls.Conn); ok {
		cn.tls = secure
		under = secure.NetConn()
	}
	if s, ok := under.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			cn.raw = raw
			cn.probe.init()
		}
	}
	return cn
}

// Read reads from the network, within the bounds that hold now. It is for the buffer.
func (cn *conn) Read(p []byte) (int, error) {
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
	a := &Answer{cn: cn}
	if ctx.Done() != nil {
		a.stop = context.AfterFunc(ctx, cn.hangUp)
	}
	resp, err := cn.exchange(request, deadline)
	if err != nil {
		a.release(false)
		return nil, err
	}
	cn.left, cn.wait = math.MaxInt64, cn.client.BodyTimeout
	a.keep = !resp.Close
	if resp.Body == http.NoBody {
		a.release(true)
		return resp, nil
	}
	a.src = resp.Body
	resp.Body = a
	return resp, nil
}

func (cn *conn) exchange(request []byte, deadline time.Time) (*http.Response, error) {
	cn.heard, cn.left, cn.wait = false, cn.client.MaxHeader, 0
	if err := cn.allow(deadline, cn.client.HeaderTimeout); err != nil {
		return nil, err
	}
	if _, err := cn.nc.Write(request); err != nil {
		return nil, err //nolint:wrapcheck // as above
	}
	for range maxInterim + 1 {
		resp, err := http.ReadResponse(cn.in, nil)
		switch {
		case err != nil:
			return nil, err //nolint:wrapcheck // as above
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, errSwitch
		case resp.StatusCode >= http.StatusOK:
			return resp, nil
		}
	}
	return nil, errInterim
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

// stale tells whether the error is that of a connection which the server had closed before it saw the request.
func (cn *conn) stale(err error) bool {
	return cn.reused && !cn.heard && !errors.Is(err, os.ErrDeadlineExceeded)
}

// usable tells whether the connection can take another request: the server has neither closed it nor sent a byte that
// nobody asked for, which would be taken for the beginning of the next answer.
func (cn *conn) usable(now time.Time) bool {
	if cn.in.Buffered() > 0 || cn.tls != nil && !cn.quiet() {
		return false
	}
	// A deadline that is over would keep the system from being asked.
	if !now.Before(cn.until) {
		cn.until = time.Time{}
		if cn.nc.SetDeadline(time.Time{}) != nil {
			return false
		}
	}
	return cn.raw == nil || cn.probe.silent(cn.raw)
}

// quiet tells whether TLS has nothing decrypted, or ready to be, that was not read. With a deadline that is over it does
// not ask the network.
func (cn *conn) quiet() bool {
	cn.until = past
	if cn.tls.SetDeadline(past) != nil {
		return false
	}
	var one [1]byte
	n, err := cn.tls.Read(one[:])
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

func (cn *conn) close() { _ = cn.nc.Close() }

// Answer is the body of an answer. It gives the connection back at its end. It belongs to one goroutine.
type Answer struct {
	cn   *conn
	src  io.Reader
	stop func() bool // ends the watch over the context; nil if there is none
	keep bool        // the server keeps the connection
	over error       // what later reads get
}

// Read reads more of the body.
func (a *Answer) Read(p []byte) (int, error) {
	if a.over != nil {
		return 0, a.over
	}
	n, err := a.src.Read(p)
	if err != nil {
		a.over = err
		a.release(err == io.EOF) //nolint:errorlint // an error that wraps io.EOF is another one
	}
	return n, err //nolint:wrapcheck // the caller says what it was doing
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
	if whole && unwatched && a.keep && a.cn.in.Buffered() == 0 {
		a.cn.client.idle.put(a.cn)
		return
	}
	a.cn.close()
}
