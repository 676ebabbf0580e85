//go:build !unix

package wire

import "syscall"

// Reuses tells whether connections can be used again on this system.
const Reuses = false

// probe is for systems on which a connection cannot be asked without waiting. Bytes that nobody asked for would be taken for
// the next answer, so that no connection is used again.
type probe struct{}

func (*probe) init() {}

func (*probe) silent(syscall.RawConn) bool { return false }
