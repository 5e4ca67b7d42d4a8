package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tmaxmax/go-sse"
)

// Event is one fact of the log as GET /api/events/stream tells it.
type Event struct {
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	// Type is the versioned name: kanade.exec.requested.v1.
	Type string `json:"type"`
	ID   string `json:"id"`
	// Subject is the id of what the fact is about.
	Subject string `json:"subject"`
	Actor   string `json:"actor"`
	// CausationID is the ID of the fact that this one follows from; empty where there is none.
	CausationID string          `json:"causation_id"`
	Data        json.RawMessage `json:"data"`
}

// Filter says which events a stream holds.
type Filter struct {
	// From is the first LOG sequence wanted; 0 means only what is new.
	From uint64
	// Exec keeps the facts of one exec, Type those of one type, or of several with commas between; empty keeps all.
	Exec, Type string
}

func (f Filter) query() url.Values {
	q := url.Values{}
	if f.From > 0 {
		q.Set("from", strconv.FormatUint(f.From, 10))
	}
	if f.Exec != "" {
		q.Set("exec", f.Exec)
	}
	if f.Type != "" {
		q.Set("type", f.Type)
	}
	return q
}

const (
	// maxEvent is the largest event of a stream, in bytes: a plan of 100 000 endpoints, unpacked.
	maxEvent = 16 << 20
	// silence is how long a stream may say nothing, not even the comment that the API sends every 15 s, before the
	// connection counts as dead.
	silence = 45 * time.Second
	// firstPause and lastPause bound the wait before a broken stream is opened again.
	firstPause, lastPause = 200 * time.Millisecond, 5 * time.Second
)

// Follow hands every event of the stream to fn, in log order, with its data as sent, until fn returns false or an
// error, or ctx ends. A stream that breaks is opened again after the last event that fn saw (Last-Event-ID), for ever;
// noted tells of each break (nil: nobody is told). Follow returns fn's error, ctx's, or a *Refused that waiting does
// not mend.
func (c *Client) Follow(ctx context.Context, f Filter, noted func(error), fn func(e Event, raw []byte) (bool, error)) error {
	s := &stream{client: c, filter: f, fn: fn}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		seen := s.last
		err := s.read(ctx)
		if errors.Is(err, errEnough) {
			return nil
		}
		var refused *Refused
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case s.failed != nil:
			return s.failed
		case errors.As(err, &refused) && !refused.Temporary():
			return err
		}
		if noted != nil {
			noted(err)
		}
		if s.last != seen {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

var (
	errEnough = errors.New("the reader has seen enough")
	errEnded  = errors.New("the stream ended")
)

// stream is one Follow.
type stream struct {
	client *Client
	filter Filter
	fn     func(Event, []byte) (bool, error)
	last   string // id of the last event that fn saw; empty before the first
	failed error  // what fn said
}

// read opens the stream once and reads it until it breaks.
func (s *stream) read(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	res, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	watchdog := time.AfterFunc(silence, cancel)
	defer watchdog.Stop()
	body := &watched{Reader: res.Body, alive: func() { watchdog.Reset(silence) }}
	for e, err := range sse.Read(body, &sse.ReadConfig{MaxEventSize: maxEvent}) {
		if err != nil {
			return &Unreachable{URL: s.client.base, Err: err}
		}
		if err := s.hand(e); err != nil {
			return err
		}
	}
	return errEnded
}

func (s *stream) open(ctx context.Context) (*http.Response, error) {
	r := Request{Method: http.MethodGet, Path: "/api/events/stream", Query: s.filter.query(), lastEventID: s.last}
	return s.client.send(ctx, r, "text/event-stream, "+JSON)
}

func (s *stream) hand(e sse.Event) error {
	var event Event
	if err := json.Unmarshal([]byte(e.Data), &event); err != nil {
		s.failed = fmt.Errorf("read event %s of the stream: %w", e.LastEventID, err)
		return s.failed
	}
	more, err := s.fn(event, []byte(e.Data))
	if err != nil {
		s.failed = err
		return err
	}
	s.last = e.LastEventID
	if !more {
		return errEnough
	}
	return nil
}

// Copy sends one request and writes the body of the answer to w as it comes. Errors are those of [Client.Do], and w's. An
// answer that stops for 45 s counts as broken.
func (c *Client) Copy(ctx context.Context, r Request, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	res, err := c.send(ctx, r, "text/plain, "+JSON)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	watchdog := time.AfterFunc(silence, cancel)
	defer watchdog.Stop()
	body := &watched{Reader: res.Body, alive: func() { watchdog.Reset(silence) }}
	to := &sink{Writer: w}
	if _, err := io.Copy(to, body); err != nil {
		if to.err != nil {
			return to.err
		}
		return &Unreachable{URL: c.base, Err: err}
	}
	return nil
}

// sink keeps the error of the writer, to tell it from the reader's.
type sink struct {
	io.Writer
	err error
}

func (s *sink) Write(p []byte) (n int, err error) {
	n, s.err = s.Writer.Write(p)
	return n, s.err
}

// watched tells whenever bytes arrive.
type watched struct {
	io.Reader
	alive func()
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.alive()
	return n, err
}
