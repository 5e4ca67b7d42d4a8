package wire

import (
	"encoding/json"
	"time"
)

// ObsEvent is an observability event of an endpoint. Subject obs.<pc_id>, from agents: one for each readable stdout line
// of a job with EmitConfig, and from the agent itself (kind KindAgentUpdate).
type ObsEvent struct {
	// PCID is the agent's own, whatever the script wrote.
	PCID string `json:"pc_id"`
	// At is when it happened, as the script says.
	At     time.Time `json:"at"`
	Kind   string    `json:"kind"`
	Source string    `json:"source"`
	// EventRecordID makes, with PCID and Source, the key by which duplicates are known; nil never meets another.
	EventRecordID *string `json:"event_record_id,omitzero"`
	// Payload is any JSON; nil is null.
	Payload json.RawMessage `json:"payload" wire:"default"`
}

// KindAgentUpdate is an agent's report of its own update, payload {from, to}.
const KindAgentUpdate = "agent_update"

// DecodeObsEvent reads an ObsEvent. Errors wrap *FieldError.
func DecodeObsEvent(data []byte) (ObsEvent, error) { return decode[ObsEvent]("obs event", data) }

// UnmarshalJSON is DecodeObsEvent.
func (e *ObsEvent) UnmarshalJSON(data []byte) (err error) { *e, err = DecodeObsEvent(data); return err }

// MarshalJSON writes the wire's form.
func (e ObsEvent) MarshalJSON() ([]byte, error) { return encode(e) }
