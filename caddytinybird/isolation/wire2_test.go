package isolation_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestIsolationHTTP2 is TestIsolationHTTP1 with frames: requests of several people on the streams of one connection, with fields
// and frames that no client would send. ISOLATION_WIRE2 is how many connections there are.
func TestIsolationHTTP2(t *testing.T) { //nolint:paralleltest // a process has one config of Caddy's
	attack(t, "HTTP/2", count(t, "ISOLATION_WIRE2", 480), 2, hostile2)
}

// stream is one request of a connection.
type stream struct {
	id   uint32
	mark string
	body bytes.Buffer
	done bool
}

func hostile2(w *traffic, r *rand.Rand) (answers int, err error) {
	a := &asker{r, w.s, w.g}
	list, ids := w.questions(a, 1+r.IntN(4))
	var out bytes.Buffer
	out.WriteString(http2.ClientPreface)
	f := http2.NewFramer(&out, nil)
	f.AllowIllegalWrites = true
	_ = f.WriteSettings()
	streams := make(map[uint32]*stream)
	odd := chance(r, 60)
	for n, q := range list {
		s := &stream{id: uint32(2*n + 1), mark: ids[n]}
		streams[s.id] = s
		a.frames(f, s.id, q, odd)
		if odd && chance(r, 25) {
			a.oddFrame(f, s.id)
		}
	}
	raw := out.Bytes()
	spoiled := odd && chance(r, 40)
	if spoiled {
		at := len(http2.ClientPreface)
		raw = append(bytes.Clone(raw[:at]), a.mutate(raw[at:])...)
		var plain []byte // in frames the fields are packed
		for _, q := range list {
			plain = append(plain, q.write()...)
		}
		w.blur(plain, ids)
	}
	conn, err := w.dial()
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	_, _ = conn.Write(raw)
	if odd {
		// Some of these streams never end. On a slow machine this loses answers, and no more.
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	}
	in := http2.NewFramer(conn, conn)
	for open := len(streams); open > 0; {
		frame, err := in.ReadFrame()
		if err != nil {
			break // the connection has ended, or is waiting for a rest
		}
		s := streams[frame.Header().StreamID]
		if settings, ok := frame.(*http2.SettingsFrame); ok && !settings.IsAck() {
			_ = in.WriteSettingsAck()
		}
		if s == nil {
			continue
		}
		if data, ok := frame.(*http2.DataFrame); ok {
			s.body.Write(data.Data())
		}
		_, reset := frame.(*http2.RSTStreamFrame)
		if kind := frame.Header().Type; !s.done && (reset || (kind == http2.FrameData || kind == http2.FrameHeaders) && frame.Header().Flags.Has(http2.FlagDataEndStream)) {
			s.done = true
			open--
		}
	}
	for _, s := range streams {
		if s.body.Len() > 0 || s.done {
			answers++
		}
		sent := []string{s.mark}
		if spoiled {
			sent = ids // a number may have changed
		}
		if err := w.cameBack(s.body.Bytes(), sent); err != nil {
			return answers, fmt.Errorf("stream %d: %w\nsent: %q", s.id, err, raw)
		}
	}
	return answers, nil
}

// frames writes a request, oddly or as a client does.
func (a *asker) frames(f *http2.Framer, id uint32, q *question, odd bool) {
	fields := [][2]string{{":method", q.method}, {":scheme", "http"}, {":authority", q.site.host}, {":path", q.target}}
	for _, h := range q.header {
		name := strings.ToLower(h[0])
		if name == "cookie" && chance(a.Rand, 30) {
			for crumb := range strings.SplitSeq(h[1], "; ") {
				fields = append(fields, [2]string{name, crumb})
			}
			continue
		}
		fields = append(fields, [2]string{name, h[1]})
	}
	if chance(a.Rand, 50) {
		fields = append(fields, [2]string{"content-length", fmt.Sprint(len(q.body))})
	}
	if odd && chance(a.Rand, 50) {
		fields = a.oddFields(fields)
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, field := range fields {
		_ = enc.WriteField(hpack.HeaderField{Name: field[0], Value: field[1], Sensitive: chance(a.Rand, 50)})
	}
	// A block may come in pieces.
	pieces := [][]byte{block.Bytes()}
	if chance(a.Rand, 20) {
		at := a.IntN(block.Len())
		pieces = [][]byte{block.Bytes()[:at], block.Bytes()[at:]}
	}
	trailer := odd && chance(a.Rand, 15)
	endStream := len(q.body) == 0 && !trailer
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: pieces[0], EndStream: endStream, EndHeaders: len(pieces) == 1})
	if len(pieces) == 2 {
		if odd && chance(a.Rand, 10) {
			a.oddFrame(f, id)
		}
		_ = f.WriteContinuation(id, true, pieces[1])
	}
	for rest := q.body; len(rest) > 0; {
		n := min(len(rest), 1+a.IntN(len(rest)))
		_ = f.WriteData(id, len(rest) == n && !trailer, rest[:n])
		rest = rest[n:]
	}
	if trailer {
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		_ = enc.WriteField(hpack.HeaderField{Name: pick(a.Rand, []string{"authorization", "cookie", ":path", "x", "content-length"}), Value: "Bearer " + pick(a.Rand, a.s.people).token})
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
	}
}

// oddFields adds, doubles, moves or spoils fields.
func (a *asker) oddFields(fields [][2]string) [][2]string {
	at := a.IntN(len(fields))
	switch a.IntN(8) {
	case 0:
		return append(fields, pick(a.Rand, [][2]string{
			{"connection", "authorization"},
			{"transfer-encoding", "chunked"},
			{"te", "gzip"},
			{"upgrade", "h2c"},
			{"host", "other.test"},
			{"keep-alive", "x"},
			{"proxy-connection", "x"},
			{"expect", "100-continue"},
			{":path", "/v0/sql"},
			{":authority", "other.test"},
			{":method", "POST"},
			{":protocol", "websocket"},
			{":status", "200"},
			{":x", "y"},
			{"", "x"},
			{"content-length", "3"},
			{"content-length", "-1"},
		}))
	case 1:
		return append(fields, fields[at])
	case 2:
		fields[at][0] = strings.ToUpper(fields[at][0])
	case 3:
		fields[at][0] += pick(a.Rand, []string{" ", ":", "\r\n", "\x00", "_"})
	case 4:
		fields[at][1] += pick(a.Rand, []string{"\r\nx: y", "\x00", "\n", " ", "\t", ",", " HTTP/1.1\r\nHost: x"})
	case 5:
		return append(fields[:at:at], fields[at+1:]...)
	case 6:
		other := a.IntN(len(fields))
		fields[at], fields[other] = fields[other], fields[at]
	default:
		return append([][2]string{{"x", "y"}}, fields...)
	}
	return fields
}

// oddFrame writes a frame that has no place here, or does something to a stream.
func (a *asker) oddFrame(f *http2.Framer, id uint32) {
	switch a.IntN(11) {
	case 0:
		_ = f.WriteRSTStream(id, http2.ErrCodeCancel)
	case 1:
		_ = f.WritePriority(id, http2.PriorityParam{StreamDep: id})
	case 2:
		_ = f.WriteWindowUpdate(id, uint32(a.IntN(2)))
	case 3:
		_ = f.WriteRawFrame(http2.FrameType(0x20+a.IntN(200)), http2.Flags(a.IntN(256)), id, []byte("x"))
	case 4:
		_ = f.WriteData(id, true, []byte(`{"organization_id":"org_B"}`))
	case 5:
		_ = f.WriteData(uint32(a.IntN(12)), a.IntN(2) == 0, []byte("x"))
	case 6:
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(a.IntN(100))})
	case 7:
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: uint32(a.IntN(2))}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 16384})
	case 8:
		_ = f.WritePing(false, [8]byte{})
	case 9:
		_ = f.WriteContinuation(id, true, []byte{0x82})
	default:
		_ = f.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, id, []byte{200, 'x'})
	}
}
