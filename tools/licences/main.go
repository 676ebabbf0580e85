// Command licences lists the licences of all that is linked into Caddy with this plugin, and the demo, and refuses a licence
// that nobody has looked at.
//
//	go run . write    writes docs/licences.md
//	go run . check    fails when that page is not current, or a licence is not on the list in policy.go
//	go run . texts    prints the texts, which travel with a binary that is handed on
//
// It reads what the go command has on this machine and asks no network, beyond the modules that are not there yet.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("say what to do: write, check or texts")
	}
	// The command is started in its own directory: it is a module of its own.
	root, err := filepath.Abs("../..")
	if err != nil {
		return fmt.Errorf("find the repository: %w", err)
	}
	modules, err := linked(root)
	if err != nil {
		return err
	}
	switch args[0] {
	case "texts":
		return writeTexts(os.Stdout, modules)
	case "write", "check":
	default:
		return fmt.Errorf("there is no %q: write, check or texts", args[0])
	}
	if err := judge(modules); err != nil {
		return err
	}
	file, page := filepath.Join(root, "docs", "licences.md"), markdown(modules)
	if args[0] == "write" {
		return os.WriteFile(file, []byte(page), 0o644) //nolint:gosec // a page for everybody
	}
	have, err := os.ReadFile(file) //nolint:gosec // the page of this repository
	if err != nil || string(have) != page {
		return errors.Join(err, errors.New("docs/licences.md is not current: run make licences and read what has changed"))
	}
	return nil
}
