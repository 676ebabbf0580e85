package caddytinybird

import "testing"

// TestNewestUserCounts: the last config to use a pooled value stays after it left, and no longer than until there is another one.
func TestNewestUserCounts(t *testing.T) {
	t.Parallel()
	var u users[string]
	want := func(newest string, all int) {
		t.Helper()
		if got := u.newest(); got != newest || len(u.all) != all {
			t.Errorf("%q of %d, want %q of %d", got, len(u.all), newest, all)
		}
	}
	first := u.use("first")
	twice := u.use("first")
	second := u.use("second")
	want("second", 3)
	second()
	want("first", 2)
	first()
	first()
	want("first", 1)
	twice()
	want("first", 1)
	third := u.use("third")
	want("third", 1)
	third()
	want("third", 1)
	if got, ok := u.find(func(s string) bool { return s == "first" }); ok {
		t.Errorf("%q left", got)
	}
	u.use("fourth")
	u.use("fifth")
	if got, ok := u.find(func(s string) bool { return s != "fifth" }); !ok || got != "fourth" {
		t.Errorf("found %q", got)
	}
}
