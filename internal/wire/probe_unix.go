//go:build unix

package wire

import (
	"errors"
	"syscall"
)

// Reuses tells whether connections can be used again on this system.
const Reuses = true

// probe asks the operating system whether anything has come on an idle connection, without waiting.
type probe struct {
	look  func(fd uintptr) bool // made once, so that asking costs no memory
	quiet bool
}

func (p *probe) init() {
	var one [1]byte
	p.look = func(fd uintptr) bool {
		n, err := syscall.Read(int(fd), one[:])
		// Whatever came, be it the end, the connection is not used again, so that the byte need not be kept.
		p.quiet = n < 0 && (errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EWOULDBLOCK))
		return true
	}
}

// silent reports whether nothing has come: no byte, no end, no error.
func (p *probe) silent(raw syscall.RawConn) bool {
	p.quiet = false
	return raw.Read(p.look) == nil && p.quiet
}
