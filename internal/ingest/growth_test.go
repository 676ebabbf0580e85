package ingest

import (
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
)

// aBody is the bound of the tests below, small so that they are quick.
const aBody = 2 << 20

func boundedGrant(t *testing.T) *Grant {
	t.Helper()
	g := grant(t)
	if g.most != maxGrowth*DefaultMaxBody {
		t.Errorf("by default %d bytes go up", g.most)
	}
	g.most = maxGrowth * aBody
	return g
}

// TestStampsDoNotMultiplyABody: ten megabytes of the shortest rows, of which a client need send a hundredth if it packs them, do not
// become two hundred at Tinybird. What goes up is bounded, and the client learns what was taken of it.
func TestStampsDoNotMultiplyABody(t *testing.T) {
	t.Parallel()
	var up sent
	result, err := boundedGrant(t).Send(strings.NewReader(strings.Repeat("{}", aBody/2)), up.send)
	refusal, ok := errors.AsType[*apierr.Error](err)
	if !ok || refusal.Status != 413 || refusal.Code != apierr.BodyTooLarge || !strings.Contains(refusal.Message, "added") {
		t.Fatalf("got %v", err)
	}
	all := up.all()
	if len(all) > maxGrowth*aBody || len(all) < maxGrowth*aBody-2*maxBatch { // the last batch was not full
		t.Errorf("%d bytes went up", len(all))
	}
	if n := strings.Count(all, "\n"); refusal.Rows.Successful != n || result.Successful != n || refusal.Rows.Row <= n {
		t.Errorf("%d rows went up; %+v, %+v", n, refusal.Rows, result)
	}
}

// Rows that are at least as long as what is added to them are taken up to the bound of the body, as Tinybird takes them.
func TestRowsAsLongAsTheirStampsFit(t *testing.T) {
	t.Parallel()
	row := rowOf(len(stamps) + len(","))
	body := strings.Repeat(row+"\n", aBody/(len(row)+1))
	var up sent
	result, err := boundedGrant(t).Send(strings.NewReader(body), up.send)
	if err != nil || result.Successful != strings.Count(body, "\n") {
		t.Errorf("%v, %+v", err, result)
	}
}

// TestHugeBoundOfABody: a bound that stands for none lets rows through, though its double is no number any more.
func TestHugeBoundOfABody(t *testing.T) {
	t.Parallel()
	p, err := NewPolicy(Config{MaxBody: math.MaxInt64})
	if err != nil {
		t.Fatal(err)
	}
	g := grant(t)
	g.most = p.most
	for encoding, text := range map[string]string{"": "{}", "gzip": string(pack(t, "{}"))} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v0/events", strings.NewReader(text))
		r.Header.Set("Content-Encoding", encoding)
		body, err := Open(r, math.MaxInt64)
		if err != nil {
			t.Errorf("%q: %v", encoding, err)
			continue
		}
		var up sent
		if result, err := g.Send(body, up.send); err != nil || result.Successful != 1 {
			t.Errorf("%q: %+v, %v", encoding, result, err)
		}
	}
}
