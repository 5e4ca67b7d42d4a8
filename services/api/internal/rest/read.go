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

// reading makes a handler one that answers from the read model: it waits for what the client wants to see and says how
// far the read model is. The position is read before the handler asks, so that the answer is at least that fresh.
func (s *server) reading(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request, route string) error {
		seq, err := minSequence(r)
		if err != nil {
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
		w.Header().Set(headerApplied, strconv.FormatUint(applied, 10))
		if !at.IsZero() {
			w.Header().Set(headerAppliedAt, at.UTC().Format(time.RFC3339Nano))
		}
		return h(w, r, route)
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

// now is the broker's clock, by which presence is judged; this host's while the broker is away.
func (s *server) now(ctx context.Context) time.Time {
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
