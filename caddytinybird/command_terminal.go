package caddytinybird

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/preflight"
)

// isTerminal reports whether somebody is looking at what is written there, or typing what is read.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// styleFor is how a report is written: with marks and colours for people, in plain words for everything else, and without colours for
// whoever asks for that (https://no-color.org).
func styleFor(w io.Writer) preflight.Style {
	if !isTerminal(w) || os.Getenv("TERM") == "dumb" {
		return preflight.Style{}
	}
	return preflight.Style{Marks: true, Color: os.Getenv("NO_COLOR") == ""}
}

// progress tells on a terminal what is being waited for, once the command takes longer than a second.
type progress struct {
	w       io.Writer // nil: nobody looks
	command string
	start   time.Time

	mu    sync.Mutex
	timer *time.Timer
}

func newProgress(w io.Writer, command string) *progress {
	p := &progress{command: command, start: time.Now()}
	if isTerminal(w) {
		p.w = w
	}
	return p
}

// step begins to wait for something.
func (p *progress) step(what string) {
	p.end()
	if p.w == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(time.Until(p.start.Add(time.Second)), func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.timer != nil {
			_, _ = fmt.Fprintf(p.w, "%s: %s ...\n", p.command, what)
		}
	})
}

// end tells no more.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
}
