package rest

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// minSequenceWait is how long a read waits for the sequence that it is to see.
const minSequenceWait = 5 * time.Second

// reader is a handler that answers from the read model of the server that it is given: the present one, or that of a past
// moment.
type reader func(s *server, w http.ResponseWriter, r *http.Request, route string) error

// reading makes a handler one that answers from the read model: it waits for what the client wants to see and says how
// far the read model is. The position is read before the handler asks, so that the answer is at least that fresh. A read model
// of another log answers nothing.
func (s *server) reading(h reader) handler {
	return func(w http.ResponseWriter, r *http.Request, route string) error {
		if text, given := asOf(r); given {
			return s.readPast(w, r, route, text, h)
		}
		seq, err := minSequence(r)
		if err != nil {
			return err
		}
		if err := s.checkLog(r.Context()); err != nil {
			return err
		}
		if seq > 0 {
			ctx, cancel := context.WithTimeout(r.Context(), minSequenceWait)
			defer cancel()
			if err := s.Reader.WaitFor(ctx, seq); err != nil {
				return err
			}
		}
		applied, at, err := s.Reader.Applied(r.Context())
		if err != nil {
			return err
		}
		announceApplied(w, applied, at)
		return h(s, w, r, route)
	}
}

// announceApplied says how far the read model is, and when the broker stored its last fact.
func announceApplied(w http.ResponseWriter, sequence uint64, at time.Time) {
	w.Header().Set(headerApplied, strconv.FormatUint(sequence, 10))
	if !at.IsZero() {
		w.Header().Set(headerAppliedAt, at.UTC().Format(time.RFC3339Nano))
	}
}

// minSequence is the sequence that the client wants the read model to have seen; 0 when it asks for none.
func minSequence(r *http.Request) (uint64, error) {
	v := r.Header.Get(headerMin)
	if v == "" {
		return 0, nil
	}
	seq, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		return 0, fail(http.StatusBadRequest, fmt.Sprintf("%s: expected a sequence number, got %q", headerMin, v))
	}
	return seq, nil
}

// now is the broker's clock, by which presence is judged; this host's while the broker is away. As of a past moment it is
// that.
func (s *server) now(ctx context.Context) time.Time {
	if s.then.sequence > 0 {
		return s.then.at
	}
	now, err := s.journal.Now(ctx)
	if err != nil {
		return time.Now()
	}
	return now
}

// notModified answers 304 if the client has the document of that tag already.
func notModified(w http.ResponseWriter, r *http.Request, tag string) bool {
	w.Header().Set("ETag", tag)
	if v := r.Header.Get("If-None-Match"); v == "" || v != tag && v != "*" {
		return false
	}
	w.WriteHeader(http.StatusNotModified)
	return true
}
