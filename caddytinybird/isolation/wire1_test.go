package isolation_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestIsolationHTTP1: whatever bytes come over a connection to Caddy's own listener, pipelined, smuggled or broken, they are answered
// with the rows of those who sent them, and requests on other connections are answered rightly meanwhile. ISOLATION_WIRE is how many
// connections there are.
func TestIsolationHTTP1(t *testing.T) { //nolint:paralleltest // a process has one config of Caddy's
	attack(t, "HTTP/1.1", count(t, "ISOLATION_WIRE", 480), 1, hostile1)
}

const lastRequest = "GET /last HTTP/1.1\r\nHost: last.test\r\nConnection: close\r\n\r\n"

func hostile1(w *traffic, r *rand.Rand) (answers int, err error) {
	a := &asker{r, w.s, w.g}
	list, ids := w.questions(a, 1+r.IntN(3))
	var raw []byte
	spoiled := chance(r, 70)
	for n, q := range list {
		one := q.write()
		if spoiled && chance(r, 50) {
			one = a.mutate(one)
		}
		if spoiled && chance(r, 50) {
			one = a.smuggle(one, list[r.IntN(len(list))].write())
		}
		if spoiled && n > 0 && chance(r, 5) {
			raw = append(raw, pick(r, []string{"\r\n", "\n", "\x00", "0\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"})...)
		}
		raw = append(raw, one...)
	}
	if spoiled {
		w.blur(raw, ids)
	}
	raw = append(raw, lastRequest...)
	conn, err := w.dial()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if chance(r, 20) { // in two packets
		at := r.IntN(len(raw))
		_, _ = conn.Write(raw[:at])
		_, _ = conn.Write(raw[at:])
	} else {
		_, _ = conn.Write(raw)
	}
	if spoiled {
		// What is still waited for after a while is a rest of a body that never comes. On a slow machine this loses answers, and no more.
		end := time.AfterFunc(60*time.Millisecond, func() { _ = conn.(*net.TCPConn).CloseWrite() })
		defer end.Stop()
	}
	in := bufio.NewReader(conn)
	for {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return answers, nil // the connection has ended, in one way or another
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		answers++
		if err := w.cameBack(body, ids); err != nil {
			return answers, fmt.Errorf("%w\nsent: %q", err, raw)
		}
	}
}

// smuggle spoils where a request ends, or hides another in it.
func (a *asker) smuggle(one, other []byte) []byte {
	head, body, _ := bytes.Cut(one, []byte("\r\n\r\n"))
	line := func(text string) []byte { return []byte(string(head) + "\r\n" + text + "\r\n\r\n" + string(body)) }
	length := func(n int, rest []byte) []byte {
		return []byte(fmt.Sprintf("%s\r\nContent-Length: %d\r\n\r\n%s", head, n, rest))
	}
	switch a.IntN(16) {
	case 0: // a request in a body
		return length(len(other), other)
	case 1: // a body that is longer, or shorter, than it says
		return length(max(0, len(other)-1-a.IntN(20)), other)
	case 2:
		return length(len(body)+a.IntN(40), body)
	case 3:
		return line("Transfer-Encoding: " + pick(a.Rand, []string{"chunked", "xchunked", "chunked, identity", "identity", "\tchunked", "chunked\t", "gzip, chunked", "Chunked", `"chunked"`, "chunked;q=1", "\x0bchunked"}))
	case 4:
		return []byte(fmt.Sprintf("%s\r\nTransfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n%s", head, 5+a.IntN(len(other)), other))
	case 5:
		return []byte(fmt.Sprintf("%s\r\nTransfer-Encoding: chunked\r\n\r\n%x%s\r\n%s\r\n0\r\n\r\n", head, len(other), pick(a.Rand, []string{"", ";a=b", " ", ";\"\r\n\"", "\t;x"}), other))
	case 6:
		return []byte(fmt.Sprintf("%s\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\n%s\r\n0\r\n\r\n", head, pick(a.Rand, []string{"0x5", "-1", "+5", "5 5", "ffffffffffffffff5", "05", "5\n", "", "G"}), other))
	case 7:
		return line(pick(a.Rand, []string{"Content-Length: 0\r\nContent-Length: 5", "Content-Length: 5, 5", "Content-Length : 5", "Content-Length: +5", "Content-Length: 0x5", " Content-Length: 5", "Content_Length: 5", "Content-Length:\r\n 5", "Content-Length: 5\x00"}))
	case 8:
		return bytes.ReplaceAll(one, []byte("\r\n"), []byte("\n"))
	case 9:
		return bytes.Replace(one, []byte("\r\n"), []byte(pick(a.Rand, []string{"\r", "\n\r", "\r\n ", "\r\n\t", " \r\n", "\r\r\n", "\x0b\r\n", "\u2028"})), 1+a.IntN(3))
	case 10:
		return bytes.Replace(one, []byte("HTTP/1.1"), []byte(pick(a.Rand, []string{"HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "http/1.1", "HTTP/1.1 ", "HTTP/1.2", "", "HTTP/1.1\r\nX"})), 1)
	case 11:
		return line(pick(a.Rand, []string{"Host: other.test", "Host:", "Connection: close, Authorization", "Connection: Host", "Expect: 100-continue", "Expect: x", "X: y\r\n z", ": x", "X\x00: y", "X: \x7f", "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__"}))
	case 12: // half of one, and the whole of another
		return append(bytes.Clone(one[:a.IntN(len(one))]), other...)
	case 13:
		return append([]byte(strings.Replace(string(one), "Authorization:", pick(a.Rand, []string{"Authorization :", "Authorization\t:", "Authorization:\r\n", "authorization:", "X:y\r\n Authorization:", "Authorization:\x00"}), 1)), other...)
	case 14:
		return []byte(fmt.Sprintf("%s\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n2\r\n{}\r\n0\r\nAuthorization: Bearer %s\r\nHost: other\r\n\r\n", head, pick(a.Rand, a.s.people).token))
	default:
		return append(bytes.Clone(one), other...)
	}
}
