package demo

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
)

//go:embed site
var siteFiles embed.FS

// writeSite writes the plain site to a directory, from which Caddy serves it as any other.
func writeSite(dir string) error {
	// The folder is embedded, so it is there.
	files, _ := fs.Sub(siteFiles, "site")
	if err := os.CopyFS(dir, files); err != nil {
		return fmt.Errorf("write the plain site: %w", err)
	}
	return nil
}
