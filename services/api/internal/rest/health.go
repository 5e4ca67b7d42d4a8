package rest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"kanade/libs/readmodel"
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
	// Schema is the version of the form that this API reads, Slots the copies of it. What stands above is of the one that is
	// asked.
	Schema string      `json:"schema"`
	Slots  []slotState `json:"slots"`
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
	model.Schema, model.Slots = readmodel.SchemaID(), []slotState{}
	if err != nil {
		model.Error = err.Error()
	} else {
		model.Present, model.AppliedSequence, model.AppliedAt = true, applied, instant(at)
	}
	last := s.brokerState(ctx, &state.Broker)
	if slots, err := s.slotStates(ctx, last); err == nil {
		model.Slots = slots
	} else if model.Error == "" {
		model.Error = err.Error()
	}
	if last == nil {
		return state
	}
	var other *otherLog
	if errors.As(s.checkLog(ctx), &other) {
		model.Error = other.Error()
		return state
	}
	if model.Present && *last > applied {
		model.Lag = *last - applied
		if !at.IsZero() {
			model.AgeSecs = seconds(s.now(ctx).Sub(at))
		}
	}
	state.Ready = model.Present
	return state
}

// brokerState says how the broker is, and gives the log's end if it is to be had.
func (s *server) brokerState(ctx context.Context, broker *brokerState) (last *uint64) {
	if broker.Connected = s.Bus.Connected(); !broker.Connected {
		broker.Error = "not connected"
		return nil
	}
	last, err := s.logEnd(ctx)
	if err != nil {
		broker.Error = err.Error()
		return nil
	}
	broker.LastSequence = *last
	return last
}
