package forward

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// maxReceipt is the largest answer to a batch of rows that is read, in bytes. Tinybird's has about fifty.
const maxReceipt = 64 << 10

var errReceipt = errors.New("the answer does not say what became of the rows")

var rowWords = words{
	late:     "The analytics service took too long to take the rows. Send fewer at a time, or try again later.",
	tooLarge: "There are too many rows. Send fewer at a time.",
	refused:  "The analytics service refused the rows. Check their fields.",
}

// Batch is rows for one data source.
type Batch struct {
	Datasource string // in Tinybird's grammar of names
	Wait       bool   // until Tinybird has stored them
	Rows       []byte // one JSON object a line; must not be changed afterwards, the transport may still read it
	Client     http.Header
	Token      string // the credential
}

// Fate is what is known about the rows of a batch.
type Fate int

// The fates.
const (
	FateRefused Fate = iota // none of them was taken
	FateUnknown             // they may have been taken, all or some
	FateTaken               // they were taken, but how many went well may not be known
)

// Receipt is Tinybird's answer to a batch.
type Receipt struct {
	Fate        Fate
	Status      int // of an answer that says what became of the rows
	Successful  int
	Quarantined int
}

// Append sends a batch to a data source, once. What Tinybird says about its limits is put on h, the header of the
// response to come. The error is an *apierr.Error, or context.Canceled when the client went away; the receipt's Fate is
// valid with an error, too.
func (f *Forwarder) Append(ctx context.Context, h http.Header, b Batch) (Receipt, Outcome, error) {
	x := exchange{Forwarder: f, client: ctx, token: b.Token, words: rowWords}
	start := time.Now()
	q := b.request()
	resp, err := x.send(ctx, &q)
	out := Outcome{Duration: time.Since(start)}
	var receipt Receipt
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); !ok || op.Op != "dial" {
			receipt.Fate = FateUnknown
		}
		err = x.unanswered(err)
	} else {
		defer resp.Body.Close()
		out.UpstreamStatus = resp.StatusCode
		receipt, err = x.receive(h, resp, len(b.Rows)) // a row has a byte at least
	}
	out.Err = causeOf(err)
	return receipt, out, err
}

// request is the batch as a request, with those of the client's fields that mean something for it.
func (b *Batch) request() Request {
	client := http.Header{"Accept": {"application/json"}}
	for _, name := range [...]string{"User-Agent", "Traceparent", "Tracestate"} {
		if v := b.Client[name]; len(v) > 0 {
			client[name] = v
		}
	}
	query := "name=" + url.QueryEscape(b.Datasource)
	if b.Wait {
		query += "&wait=true"
	}
	return Request{
		Method: http.MethodPost, Path: "/v0/events", RawQuery: query,
		Body: b.Rows, Client: client, Token: b.Token, rows: true,
	}
}

// receive reads the answer to a batch, which has at most so many rows.
func (x *exchange) receive(h http.Header, resp *http.Response, most int) (Receipt, error) {
	dropSecrets(resp.Header, x.token)
	switch status := resp.StatusCode; {
	case status >= 500, status < 200, status == http.StatusRequestTimeout:
		return Receipt{Fate: FateUnknown}, x.refusal(h, resp)
	case status > 299:
		return Receipt{Fate: FateRefused}, x.refusal(h, resp)
	}
	r := Receipt{Fate: FateTaken, Status: resp.StatusCode}
	if err := x.readReceipt(&r, resp, most); err != nil {
		return Receipt{Fate: FateTaken}, x.unanswered(err)
	}
	passReports(h, resp.Header)
	return r, nil
}

// readReceipt reads the numbers of Tinybird's answer. Of more rows than were sent it says nothing.
func (x *exchange) readReceipt(r *Receipt, resp *http.Response, most int) error {
	if unframed(resp) {
		return errUnframed
	}
	giveUpAfter(resp, x.transport.bytes)
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReceipt+1))
	if err != nil {
		return fmt.Errorf("read what became of the rows: %w", err)
	}
	var told struct {
		Successful  *int `json:"successful_rows"`
		Quarantined *int `json:"quarantined_rows"`
	}
	if len(body) > maxReceipt || json.Unmarshal(body, &told) != nil {
		return errReceipt
	}
	if told.Successful == nil || told.Quarantined == nil || min(*told.Successful, *told.Quarantined) < 0 || max(*told.Successful, *told.Quarantined) > most {
		return errReceipt
	}
	r.Successful, r.Quarantined = *told.Successful, *told.Quarantined
	return nil
}
