package rig

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
)

// Main runs a program until it is done or interrupted, and returns the status for its process to exit with.
func Main(name string, run func(ctx context.Context, w io.Writer, args []string) error) (status int) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		return 1
	}
	return 0
}

// Workshop makes a directory for the files of one run, and builds the binary there unless one is given. What it returns last
// removes the directory.
func Workshop(ctx context.Context, name, binary string) (home, built string, leave func(), err error) {
	if home, err = os.MkdirTemp("", name+"-"); err != nil {
		return "", "", nil, fmt.Errorf("a place for files: %w", err)
	}
	leave = func() { _ = os.RemoveAll(home) }
	if binary != "" {
		return home, binary, leave, nil
	}
	if built, err = Build(ctx, home); err != nil {
		leave()
		return "", "", nil, err
	}
	return home, built, leave, nil
}
