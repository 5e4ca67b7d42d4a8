package wire

import (
	"encoding/json"
	"time"
)

// AuditEvent says what an operator did. Subject audit.<actor>.<action>[.<target>], from the CLI of 0.43.45 (and its
// backend) over core NATS.
type AuditEvent struct {
	Actor  string `json:"actor"`
	Action string `json:"action"`
	Target string `json:"target,omitzero"`
	// Payload is an object whose keys depend on the action; sub (who) and source (by what client) may be among them. Any
	// JSON is read; nil is null.
	Payload json.RawMessage `json:"payload"`
	// OccurredAt is the writer's clock.
	OccurredAt time.Time `json:"occurred_at"`
}

// DecodeAuditEvent reads an AuditEvent. Errors wrap *FieldError.
func DecodeAuditEvent(data []byte) (AuditEvent, error) {
	return decode[AuditEvent]("audit event", data)
}

// UnmarshalJSON is DecodeAuditEvent.
func (e *AuditEvent) UnmarshalJSON(data []byte) (err error) {
	*e, err = DecodeAuditEvent(data)
	return err
}

// MarshalJSON writes the wire's form.
func (e AuditEvent) MarshalJSON() ([]byte, error) { return encode(e) }
