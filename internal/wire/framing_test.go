//go:build unix

package wire

import (
	"strconv"
	"strings"
	"testing"
)

const (
	ok      = "HTTP/1.1 200 OK\r\n"
	early   = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
	chunked = ok + "Transfer-Encoding: chunked\r\n\r\n"
	broken  = "\x00broken" // in place of a body: it breaks off
)

// headerOf returns an answer whose header has exactly n bytes.
func headerOf(n int) string {
	const around = ok + "Content-Length: 1\r\nX: \r\n\r\n"
	return ok + "Content-Length: 1\r\nX: " + strings.Repeat("x", n-len(around)) + "\r\n\r\n"
}

// framings are the ways in which servers, and attackers, frame an answer. Those that net/http would refuse have the status 0.
var framings = map[string]struct {
	bytes  string
	status int
	body   string
	kept   bool
}{
	"a length":                            {answer("rows"), 200, "rows", true},
	"no bytes":                            {answer(""), 200, "", true},
	"a length too short":                  {ok + "Content-Length: 2\r\n\r\nrows", 200, "ro", false},
	"a length too long":                   {ok + "Content-Length: 9\r\n\r\nrows", 200, broken, false},
	"a length and nothing, as after HEAD": {ok + "Content-Length: 4\r\n\r\n", 200, broken, false},
	"until the connection ends":           {ok + "\r\nrows", 200, "rows", false},
	"one length twice":                    {ok + "Content-Length: 4\r\nContent-Length: 4\r\n\r\nrows", 200, "rows", true},
	"two lengths":                         {ok + "Content-Length: 4\r\nContent-Length: 2\r\n\r\nrows", 0, "", false},
	"a list of lengths":                   {ok + "Content-Length: 4, 4\r\n\r\nrows", 0, "", false},
	"a negative length":                   {ok + "Content-Length: -4\r\n\r\nrows", 0, "", false},
	"a length with a sign":                {ok + "Content-Length: +4\r\n\r\nrows", 0, "", false},
	"a hexadecimal length":                {ok + "Content-Length: 0x4\r\n\r\nrows", 0, "", false},
	"an empty length":                     {ok + "Content-Length: \r\n\r\nrows", 0, "", false},
	"a length beyond all":                 {ok + "Content-Length: 9223372036854775808\r\n\r\nrows", 0, "", false},
	"a length with spaces":                {ok + "Content-Length:   4  \r\n\r\nrows", 200, "rows", true},

	"chunks":                       {chunked + "4\r\nrows\r\n0\r\n\r\n", 200, "rows", true},
	"chunks in capitals":           {ok + "Transfer-Encoding: Chunked\r\n\r\n4\r\nrows\r\n0\r\n\r\n", 200, "rows", true},
	"chunks with extensions":       {chunked + "4;a=b;c\r\nrows\r\n0;d\r\n\r\n", 200, "rows", true},
	"chunks with trailers":         {chunked + "4\r\nrows\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n", 200, "rows", true},
	"announced trailers":           {ok + "Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nrows\r\n0\r\nX-Sum: 1\r\n\r\n", 200, "rows", true},
	"a forbidden trailer":          {ok + "Trailer: Content-Length\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nrows\r\n0\r\n\r\n", 0, "", false},
	"trailers without an end":      {chunked + "4\r\nrows\r\n0\r\nX-Sum: 1\r\n", 200, broken, false},
	"long trailers":                {chunked + "4\r\nrows\r\n0\r\nX: " + strings.Repeat("x", 2*bufferSize) + "\r\n\r\n", 200, broken, false},
	"no last chunk":                {chunked + "4\r\nrows\r\n", 200, broken, false},
	"a chunk too short":            {chunked + "9\r\nrows\r\n0\r\n\r\n", 200, broken, false},
	"a chunk too long":             {chunked + "2\r\nrows\r\n0\r\n\r\n", 200, broken, false},
	"a chunk without a size":       {chunked + "\r\nrows\r\n0\r\n\r\n", 200, broken, false},
	"a chunk of a negative size":   {chunked + "-4\r\nrows\r\n0\r\n\r\n", 200, broken, false},
	"a chunk of no hex size":       {chunked + "4g\r\nrows\r\n0\r\n\r\n", 200, broken, false},
	"a chunk of a size with 0x":    {chunked + "0x4\r\nrows\r\n0\r\n\r\n", 200, broken, false},
	"a chunk beyond all":           {chunked + "fffffffffffffffff\r\nrows\r\n0\r\n\r\n", 200, broken, false},
	"a size that ends with LF":     {chunked + "4\nrows\r\n0\r\n\r\n", 200, broken, false},
	"a chunk that ends with LF":    {chunked + "4\r\nrows\n0\r\n\r\n", 200, broken, false},
	"a CR within an extension":     {chunked + "4;\ra\r\nrows\r\n0\r\n\r\n", 200, broken, false},
	"chunks with a length":         {ok + "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nrows\r\n0\r\n\r\n", 200, "rows", true},
	"chunks with a length after":   {ok + "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n4\r\nrows\r\n0\r\n\r\n", 200, "rows", true},
	"chunks with two lengths":      {ok + "Content-Length: 2\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nrows\r\n0\r\n\r\n", 0, "", false},
	"chunks twice":                 {ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nrows\r\n0\r\n\r\n", 0, "", false},
	"chunks and more":              {ok + "Transfer-Encoding: gzip, chunked\r\n\r\n4\r\nrows\r\n0\r\n\r\n", 0, "", false},
	"another encoding":             {ok + "Transfer-Encoding: identity\r\nContent-Length: 4\r\n\r\nrows", 0, "", false},
	"chunks behind a tab":          {ok + "Transfer-Encoding:\tchunked\r\n\r\n4\r\nrows\r\n0\r\n\r\n", 200, "rows", true},
	"chunks behind a vertical tab": {ok + "Transfer-Encoding: \x0bchunked\r\n\r\n4\r\nrows\r\n0\r\n\r\n", 0, "", false},
	"a space before the colon":     {ok + "Transfer-Encoding : chunked\r\nContent-Length: 4\r\n\r\nrows", 200, "rows", true},
	"an encoding in a folded line": {ok + "X: a\r\n Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\nrows", 200, "rows", true},
	"a folded encoding":            {ok + "Transfer-Encoding:\r\n chunked\r\n\r\n4\r\nrows\r\n0\r\n\r\n", 200, "rows", true},
	"lines that end with LF":       {"HTTP/1.1 200 OK\nContent-Length: 4\n\nrows", 200, "rows", true},
	"a line that ends with CR":     {ok + "X: a\rContent-Length: 4\r\n\r\nrows", 0, "", false},
	"NUL in a value":               {ok + "X: a\x00b\r\nContent-Length: 4\r\n\r\nrows", 0, "", false},
	"NUL in a name":                {ok + "X\x00: a\r\nContent-Length: 4\r\n\r\nrows", 0, "", false},
	"no colon":                     {ok + "X\r\nContent-Length: 4\r\n\r\nrows", 0, "", false},
	"no name":                      {ok + ": a\r\nContent-Length: 4\r\n\r\nrows", 0, "", false},
	"a space first":                {ok + " X: a\r\nContent-Length: 4\r\n\r\nrows", 0, "", false},
	"no end of the header":         {ok + "Content-Length: 4\r\n", 0, "", false},

	"a header of the largest size":   {headerOf(fuzzMaxHeader) + "r", 200, "r", true},
	"a header that is larger by one": {headerOf(fuzzMaxHeader+1) + "r", 0, "", false},
	"a header that never ends":       {ok + "X: " + strings.Repeat("x", 2*fuzzMaxHeader), 0, "", false},
	"many fields":                    {ok + strings.Repeat("X: a\r\n", fuzzMaxHeader/6) + "Content-Length: 1\r\n\r\nr", 0, "", false},

	"an announcement":                   {early + answer("rows"), 200, "rows", true},
	"continue":                          {"HTTP/1.1 100 Continue\r\n\r\n" + answer("rows"), 200, "rows", true},
	"as many announcements as allowed":  {strings.Repeat(early, maxInterim) + answer("rows"), 200, "rows", true},
	"a flood of announcements":          {strings.Repeat(early, maxInterim+1) + answer("rows"), 0, "", false},
	"only announcements":                {early + early, 0, "", false},
	"an announcement with a length":     {"HTTP/1.1 103 Early Hints\r\nContent-Length: 4\r\n\r\n" + answer("rows"), 200, "rows", false},
	"an announcement with chunks":       {"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n" + answer("rows"), 200, "rows", false},
	"an announcement that says goodbye": {"HTTP/1.1 103 Early Hints\r\nConnection: close\r\n\r\n" + answer("rows"), 200, "rows", false},
	"another protocol":                  {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + answer("rows"), 0, "", false},

	"HTTP/1.0":                        {"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nrows", 200, "rows", false},
	"HTTP/1.0 that keeps":             {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nrows", 200, "rows", false},
	"HTTP/1.0 with chunks":            {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\nrows", 200, "rows", false},
	"HTTP/1.0 until it ends":          {"HTTP/1.0 200 OK\r\n\r\nrows", 200, "rows", false},
	"HTTP/0.9":                        {"rows", 0, "", false},
	"HTTP/2.0 as text":                {"HTTP/2.0 200 OK\r\nContent-Length: 4\r\n\r\nrows", 200, "rows", false},
	"HTTP/1.2":                        {"HTTP/1.2 200 OK\r\nContent-Length: 4\r\n\r\nrows", 200, "rows", false},
	"goodbye":                         {ok + "Connection: close\r\nContent-Length: 4\r\n\r\nrows", 200, "rows", false},
	"goodbye in a list":               {ok + "Connection: keep-alive, Close\r\nContent-Length: 4\r\n\r\nrows", 200, "rows", false},
	"goodbye in a second field":       {ok + "Connection: keep-alive\r\nConnection: close\r\nContent-Length: 4\r\n\r\nrows", 200, "rows", false},
	"goodbye without a body":          {"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", 204, "", false},
	"204":                             {"HTTP/1.1 204 No Content\r\n\r\n", 204, "", true},
	"204 with the length 0":           {"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", 204, "", true},
	"204 with a length":               {"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n", 204, "", false},
	"204 with a body":                 {"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nrows", 204, "", false},
	"204 with chunks":                 {"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", 204, "", false},
	"304":                             {"HTTP/1.1 304 Not Modified\r\n\r\n", 304, "", true},
	"304 with the length of a 200":    {"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n", 304, "", false},
	"304 with a body":                 {"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nrows", 304, "", false},
	"304 with chunks":                 {"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 304, "", false},
	"205 with a body":                 {"HTTP/1.1 205 Reset Content\r\nContent-Length: 4\r\n\r\nrows", 205, "rows", true},
	"a status without a reason":       {"HTTP/1.1 200\r\nContent-Length: 4\r\n\r\nrows", 200, "rows", true},
	"a status that nobody knows":      {"HTTP/1.1 799 What\r\nContent-Length: 4\r\n\r\nrows", 799, "rows", true},
	"a status below all":              {"HTTP/1.1 042 What\r\nContent-Length: " + strconv.Itoa(len(poison)) + "\r\n\r\n" + poison, 42, poison, false},
	"a status below all, with a sign": {"HTTP/1.1 +42 What\r\nContent-Length: " + strconv.Itoa(len(poison)) + "\r\n\r\n" + poison, 42, poison, false},
	"a negative status":               {"HTTP/1.1 -42 What\r\nContent-Length: 4\r\n\r\nrows", 0, "", false},
	"a status of two digits":          {"HTTP/1.1 20 OK\r\nContent-Length: 4\r\n\r\nrows", 0, "", false},
	"no status":                       {"HTTP/1.1\r\nContent-Length: 4\r\n\r\nrows", 0, "", false},
	"another protocol's greeting":     {"SSH-2.0-OpenSSH_9.2\r\n", 0, "", false},
	"an empty line first":             {"\r\n" + answer("rows"), 0, "", false},
	"nothing":                         {"", 0, "", false},
}

// What this package makes of an answer is what net/http does, and it uses a connection again only where there is no doubt about where
// the answer ended.
func TestFramings(t *testing.T) {
	t.Parallel()
	for name, c := range framings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, split := range []int{0, len(c.bytes) / 2, max(len(c.bytes)-1, 0)} {
				got := byWire(t, []byte(c.bytes), split)
				if got.failed != (c.status == 0) || !got.failed && (got.status != c.status || got.broken != (c.body == broken)) {
					t.Fatalf("%v", got)
				}
				if !got.failed && !got.broken && got.body != c.body {
					t.Errorf("body %q, want %q", got.body, c.body)
				}
				compare(t, []byte(c.bytes), split)
				whole, after := framed([]byte(c.bytes))
				if whole && !got.failed && kept(t, []byte(c.bytes), split) != c.kept {
					t.Errorf("kept: %v", !c.kept)
				}
				if !whole && c.kept {
					t.Error("cannot be kept")
				}
				if whole && after == 0 { // the same with another answer behind it
					compare(t, []byte(c.bytes+poison), split)
				}
			}
		})
	}
}
