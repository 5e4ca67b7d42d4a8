package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/services/api/internal/journal"
	"kanade/services/api/internal/live"
)

const (
	// streamBeat is how often a stream with nothing to say says that it is there.
	streamBeat = 15 * time.Second
	// streamRetry is how long a stream waits before it asks the broker again: after an error, or when the server that
	// answered had less than the hub has heard of.
	streamRetry = 500 * time.Millisecond
	// streamWrite is how long a client may take to receive a page before it is given up.
	streamWrite = 30 * time.Second
)

// streamEvents sends the log as server-sent events, from a sequence on or only what is new, for as long as the client
// stays.
func (s *server) streamEvents(w http.ResponseWriter, r *http.Request, _ string) error {
	q := queryOf(r)
	from, given := q.sequence("from")
	filter := live.Filter{ExecID: q.text("exec")}
	for t := range strings.SplitSeq(strings.Join(q.values["type"], ","), ",") {
		if t = strings.TrimSpace(t); t != "" {
			filter.Types = append(filter.Types, t)
		}
	}
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		q.values.Set("Last-Event-ID", id)
		from, given = q.sequence("Last-Event-ID")
		from++
	}
	if q.err != nil {
		return q.err
	}
	if !given {
		if !s.Bus.Connected() {
			return bus.ErrUnavailable
		}
		ctx, cancel := context.WithTimeout(r.Context(), journal.Timeout)
		defer cancel()
		last, err := s.Bus.LastSeq(ctx, events.StreamLog)
		if err != nil {
			return err
		}
		from = last + 1
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	if r.Method == http.MethodHead {
		return nil
	}
	stream := &eventStream{server: s, out: http.NewResponseController(w), w: w, filter: filter, next: max(from, 1)}
	stream.run(r.Context())
	return nil
}

// eventStream is one client's place in the log.
type eventStream struct {
	*server
	out    *http.ResponseController
	w      http.ResponseWriter
	filter live.Filter
	next   uint64
}

// run ends when the client does, or the service.
func (e *eventStream) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-e.Stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	beat := time.NewTicker(streamBeat)
	defer beat.Stop()
	if e.send([]byte(": kanade events\n\n")) != nil {
		return
	}
	for ctx.Err() == nil {
		head, grew := e.Hub.Head()
		page, err := e.page(ctx)
		if err != nil && ctx.Err() == nil {
			e.Logger.Debug("read log for an event stream", "next", e.next, "error", err)
		}
		if len(page) > 0 {
			if e.sendPage(page) != nil {
				return
			}
			continue
		}
		var retry <-chan time.Time
		if err != nil || head >= e.next {
			retry = time.After(streamRetry)
			grew = nil
		}
		select {
		case <-ctx.Done():
		case <-grew:
		case <-retry:
		case <-beat.C:
			if e.send([]byte(": \n\n")) != nil {
				return
			}
		}
	}
}

func (e *eventStream) page(ctx context.Context) ([]bus.RawMsg, error) {
	if !e.Bus.Connected() {
		return nil, bus.ErrUnavailable
	}
	ctx, cancel := context.WithTimeout(ctx, journal.Timeout)
	defer cancel()
	return journal.Page(ctx, e.Bus, "", e.next)
}

func (e *eventStream) sendPage(page []bus.RawMsg) error {
	var b []byte
	for _, m := range page {
		if v, ok := e.filter.View(m); ok {
			data, err := json.Marshal(v)
			if err != nil {
				return fmt.Errorf("encode event %d: %w", m.Seq, err)
			}
			b = fmt.Appendf(b, "id: %d\nevent: %s\ndata: %s\n\n", v.Sequence, v.Type, data)
		}
		e.next = m.Seq + 1
	}
	if len(b) == 0 {
		return nil
	}
	return e.send(b)
}

// send writes and flushes within streamWrite.
func (e *eventStream) send(b []byte) error {
	_ = e.out.SetWriteDeadline(time.Now().Add(streamWrite))
	if _, err := e.w.Write(b); err != nil {
		return err
	}
	return e.out.Flush()
}
