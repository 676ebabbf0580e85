package ingest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

const (
	// maxRow is the longest row, in bytes, as the client sends it.
	maxRow = 1 << 20
	// readSize is how much of a body is read at a time, in bytes.
	readSize = 16 << 10
)

// Why a row is none. No error quotes it.
var (
	errNoObject  = errors.New("it is not a JSON object")
	errCutOff    = errors.New("it is cut off")
	errControl   = errors.New("a text in it has a line break or another control character that is not escaped")
	errSeparator = errors.New("it does not follow a comma")
	errAfterList = errors.New("it follows the end of the list")
)

// reader finds the rows of a body: objects one after another, each on a line or not, or one list of objects. It finds only where
// a row begins and ends; whether it is sound is for jsonobject to say.
type reader struct {
	src  *bufio.Reader
	row  []byte // the latest, used again for the next
	n    int    // rows begun
	list bool   // the body is a list
	done bool   // the list has ended
}

func newReader(body io.Reader) *reader { return &reader{src: bufio.NewReaderSize(body, readSize)} }

// next returns the next row, which is valid until the next call, io.EOF after the last one, or an *apierr.Error. The
// number of the row that an error is about is r.n.
func (r *reader) next() ([]byte, error) {
	c, err := r.token()
	separated := true
	if err == nil {
		c, separated, err = r.separator(c)
	}
	if ended(err) && (!r.list || r.done) {
		return nil, io.EOF
	}
	r.n++
	switch {
	case ended(err):
		return nil, r.bad(errCutOff)
	case err != nil:
		return nil, unreadable(err)
	case r.done:
		return nil, r.bad(errAfterList)
	case !separated:
		return nil, r.bad(errSeparator)
	case c != '{':
		return nil, r.bad(errNoObject)
	}
	return r.object()
}

// separator takes what stands before a row, of which c was taken: the beginning of a list, a comma in it, its end, or
// nothing. It returns the byte after that, and whether it may follow the row before.
func (r *reader) separator(c byte) (after byte, ok bool, err error) {
	switch {
	case r.n == 0 && c == '[':
		r.list = true
		after, err = r.token()
		if err != nil || after != ']' {
			return after, true, err
		}
		c = after
	case !r.list || r.done:
		return c, true, nil
	}
	switch c {
	case ']':
		r.done = true
	case ',':
	default:
		return c, false, nil
	}
	after, err = r.token()
	return after, true, err
}

// token skips white space and takes the byte after it.
func (r *reader) token() (byte, error) {
	for {
		c, err := r.src.ReadByte()
		if err != nil || c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return c, err //nolint:wrapcheck // io.EOF has to stay what it is
		}
	}
}

// object takes the rest of the object whose opening brace was taken.
func (r *reader) object() ([]byte, error) {
	r.row = append(r.row[:0], '{')
	s := scanner{depth: 1}
	for {
		if _, err := r.src.Peek(1); err != nil {
			if ended(err) {
				return nil, r.bad(errCutOff)
			}
			return nil, unreadable(err)
		}
		piece, _ := r.src.Peek(r.src.Buffered())
		n, err := s.scan(piece)
		if err != nil {
			return nil, r.bad(err)
		}
		if len(r.row)+n > maxRow {
			return nil, apierr.New(http.StatusRequestEntityTooLarge, apierr.BodyTooLarge,
				fmt.Sprintf("Row %d is longer than %d bytes. Send shorter rows.", r.n, maxRow))
		}
		r.row = append(r.row, piece[:n]...)
		_, _ = r.src.Discard(n)
		if s.depth == 0 {
			return r.row, nil
		}
	}
}

// bad is the refusal of the latest row.
func (r *reader) bad(cause error) *apierr.Error {
	return apierr.New(http.StatusBadRequest, apierr.BadBody, fmt.Sprintf("Row %d cannot be taken: %s.", r.n, cause.Error())).
		Wrap(fmt.Errorf("row %d: %w", r.n, cause))
}

// ended tells whether a body ended as it should. An error that only wraps io.EOF is a connection that was lost.
func ended(err error) bool {
	return err == io.EOF //nolint:errorlint // see above
}

// scanner finds the end of an object.
type scanner struct {
	depth   int
	text    bool // within a string
	escaped bool // after a backslash
}

// scan returns how many bytes of piece belong to the object.
func (s *scanner) scan(piece []byte) (int, error) {
	for i, c := range piece {
		switch {
		case s.text:
			switch {
			case c < ' ':
				return 0, errControl
			case s.escaped:
				s.escaped = false
			case c == '\\':
				s.escaped = true
			case c == '"':
				s.text = false
			}
		case c == '"':
			s.text = true
		case c == '{' || c == '[':
			s.depth++
		case c == '}' || c == ']':
			s.depth--
			if s.depth == 0 {
				return i + 1, nil
			}
		}
	}
	return len(piece), nil
}
