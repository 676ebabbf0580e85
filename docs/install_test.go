package docs_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestInstallPage: what the commands of install.md name is there: files of this repository, targets of the Makefile, services of the
// compose files. That those files are right is what the tests in tools/packaging and integration hold.
func TestInstallPage(t *testing.T) {
	t.Parallel()
	page := readPage(t, "install.md")
	text := page.prose
	for _, b := range page.blocks {
		text += b.text
	}
	checked := 0
	for _, path := range regexp.MustCompile("[ `](packaging/[\\w./-]*\\w|integration/[\\w./-]*\\w)").FindAllStringSubmatch(text, -1) {
		checked++
		if _, err := os.Stat("../" + path[1]); err != nil && path[1] != "packaging/tinybird_signing_key" { // which the reader writes
			t.Error(err)
		}
	}
	makefile := read(t, "../Makefile")
	for _, target := range regexp.MustCompile("(?m)(?:^|`)make ([a-z]+)").FindAllStringSubmatch(text, -1) {
		checked++
		if !strings.Contains(makefile, "\n"+target[1]+": ") {
			t.Errorf("there is no make %s", target[1])
		}
	}
	for _, run := range regexp.MustCompile(`docker compose -f (\S+) exec (\S+)`).FindAllStringSubmatch(text, -1) {
		checked++
		if !strings.Contains(read(t, "../"+run[1]), "\n  "+run[2]+":\n") {
			t.Errorf("%s has no service %s", run[1], run[2])
		}
	}
	if checked < 10 {
		t.Errorf("only %d names were found", checked)
	}
	// Where the page puts the files of the service is where the unit looks for them.
	unit := read(t, "../packaging/caddy.service")
	for _, path := range []string{"/usr/bin/caddy", "/etc/caddy/Caddyfile", "/etc/caddy/environment", "/etc/caddy/tinybird_signing_key", "/var/lib/caddy"} {
		if !strings.Contains(unit, path) || !strings.Contains(text, path) {
			t.Errorf("the page and the unit differ on %s", path)
		}
	}
	credential := regexp.MustCompile(`LoadCredential=(\w+):`).FindStringSubmatch(unit)[1]
	if !strings.Contains(text, "{file./run/credentials/caddy.service/"+credential+"}") {
		t.Errorf("the Caddyfile of the page does not name the credential %s", credential)
	}
}
