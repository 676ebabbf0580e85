package caddytinybird

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// way is what lies between the edge and Tinybird. Connections go through, unless the test says what happens instead.
type way struct {
	addr, to string

	mu   sync.Mutex
	ln   net.Listener
	play func(c *net.TCPConn, r *http.Request) // nil: through
	open map[net.Conn]bool                     // of the edge
	wg   sync.WaitGroup
}

func newWay(t testing.TB, to string) *way {
	t.Helper()
	w := &way{addr: "127.0.0.1:0", to: strings.TrimPrefix(to, "http://"), open: map[net.Conn]bool{}}
	w.listen(t)
	t.Cleanup(func() {
		w.refuse()
		w.instead(nil)
		w.wg.Wait()
	})
	return w
}

// listen has connections accepted, for the first time or again.
func (w *way) listen(t testing.TB) {
	t.Helper()
	ln, err := net.Listen("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ln, w.addr = ln, ln.Addr().String()
	w.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			w.mu.Lock()
			w.open[c] = true
			play := w.play
			w.mu.Unlock()
			w.wg.Go(func() { w.serve(c, play) })
		}
	})
}

// refuse ends the listening and all connections.
func (w *way) refuse() {
	w.mu.Lock()
	_ = w.ln.Close()
	w.mu.Unlock()
	w.instead(nil)
}

// instead says what happens to each request from now on. The connections that there are end.
func (w *way) instead(play func(c *net.TCPConn, r *http.Request)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.play = play
	for c := range w.open {
		_ = c.Close()
	}
}

func (w *way) serve(c net.Conn, play func(c *net.TCPConn, r *http.Request)) {
	defer func() {
		_ = c.Close()
		w.mu.Lock()
		delete(w.open, c)
		w.mu.Unlock()
	}()
	if play != nil {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		if tcp, ok := c.(*net.TCPConn); ok {
			play(tcp, r)
		}
		return
	}
	up, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	defer up.Close()
	w.wg.Go(func() {
		_, _ = io.Copy(up, c)
		_ = up.Close()
	})
	_, _ = io.Copy(c, up)
}

// awaitNone waits until the edge has closed all its connections.
func (w *way) awaitNone(t testing.TB) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for {
		w.mu.Lock()
		n := len(w.open)
		w.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%d connections to Tinybird are still open", n)
		}
	}
}

// says plays an answer and ends the connection.
func says(text string) func(*net.TCPConn, *http.Request) {
	return func(c *net.TCPConn, _ *http.Request) { _, _ = io.WriteString(c, text) }
}

// hangs plays a part of an answer, and then nothing until the edge has had enough.
func hangs(text string) func(*net.TCPConn, *http.Request) {
	return func(c *net.TCPConn, _ *http.Request) {
		_, _ = io.WriteString(c, text)
		_, _ = io.Copy(io.Discard, c)
	}
}

// resets plays a part of an answer, and then breaks the connection.
func resets(text string) func(*net.TCPConn, *http.Request) {
	return func(c *net.TCPConn, _ *http.Request) {
		_, _ = io.WriteString(c, text)
		_ = c.SetLinger(0)
	}
}

// repeats plays the beginning of an answer that has no end, until the edge has had enough.
func repeats(first, again string, pause time.Duration) func(*net.TCPConn, *http.Request) {
	return func(c *net.TCPConn, _ *http.Request) {
		_, err := io.WriteString(c, first)
		tick := time.NewTicker(max(pause, 1))
		defer tick.Stop()
		for err == nil {
			if pause > 0 {
				<-tick.C
			}
			_, err = io.WriteString(c, again)
		}
	}
}
