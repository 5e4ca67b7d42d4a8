package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"kanade/libs/events"
	"kanade/services/api/internal/journal"
)

func getHealth(w http.ResponseWriter, _ *http.Request, _ string) error {
	return writeBytes(w, "text/plain; charset=utf-8", []byte("ok"))
}

func (s *server) getVersion(w http.ResponseWriter, _ *http.Request, _ string) error {
	return writeJSON(w, map[string]string{"version": s.Version})
}

// readiness says what the API can do at the moment: writes need the broker, reads a read model, however old.
type readiness struct {
	Ready     bool         `json:"ready"`
	Broker    brokerState  `json:"broker"`
	ReadModel readingState `json:"read_model"`
}

type brokerState struct {
	Connected bool   `json:"connected"`
	Error     string `json:"error,omitempty"`
	// LastSequence of the log; 0 while unknown.
	LastSequence uint64 `json:"last_sequence"`
}

type readingState struct {
	Present         bool    `json:"present"`
	Error           string  `json:"error,omitempty"`
	AppliedSequence uint64  `json:"applied_sequence"`
	AppliedAt       instant `json:"applied_at"`
	// Lag is how many sequences it is behind, AgeSecs how old its last message is while it is behind; both 0 while the
	// log's end is unknown.
	Lag     uint64  `json:"lag"`
	AgeSecs float64 `json:"age_secs"`
}

func (s *server) getReady(w http.ResponseWriter, r *http.Request, _ string) error {
	state := s.readiness(r.Context())
	body, err := json.Marshal(state)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	if !state.Ready {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = w.Write(body)
	return nil
}

func (s *server) readiness(ctx context.Context) (state readiness) {
	applied, at, err := s.Reader.Applied(ctx)
	model := &state.ReadModel
	if err != nil {
		model.Error = err.Error()
	} else {
		model.Present, model.AppliedSequence, model.AppliedAt = true, applied, instant(at)
	}
	broker := &state.Broker
	if broker.Connected = s.Bus.Connected(); !broker.Connected {
		broker.Error = "not connected"
		return state
	}
	ctx, cancel := context.WithTimeout(ctx, journal.Timeout)
	defer cancel()
	if broker.LastSequence, err = s.Bus.LastSeq(ctx, events.StreamLog); err != nil {
		broker.Error = err.Error()
		return state
	}
	if model.Present && broker.LastSequence > applied {
		model.Lag = broker.LastSequence - applied
		if !at.IsZero() {
			model.AgeSecs = s.now(ctx).Sub(at).Round(time.Millisecond).Seconds()
		}
	}
	state.Ready = model.Present
	return state
}
