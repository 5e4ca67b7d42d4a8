package wire

import "time"

// EventStarted says that a script is about to start, after the jitter. Subject events.started.<exec_id>.<pc_id>, from
// agents, only for commands with an exec id. It comes at least once, before or after its ExecResult.
type EventStarted struct {
	ResultID  string `json:"result_id"`
	RequestID string `json:"request_id"`
	ExecID    string `json:"exec_id"`
	PCID      string `json:"pc_id"`
	// StartedAt is the agent's clock.
	StartedAt time.Time `json:"started_at"`
	// ManifestID is the job's id.
	ManifestID string `json:"manifest_id"`
	Version    string `json:"version"`
}

// DecodeEventStarted reads an EventStarted. Errors wrap *FieldError.
func DecodeEventStarted(data []byte) (EventStarted, error) {
	return decode[EventStarted]("started event", data)
}

// UnmarshalJSON is DecodeEventStarted.
func (e *EventStarted) UnmarshalJSON(data []byte) (err error) {
	*e, err = DecodeEventStarted(data)
	return err
}

// MarshalJSON writes the wire's form.
func (e EventStarted) MarshalJSON() ([]byte, error) { return encode(e) }
