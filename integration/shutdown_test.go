//go:build integration

package integration

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/devstack"
)

// TestShutdownFinishesRequests: a request whose answer is under way when the process is told to end is answered whole.
func TestShutdownFinishesRequests(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	step := make(chan struct{}, 1)
	e.stack.API.Fail(func(*http.Request) *devstack.Fault { return &devstack.Fault{Chunked: true, Step: step, Piece: 10} })
	step <- struct{}{}
	resp, err := e.http.Do(e.request(t, "ada", http.MethodGet, "/v0/pipes/live_events.json", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	piece := make([]byte, 10)
	if _, err := resp.Body.Read(piece); err != nil {
		t.Fatal(err)
	}
	body.Write(piece)

	e.terminate(t)
	eventually(t, "nobody listens", func() bool {
		c, err := dial(e.addr)
		c.close()
		return err != nil
	})
	close(step)
	if _, err := body.ReadFrom(resp.Body); err != nil {
		t.Fatalf("the answer broke off: %v", err)
	}
	ownRows(t, "ada", reply{resp, body.Bytes()})
	if err := e.wait(t); err != nil {
		t.Errorf("caddy ended with %v", err)
	}
}

// TestClientGoneEndsQuestion: nobody waits for an answer whose client is gone, so Tinybird is not kept busy with it.
func TestClientGoneEndsQuestion(t *testing.T) {
	t.Parallel()
	e := startEdge(t)
	entered, gone := make(chan struct{}), make(chan struct{})
	e.stack.API.Fail(func(r *http.Request) *devstack.Fault {
		close(entered)
		<-r.Context().Done()
		close(gone)
		return nil
	})
	c, err := dial(e.addr)
	if err != nil {
		t.Fatal(err)
	}
	token := e.token(t, "ada")
	asked := make(chan error, 1)
	go func() {
		_, err := c.get(e.addr, "/v0/pipes/live_events.json", token)
		asked <- err
	}()
	<-entered
	c.close()
	if err := <-asked; err == nil {
		t.Error("an answer to a client that is gone")
	}
	<-gone
}
