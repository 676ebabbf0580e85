//go:build unix

package wire

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// page is the answer to a path, which no other path has.
func page(path string) string { return strings.Repeat(path+"\n", 1+len(path)*7%97) }

// moody answers requests, now and then badly: it closes connections at all times, adds answers that nobody asked for, and stops
// in the middle.
func moody(p *peer) {
	for path := p.request(); path != ""; path = p.request() {
		body := page(path)
		switch mood := rand.IntN(100); {
		case mood < 40:
			p.send(answer(body))
		case mood < 60:
			p.send(fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body))
		case mood < 70: // in pieces
			text := answer(body)
			at := rand.IntN(len(text))
			p.send(text[:at])
			p.send(text[at:])
		case mood < 75: // not any more, without saying so
			p.send(answer(body))
			return
		case mood < 78: // not at all
			return
		case mood < 81: // not to the end
			text := answer(body)
			p.send(text[:rand.IntN(len(text))])
			return
		case mood < 85: // with what belongs to another
			p.send(answer(body) + answer(page("/poison")))
		case mood < 88: // with the beginning of it
			p.send(answer(body) + answer(page("/poison"))[:1+rand.IntN(20)])
		case mood < 91:
			p.send("HTTP/1.1 204 No Content\r\n\r\n" + answer(page("/poison")))
		case mood < 94: // after an announcement
			p.send("HTTP/1.1 103 Early Hints\r\n\r\n")
			p.send(answer(body))
		case mood < 97: // later
			<-time.After(time.Duration(rand.IntN(3000)) * time.Microsecond)
			p.send(answer(body))
		default: // abruptly
			p.send(answer(body))
			if c, ok := p.Conn.(*net.TCPConn); ok {
				_ = c.SetLinger(0)
			}
			return
		}
	}
}

// Attack: the answer of one request, of one tenant, is given to another one. Many at once, with a server that does all it can to confuse
// them, and clients that leave: each answer is that of its own request, or none.
func TestAttackSwappedAnswers(t *testing.T) {
	t.Parallel()
	eachWay(t, func(t *way) {
		const workers = 64
		each := 50
		if testing.Short() {
			each = 10
		}
		s := serveTCP(t, t.config, moody)
		c := client(t, s, t.change, func(o *Options) { o.MaxIdle = workers / 2 })
		var answered atomic.Int64
		var wg sync.WaitGroup
		for worker := range workers {
			wg.Go(func() {
				for i := range each {
					if oneOfMany(t, c, fmt.Sprintf("/%d/%d", worker, i)) {
						answered.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if got := answered.Load(); got < int64(workers*each/2) {
			t.Errorf("only %d of %d requests were answered", got, workers*each)
		}
		for _, cn := range c.idle.idle() {
			if cn.in.Buffered() > 0 {
				t.Error("an idle connection has bytes of an answer")
			}
		}
	})
}

// oneOfMany asks for a path, and tells whether it had an answer. An answer to another path is a failure.
func oneOfMany(t testing.TB, c *Client, path string) bool {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	mood := rand.IntN(10)
	if mood == 0 { // leaves at some time
		time.AfterFunc(time.Duration(rand.IntN(2000))*time.Microsecond, cancel)
	}
	resp, err := c.Do(ctx, text(path))
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	want := page(path)
	if resp.StatusCode == 204 {
		want = ""
	}
	body := new(strings.Builder)
	if mood == 1 { // does not want all of it
		_, err = io.CopyN(body, resp.Body, int64(rand.IntN(len(want)+1)))
	} else {
		_, err = io.Copy(body, resp.Body)
	}
	if !strings.HasPrefix(want, body.String()) || err == nil && mood > 1 && body.String() != want {
		t.Errorf("%s was answered with %.100q", path, body)
	}
	return err == nil
}
