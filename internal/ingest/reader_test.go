package ingest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
)

// Rows may stand in every way that clients write them, and it does not matter in what pieces they arrive.
func TestFraming(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"NDJSON":              "{\"a\":1}\n{\"b\":2}\n",
		"no last line break":  "{\"a\":1}\n{\"b\":2}",
		"CRLF":                "{\"a\":1}\r\n{\"b\":2}\r\n",
		"empty lines":         "\n\n{\"a\":1}\n\n\n{\"b\":2}\n\n",
		"concatenated":        `{"a":1}{"b":2}`,
		"concatenated, space": `{"a":1} {"b":2}`,
		"list":                `[{"a":1},{"b":2}]`,
		"list over lines":     "\n[\n  {\"a\":1}\n , \n {\"b\":2}\n]\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := `{"a":1,` + stamps + "\n" + `{"b":2,` + stamps + "\n"
			for _, r := range []io.Reader{
				strings.NewReader(body), iotest.OneByteReader(strings.NewReader(body)),
				iotest.HalfReader(strings.NewReader(body)), iotest.DataErrReader(strings.NewReader(body)),
			} {
				if up, result, refusal := run(t, r); refusal != nil || up != want || result.Successful != 2 || result.Read != 2 {
					t.Errorf("got %q, %+v, %v", up, result, refusal)
				}
			}
		})
	}
}

// rowOf is a row of so many bytes.
func rowOf(size int) string {
	return `{"a":"` + strings.Repeat("x", size-len(`{"a":""}`)) + `"}`
}

func TestRowBound(t *testing.T) {
	t.Parallel()
	if up, _, refusal := run(t, strings.NewReader(rowOf(maxRow))); refusal != nil || len(up) != maxRow+len(",\n")+len(stamps)-1 {
		t.Errorf("a row of the longest size: %d bytes, %v", len(up), refusal)
	}
	for _, body := range []string{rowOf(maxRow + 1), `{"a":` + strings.Repeat(" ", maxRow) + "1}", rowOf(3 * maxRow)} {
		up, _, refusal := run(t, strings.NewReader("{}"+body))
		if refusal == nil || refusal.Status != 413 || refusal.Code != apierr.BodyTooLarge || refusal.Rows.Row != 2 || up != "" {
			t.Errorf("%d bytes: %v", len(body), refusal)
		}
	}
}

// endless is a body that never ends, which must be refused before much of it is held.
type endless struct {
	text string
	read int
}

func (e *endless) Read(p []byte) (int, error) {
	for n := range p {
		p[n] = e.text[(e.read+n)%len(e.text)]
	}
	e.read += len(p)
	return len(p), nil
}

func TestEndlessRow(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"[", `{"a":`, `{"a`, " {\"a\":[", `"`} {
		e := &endless{text: text}
		if _, _, refusal := run(t, e); refusal == nil {
			t.Error("taken")
		}
		if e.read > 2*maxRow {
			t.Errorf("%q: %d bytes were read", text, e.read)
		}
	}
}

func pack(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func post(body io.Reader, header http.Header) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/v0/events", body)
	maps.Copy(r.Header, header)
	return r
}

func TestGzip(t *testing.T) {
	t.Parallel()
	one, two := pack(t, "{\"a\":1}\n"), pack(t, `{"b":2}`)
	damaged := bytes.Clone(one)
	damaged[len(damaged)-6] ^= 1 // the checksum
	for name, tt := range map[string]struct {
		body []byte
		rows int // 0: refused
	}{
		"one part":          {one, 1},
		"several parts":     {bytes.Join([][]byte{one, two}, nil), 2},
		"truncated":         {one[:len(one)-1], 0},
		"truncated early":   {one[:12], 0},
		"only a header":     {one[:10], 0},
		"part of a header":  {one[:5], 0},
		"nothing":           {nil, 0},
		"no gzip":           {[]byte(`{"a":1}`), 0},
		"trailing garbage":  {append(bytes.Clone(one), "and something more"...), 0},
		"trailing zeros":    {append(bytes.Clone(one), make([]byte, 512)...), 0},
		"second cut off":    {append(bytes.Clone(one), two[:len(two)-3]...), 0},
		"wrong checksum":    {damaged, 0},
		"packed twice":      {pack(t, string(one)), 0},
		"empty text inside": {pack(t, ""), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, r := range []io.Reader{bytes.NewReader(tt.body), iotest.OneByteReader(bytes.NewReader(tt.body))} {
				body, err := Open(post(r, http.Header{"Content-Encoding": {"GZip"}}), 0)
				if err != nil {
					t.Fatal(err)
				}
				up, result, refusal := run(t, body)
				switch {
				case tt.rows > 0 && (refusal != nil || result.Successful != tt.rows):
					t.Errorf("refused: %v, %+v", refusal, result)
				case tt.rows == 0 && (refusal == nil || refusal.Status != 400 || refusal.Code != apierr.BadBody || up != ""):
					t.Errorf("got %v, %q", refusal, up)
				}
			}
		})
	}
}

// A small body that unpacks to a huge one, or one that never ends and unpacks to nothing, is refused at the bound.
func TestGzipBomb(t *testing.T) {
	t.Parallel()
	const limit = 4 << 20
	var rows strings.Builder
	for rows.Len() <= limit {
		rows.WriteString("{\"a\":1}\n")
	}
	spaces := pack(t, strings.Repeat(" ", 64<<20))
	for name, packed := range map[string]io.Reader{
		"white space":        bytes.NewReader(spaces),
		"rows":               bytes.NewReader(pack(t, rows.String())),
		"endless and empty":  &endless{text: string(pack(t, ""))},
		"endless, and small": &endless{text: string(pack(t, " "))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := post(packed, http.Header{"Content-Encoding": {"gzip"}})
			r.ContentLength = -1
			body, err := Open(r, limit)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, refusal := run(t, body); refusal == nil || refusal.Status != 413 || refusal.Code != apierr.BodyTooLarge {
				t.Errorf("got %v", refusal)
			}
			if e, ok := packed.(*endless); ok && e.read > 2*limit {
				t.Errorf("%d bytes were read", e.read)
			}
		})
	}
}

// Ten megabytes are taken, one byte more is not, whether the length is told or not.
func TestBodyBound(t *testing.T) {
	t.Parallel()
	row := rowOf(1<<10 - 1)
	exact := strings.Repeat(row+"\n", DefaultMaxBody>>10)
	for name, tt := range map[string]struct {
		body  string
		told  bool
		taken bool
	}{
		"exactly":                 {exact, true, true},
		"exactly, not told":       {exact, false, true},
		"a byte more":             {exact + " ", true, false},
		"a byte more, not told":   {exact + " ", false, false},
		"a row too many":          {exact + row, true, false},
		"a row too many not told": {exact + row, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := post(strings.NewReader(tt.body), nil)
			if !tt.told {
				r.ContentLength = -1
			}
			body, err := Open(r, 0)
			var up sent
			var result Result
			if err == nil {
				result, err = grant(t).Send(body, up.send)
			}
			if tt.taken {
				if err != nil || result.Successful != DefaultMaxBody>>10 || len(up.batches) < 10 {
					t.Errorf("%v, %+v, %d batches", err, result, len(up.batches))
				}
				return
			}
			refusal, ok := errors.AsType[*apierr.Error](err)
			if !ok || refusal.Status != 413 || refusal.Code != apierr.BodyTooLarge {
				t.Fatalf("got %v", err)
			}
			if tt.told != (refusal.Rows == nil) {
				t.Errorf("what is refused anyway was read: %+v", refusal.Rows)
			}
			if !tt.told && (refusal.Rows.Successful != strings.Count(up.all(), "\n") || refusal.Rows.Successful == 0) {
				t.Errorf("%+v, but %d rows went up", refusal.Rows, strings.Count(up.all(), "\n"))
			}
		})
	}
}

func TestBodyTypes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		contentType, encoding []string
		taken                 bool
	}{
		{nil, nil, true},
		{[]string{"application/json"}, nil, true},
		{[]string{"application/x-ndjson"}, []string{"identity"}, true},
		{[]string{"text/plain;charset=UTF-8"}, nil, true},
		{[]string{"Application/JSON; charset=utf-8"}, []string{""}, true},
		{[]string{"application/json; charset=utf-16"}, nil, false},
		{[]string{"application/json; charset=latin1"}, nil, false},
		{[]string{"application/json; charset="}, nil, false},
		{[]string{"application/x-www-form-urlencoded"}, nil, false},
		{[]string{"multipart/form-data; boundary=x"}, nil, false},
		{[]string{"application/json", "text/plain"}, nil, false},
		{[]string{""}, nil, false},
		{[]string{"application/json"}, []string{"deflate"}, false},
		{[]string{"application/json"}, []string{"br"}, false},
		{[]string{"application/json"}, []string{"zstd"}, false},
		{[]string{"application/json"}, []string{"gzip, gzip"}, false},
		{[]string{"application/json"}, []string{"gzip", "gzip"}, false},
		{[]string{"application/json"}, []string{"identity", "gzip"}, false},
	} {
		h := http.Header{"Content-Type": tt.contentType, "Content-Encoding": tt.encoding}
		_, err := Open(post(strings.NewReader(`{}`), h), 0)
		if refusal, _ := errors.AsType[*apierr.Error](err); tt.taken != (err == nil) || err != nil && refusal.Status != 415 {
			t.Errorf("%v: %v", h, err)
		}
	}
}

// A client that breaks off in the middle has not sent its last rows.
func TestBrokenBody(t *testing.T) {
	t.Parallel()
	for _, cause := range []error{io.ErrUnexpectedEOF, errors.New("connection reset"), fmt.Errorf("lost: %w", io.EOF), &http.MaxBytesError{Limit: 5}} {
		up, _, refusal := run(t, io.MultiReader(strings.NewReader("{\"a\":1}\n"), iotest.ErrReader(cause)))
		status := 400
		if _, ok := errors.AsType[*http.MaxBytesError](cause); ok {
			status = 413
		}
		if refusal == nil || refusal.Status != status || up != "" {
			t.Errorf("%v: %v, %q", cause, refusal, up)
		}
		_, _, refusal = run(t, io.MultiReader(strings.NewReader(`{"a":`), iotest.ErrReader(cause)))
		if refusal == nil || refusal.Status != status {
			t.Errorf("%v within a row: %v", cause, refusal)
		}
	}
}

// Batches are below a megabyte, whole rows, and all of them.
func TestBatches(t *testing.T) {
	t.Parallel()
	var body strings.Builder
	const rows = 30_000
	for n := range rows {
		fmt.Fprintf(&body, "{\"n\":%d,\"text\":%q}\n", n, strings.Repeat("x", n%150))
	}
	var up sent
	result, err := grant(t).Send(strings.NewReader(body.String()), up.send)
	if err != nil || result.Successful != rows || result.Read != rows || result.Status != 202 {
		t.Fatalf("%+v, %v", result, err)
	}
	if len(up.batches) < 3 {
		t.Fatalf("%d batches", len(up.batches))
	}
	for n, b := range up.batches {
		if len(b) > maxBatch || cap(b) > maxBatch*5/4 || b[len(b)-1] != '\n' || b[0] != '{' {
			t.Errorf("batch %d: %d of %d bytes", n, len(b), cap(b))
		}
	}
	for n, line := range lines(up.all()) {
		if !strings.HasPrefix(line, fmt.Sprintf(`{"n":%d,`, n)) || !strings.HasSuffix(line, stamps) {
			t.Fatalf("row %d is %s", n+1, line)
		}
	}
}

// What became of rows is told, whatever fails at whichever batch.
func TestAccounting(t *testing.T) {
	t.Parallel()
	row := rowOf(500_000) // two to a batch
	body := strings.Repeat(row, 10)
	for name, tt := range map[string]struct {
		fate   forward.Fate
		status int
		at     int // batch
		body   string
		want   int // status
		rows   apierr.Rows
		text   string
	}{
		"429 at once":             {forward.FateRefused, 429, 1, body, 429, apierr.Rows{Row: 1}, ""},
		"429 at the third":        {forward.FateRefused, 429, 3, body, 409, apierr.Rows{Row: 5, Successful: 4}, "from row 5 on again"},
		"400 at the third":        {forward.FateRefused, 400, 3, body, 400, apierr.Rows{Row: 5, Successful: 4}, "Rows taken before: 4."},
		"403 at the third":        {forward.FateRefused, 403, 3, body, 403, apierr.Rows{Row: 5, Successful: 4}, "Rows taken before: 4."},
		"500 at once":             {forward.FateUnknown, 502, 1, body, 502, apierr.Rows{Row: 1, Unknown: 2}, "is not known"},
		"500 at the third":        {forward.FateUnknown, 502, 3, body, 409, apierr.Rows{Row: 5, Successful: 4, Unknown: 2}, "Whether the 2 rows from row 5"},
		"timeout at the last":     {forward.FateUnknown, 504, 5, body, 409, apierr.Rows{Row: 9, Successful: 8, Unknown: 2}, "Whether the 2 rows from row 9"},
		"unreadable at once":      {forward.FateTaken, 502, 1, body, 409, apierr.Rows{Row: 1, Unknown: 2}, "is not known"},
		"no connection at once":   {forward.FateRefused, 502, 1, body, 502, apierr.Rows{Row: 1}, ""},
		"no connection at second": {forward.FateRefused, 502, 2, body, 409, apierr.Rows{Row: 3, Successful: 2}, "from row 3 on again"},
		"a bad row later":         {0, 0, 0, body + "7", 400, apierr.Rows{Row: 11, Successful: 8}, "Rows taken before: 8."},
		"a bad row early":         {0, 0, 0, row + "7" + body, 400, apierr.Rows{Row: 2}, "Row 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			up := sent{fail: func(n int) (forward.Receipt, error) {
				if n != tt.at {
					return forward.Receipt{}, nil
				}
				return forward.Receipt{Fate: tt.fate}, apierr.New(tt.status, "x", "X.").With("Retry-After", "3")
			}}
			result, err := grant(t).Send(strings.NewReader(tt.body), up.send)
			refusal, ok := errors.AsType[*apierr.Error](err)
			if !ok || refusal.Status != tt.want || *refusal.Rows != tt.rows || !strings.Contains(refusal.Message, tt.text) {
				t.Fatalf("%+v, %+v", refusal, refusal.Rows)
			}
			if tt.want == 409 && (refusal.Code != apierr.EventsIncomplete || refusal.Header.Get("Retry-After") != "3") {
				t.Errorf("%+v", refusal)
			}
			if result.Successful != tt.rows.Successful || result.Unknown != tt.rows.Unknown || tt.at > 0 && len(up.batches) != tt.at {
				t.Errorf("%+v, %d batches", result, len(up.batches))
			}
			if result.Read != result.Successful+result.Quarantined+result.Unknown+result.Refused() {
				t.Errorf("rows are lost: %+v", result)
			}
		})
	}
}
