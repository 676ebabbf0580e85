package ingest

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// DefaultMaxBody is the largest body, unpacked, in bytes. It is Tinybird's own bound for a request.
const DefaultMaxBody = 10 << 20

// mostBody is what a larger bound counts as, so that what is reckoned from it is still a number.
const mostBody = math.MaxInt64 / maxGrowth

// Open returns the rows of a request as a stream, unpacked, of at most limit bytes; 0 is DefaultMaxBody. Nothing is read yet.
// The error is always an *apierr.Error: 413, 415.
func Open(r *http.Request, limit int64) (io.Reader, error) {
	if limit <= 0 {
		limit = DefaultMaxBody
	}
	limit = min(limit, mostBody)
	if err := checkType(r.Header); err != nil {
		return nil, err
	}
	packed, err := isGzip(r.Header)
	if err != nil {
		return nil, err
	}
	body := io.Reader(http.NoBody)
	if r.Body != nil {
		body = r.Body
	}
	sent := limit
	if packed {
		// What cannot be packed grows a little. Without a bound a body of nothing but empty parts would never end.
		sent += limit/1000 + 1024
	}
	if r.ContentLength > sent {
		return nil, tooLarge(limit)
	}
	body = &bounded{r: body, left: sent, limit: limit}
	if packed {
		body = &bounded{r: &unpacker{r: body}, left: limit, limit: limit}
	}
	return body, nil
}

// checkType accepts what clients of Tinybird send rows as: navigator.sendBeacon says text/plain.
func checkType(h http.Header) error {
	lines := h.Values("Content-Type")
	if len(lines) == 0 {
		return nil
	}
	if len(lines) == 1 {
		mediaType, params, err := mime.ParseMediaType(lines[0])
		charset, named := params["charset"]
		switch {
		case err != nil, named && !strings.EqualFold(charset, "utf-8"):
		case mediaType == "application/json", mediaType == "application/x-ndjson", mediaType == "text/plain":
			return nil
		}
	}
	return unsupported("Rows are sent as JSON in UTF-8, with Content-Type: application/json or application/x-ndjson.")
}

func isGzip(h http.Header) (bool, error) {
	lines := h.Values("Content-Encoding")
	if len(lines) > 1 {
		return false, unsupported("The body is packed more than once. Pack it with gzip, or not at all.")
	}
	switch encoding := strings.ToLower(strings.TrimSpace(strings.Join(lines, ""))); encoding {
	case "", "identity":
		return false, nil
	case "gzip", "x-gzip":
		return true, nil
	default:
		return false, unsupported("The body is packed in a way that is not known here. Pack it with gzip, or not at all.")
	}
}

func unsupported(message string) *apierr.Error {
	return apierr.New(http.StatusUnsupportedMediaType, apierr.UnsupportedBody, message)
}

func tooLarge(limit int64) *apierr.Error {
	return apierr.New(http.StatusRequestEntityTooLarge, apierr.BodyTooLarge,
		"The body is larger than "+strconv.FormatInt(limit, 10)+" bytes. Send fewer rows at a time.")
}

// bounded ends in an error once more was read than may be.
type bounded struct {
	r     io.Reader
	left  int64
	limit int64 // for the error
	over  bool
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.over {
		return 0, tooLarge(b.limit)
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.r.Read(p)
	if int64(n) > b.left {
		n = int(b.left)
		b.over, err = true, tooLarge(b.limit)
	}
	b.left -= int64(n)
	return n, err
}

// unpacker unpacks gzip, of one part or more, and begins when it is first read. What follows the last part has to be another.
type unpacker struct {
	r io.Reader
	z *gzip.Reader
}

func (u *unpacker) Read(p []byte) (int, error) {
	if u.z == nil {
		z, err := gzip.NewReader(bufio.NewReader(u.r))
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // nothing at all is no gzip
		}
		if err != nil {
			return 0, fmt.Errorf("unpack: %w", err)
		}
		u.z = z
	}
	return u.z.Read(p) //nolint:wrapcheck // an io.Reader ends in io.EOF as it is
}

// unreadable is the refusal for a body of which no more could be read.
func unreadable(err error) *apierr.Error {
	if refusal, ok := errors.AsType[*apierr.Error](err); ok {
		return refusal
	}
	// A limit of the site's own (request_body).
	if site, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return tooLarge(site.Limit)
	}
	message := "The body broke off."
	if _, corrupt := errors.AsType[flate.CorruptInputError](err); corrupt || errors.Is(err, gzip.ErrHeader) || errors.Is(err, gzip.ErrChecksum) {
		message = "The body is said to be packed with gzip, but it is not, or it is damaged."
	}
	return apierr.New(http.StatusBadRequest, apierr.BadBody, message).Wrap(err)
}
