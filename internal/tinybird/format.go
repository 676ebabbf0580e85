package tinybird

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// DefaultFormats returns the formats Tinybird documents for API endpoints.
func DefaultFormats() []string {
	return []string{"json", "csv", "csvwithnames", "ndjson", "parquet", "prometheus"}
}

// CheckFormats tells whether formats can be a pipe's list of formats: known ones, each once.
func CheckFormats(formats []string) error {
	if len(formats) == 0 {
		return errors.New("formats lists none: name at least one, or remove it to allow all")
	}
	known := DefaultFormats()
	for i, f := range formats {
		if !slices.Contains(known, f) {
			return fmt.Errorf("formats: %s is unknown: write one of %s", Shown(f), strings.Join(known, ", "))
		}
		if slices.Contains(formats[:i], f) {
			return fmt.Errorf("formats: %s is listed twice: keep one of them", f)
		}
	}
	return nil
}
