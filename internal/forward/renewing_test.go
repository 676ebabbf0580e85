package forward

import (
	"net/http"
	"net/http/httptrace"
	"strconv"
	"testing"
)

// TestAttackRenewedWhileItIsRead: net/http can still be writing a request to a broken HTTP/2 connection when it has another one for it. The
// header is changed before the first one only.
func TestAttackRenewedWhileItIsRead(t *testing.T) {
	t.Parallel()
	renewals := 0
	h := http.Header{"Authorization": {bearer + "old"}}
	ctx := renewing(t.Context(), func() (string, error) { renewals++; return "new" + strconv.Itoa(renewals), nil }, h)
	trace := httptrace.ContextClientTrace(ctx)
	for range 3 {
		trace.GotConn(httptrace.GotConnInfo{})
		if got := h.Get("Authorization"); got != bearer+"new1" {
			t.Fatalf("the header is %q", got)
		}
	}
}
