package ingest

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/seed-32cb3e43/caddy-tinybird/internal/apierr"
	"github.com/seed-32cb3e43/caddy-tinybird/internal/forward"
)

// maxBatch is how much goes to Tinybird at a time, in bytes. Only a batch of a single row can be larger, by its stamps.
const maxBatch = 1 << 20

// maxGrowth is by how much a body may grow with its stamps. Rows that are as long as their stamps double it; a body of nothing but
// empty rows would become thirty times as large.
const maxGrowth = 2

// Result is what became of the rows of a body.
type Result struct {
	Status      int // of Tinybird's answer to the last batch
	Read        int // rows that the body was found to have, a bad one included
	Successful  int
	Quarantined int // put aside by Tinybird, which could not store them
	Unknown     int // sent, and nobody knows what became of them
}

// Refused is how many of the rows that were read Tinybird did not take.
func (r Result) Refused() int { return max(0, r.Read-r.Successful-r.Quarantined-r.Unknown) }

// Send reads the rows of body, stamps them, and gives them to send in batches, each after all its rows were read and found
// sound, the last after the end of the body was. It never gives a batch twice, holds no more than one batch and one row at
// a time, and does not touch a batch again.
//
// An *apierr.Error says with its Rows what became of the rows. Other errors are those of send.
func (g *Grant) Send(body io.Reader, send func(batch []byte) (forward.Receipt, error)) (Result, error) {
	s := sender{Grant: g, rows: newReader(body), send: send}
	err := s.all()
	s.Read = s.rows.n
	return s.Result, err
}

// sender is one body on its way.
type sender struct {
	*Grant
	Result

	rows  *reader
	send  func([]byte) (forward.Receipt, error)
	batch []byte
	count int   // rows in the batch
	up    int64 // bytes of all batches
}

func (s *sender) all() error {
	for {
		row, err := s.rows.next()
		if ended(err) {
			break
		}
		if err != nil {
			return s.refuse(err, s.rows.n)
		}
		need := len(row) + s.growth()
		if s.up += int64(need); s.up > s.most {
			return s.refuse(grownTooLarge(s.most), s.rows.n)
		}
		if s.count > 0 && len(s.batch)+need > maxBatch {
			if err := s.flush(s.rows.n); err != nil {
				return err
			}
			s.batch = make([]byte, 0, max(maxBatch, need))
		}
		s.batch = slices.Grow(s.batch, need)
		if s.batch, err = s.stamp(s.batch, row); err != nil {
			return s.refuse(s.rows.bad(err), s.rows.n)
		}
		s.batch = append(s.batch, '\n')
		s.count++
	}
	if s.rows.n == 0 {
		return s.refuse(apierr.New(http.StatusBadRequest, apierr.BadBody, "The body has no rows. Send at least one JSON object."), 0)
	}
	return s.flush(s.rows.n + 1)
}

func grownTooLarge(most int64) *apierr.Error {
	return apierr.New(http.StatusRequestEntityTooLarge, apierr.BodyTooLarge,
		fmt.Sprintf("With what is added to each row there are more than %d bytes. Send fewer rows at a time.", most))
}

// flush sends the batch, whose last row is the one before next.
func (s *sender) flush(next int) error {
	first, count := next-s.count, s.count
	batch := s.batch
	s.batch, s.count = nil, 0
	receipt, err := s.send(batch)
	if err == nil {
		s.Status = receipt.Status
		s.Successful += receipt.Successful
		s.Quarantined += receipt.Quarantined
		return nil
	}
	if receipt.Fate != forward.FateRefused {
		s.Unknown = count
	}
	refusal, ok := errors.AsType[*apierr.Error](err)
	if !ok {
		return err
	}
	if first > 1 || receipt.Fate == forward.FateTaken {
		refusal = incomplete(refusal, first, s.Unknown > 0)
	}
	return s.refuse(refusal, first)
}

// incomplete is the refusal after a part of the rows was taken. Its status is none on which clients send everything once more on
// their own, as they do after 429 and 5xx: the rows that were taken would be there twice.
func incomplete(e *apierr.Error, first int, unknown bool) *apierr.Error {
	if e.Status < http.StatusInternalServerError && e.Status != http.StatusTooManyRequests {
		return e
	}
	message := fmt.Sprintf("Not all rows were taken. Send those from row %d on again, and no others.", first)
	if unknown {
		message = "Not all rows are known to have been taken."
	}
	c := apierr.New(http.StatusConflict, apierr.EventsIncomplete, message)
	c.Header = e.Header
	return c.Wrap(e)
}

// refuse adds to a refusal what became of the rows.
func (s *sender) refuse(err error, row int) error {
	refusal, ok := errors.AsType[*apierr.Error](err)
	if !ok {
		return err
	}
	taken := s.Successful + s.Quarantined
	if taken > 0 {
		refusal.Message += fmt.Sprintf(" Rows taken before: %d.", taken)
	}
	if s.Unknown > 0 {
		refusal.Message += fmt.Sprintf(" Whether the %d rows from row %d on were taken is not known.", s.Unknown, row)
	}
	refusal.Rows = &apierr.Rows{Row: row, Successful: s.Successful, Quarantined: s.Quarantined, Unknown: s.Unknown}
	return refusal
}
