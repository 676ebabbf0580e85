package wire

import "net"

// headSize is the size of a TLS record's header: its type, a version, and a length in two bytes (RFC 8446, section 5.1).
const headSize = 5

// records is a connection below TLS that follows where records end. TLS keeps the beginning of a record to itself until the rest
// is there, and such a beginning on an idle connection is one of an answer that nobody asked for.
type records struct {
	net.Conn

	head [headSize]byte // what has come of a header
	have int            // how much that is
	left int            // how much of the record is still to come
}

// Read implements io.Reader.
func (r *records) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.follow(p[:n])
	return n, err //nolint:wrapcheck // it is TLS that reads
}

func (r *records) follow(p []byte) {
	for len(p) > 0 {
		n := min(r.left, len(p))
		if n == 0 {
			n = copy(r.head[r.have:], p)
			if r.have += n; r.have == headSize {
				r.have, r.left = 0, int(r.head[3])<<8|int(r.head[4])
			}
		} else {
			r.left -= n
		}
		p = p[n:]
	}
}

// whole tells whether all that has come are whole records.
func (r *records) whole() bool { return r.have == 0 && r.left == 0 }
