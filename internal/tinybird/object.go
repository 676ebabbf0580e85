package tinybird

import "github.com/seed-32cb3e43/caddy-tinybird/internal/jsonobject"

// buildObject parses the client's JSON object and writes a new one from the members that may go up. It returns nil when
// nothing is left, and how many members were left out. No member may be named twice, also of those that are left out:
// nobody but an attacker names one of them twice.
func buildObject(raw []byte, lets func(name string) bool) (object []byte, dropped int, err error) {
	var left map[string]struct{}
	out, kept, dropped, err := jsonobject.Rewrite(make([]byte, 0, len(raw)), raw, func(name []byte) (bool, error) {
		if lets(string(name)) {
			return true, nil
		}
		if _, ok := left[string(name)]; ok {
			return false, jsonobject.ErrDuplicate
		}
		if left == nil {
			left = make(map[string]struct{})
		}
		left[string(name)] = struct{}{}
		return false, nil
	})
	if err != nil {
		return nil, 0, err
	}
	if kept == 0 {
		return nil, dropped, nil
	}
	return out, dropped, nil
}
