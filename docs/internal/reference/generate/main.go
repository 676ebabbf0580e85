// Command generate writes docs/reference.md anew. `make reference` runs it at the root of a checkout.
package main

import (
	"fmt"
	"os"

	"github.com/seed-32cb3e43/caddy-tinybird/docs/internal/reference"
)

func main() {
	if err := reference.Write("."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
