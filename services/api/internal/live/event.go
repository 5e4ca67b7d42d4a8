package live

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"

	"kanade/libs/bus"
	"kanade/libs/events"
)

// Event is a fact of the log as the stream shows it.
type Event struct {
	Sequence uint64 `json:"sequence"`
	// Time is when it happened by its envelope; for messages without one, when the broker stored them.
	Time time.Time `json:"time"`
	// Type is the versioned type; "undecodable" for a message that is no fact, whose Data is then its body as text.
	Type          string          `json:"type"`
	ID            string          `json:"id"`
	Subject       string          `json:"subject"`
	Actor         events.Actor    `json:"actor"`
	CausationID   string          `json:"causation_id,omitempty"`
	CorrelationID string          `json:"correlation_id,omitempty"`
	Data          json.RawMessage `json:"data"`
	// Error says why a message can't be decoded.
	Error string `json:"error,omitempty"`
}

// typeUndecodable is the type of messages that can't be decoded.
const typeUndecodable = "undecodable"

// Filter is what a client wants to see. The zero value lets everything pass.
type Filter struct {
	// ExecID keeps the facts of one exec: its own, and what endpoints reported of it.
	ExecID string
	// Types keeps facts of these types.
	Types []string
}

// View turns a stored message into an event; false if the filter drops it.
func (f Filter) View(m bus.RawMsg) (Event, bool) {
	e, err := m.Event()
	if err != nil {
		return undecodable(m, err), f.ExecID == "" && f.wants(typeUndecodable)
	}
	if !f.wants(e.Type) || f.ExecID != "" && !f.concerns(e) {
		return Event{}, false
	}
	v := Event{
		Sequence: m.Seq, Time: e.Time, Type: e.Type, ID: e.ID, Subject: e.Subject, Actor: e.Actor,
		CausationID: e.CausationID, CorrelationID: e.CorrelationID, Data: e.Data,
	}
	if v.Time.IsZero() {
		v.Time = m.Time
	}
	if v.Subject == "" {
		v.Subject = m.Subject
	}
	if !json.Valid(v.Data) {
		v.Data = text(v.Data)
	}
	return v, true
}

func undecodable(m bus.RawMsg, err error) Event {
	return Event{Sequence: m.Seq, Time: m.Time, Type: typeUndecodable, Subject: m.Subject, Data: text(m.Data), Error: err.Error()}
}

// text is bytes as a JSON string; what is not UTF-8 is replaced.
func text(data []byte) json.RawMessage {
	quoted, err := json.Marshal(string(data))
	if err != nil {
		return json.RawMessage(`""`)
	}
	return quoted
}

func (f Filter) wants(eventType string) bool {
	return len(f.Types) == 0 || slices.Contains(f.Types, eventType)
}

// concerns tells whether a fact is one of the exec: of its aggregate, or of a run that names it.
func (f Filter) concerns(e events.Event) bool {
	if e.Aggregate() == events.AggregateExec {
		return e.Subject == f.ExecID
	}
	if !bytes.Contains(e.Data, []byte(f.ExecID)) { // cheaper than decoding every run of the fleet
		return false
	}
	run, ok, err := events.RunFactOf(e)
	return err == nil && ok && run.ExecID == f.ExecID
}
