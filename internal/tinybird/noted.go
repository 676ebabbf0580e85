package tinybird

import "slices"

const (
	// maxNoted bounds the names of either kind: a body can have thousands.
	maxNoted = 16
	// maxNotedName is the longest name that is told, in bytes. Every secret of a config has at least 32.
	maxNotedName = 31
	// notedOther stands for all names that are not told.
	notedOther = "_other"
)

// Noted is what became of the parameters that a client sent: their names, each once, in their order, and never a value. A client can
// send anything for a name, a token too, so what is no parameter's name or long is told as "_other", and so is all beyond the
// sixteenth.
type Noted struct {
	Taken   []string // went up
	Dropped []string // were left out
}

// Note has the names of the parameters that Build meets put into n.
func (g *Grant) Note(n *Noted) { g.noted = n }

func (n *Noted) add(name string, taken bool) {
	list := &n.Dropped
	if taken {
		list = &n.Taken
	}
	if len(name) > maxNotedName || !validName(name) || len(*list) >= maxNoted {
		name = notedOther
	}
	if !slices.Contains(*list, name) {
		*list = append(*list, name)
	}
}
