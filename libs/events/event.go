package events

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Actor says who caused a fact, as "<kind>:<name>". Kinds: user, schedule, agent, service, cli.
type Actor string

// NewActor joins kind and name.
func NewActor(kind, name string) Actor { return Actor(kind + ":" + name) }

// Kind is the part before the first colon.
func (a Actor) Kind() string { kind, _, _ := strings.Cut(string(a), ":"); return kind }

// Name is the part after the first colon.
func (a Actor) Name() string { _, name, _ := strings.Cut(string(a), ":"); return name }

// Payload is a typed fact. EventType is its versioned name ("kanade.exec.requested.v1"); AggregateID is the id of the
// aggregate it belongs to, unescaped.
type Payload interface {
	EventType() string
	AggregateID() string
}

// Meta is what an envelope says beside the fact itself.
type Meta struct {
	// ID identifies the fact. An effect's id is derived from its cause, so doing a thing twice is storing it once.
	ID string
	// Source is the emitting service as a URI reference: "/kanade/api".
	Source string
	// Time is when it happened, by the broker's clock.
	Time time.Time
	// Actor is who caused it.
	Actor Actor
	// Origin is what the client that an operator used calls itself ("cli"); empty where it did not say, and for what no
	// operator did.
	Origin string
	// CausationID is the id of the fact that this one answers; empty for what people and endpoints begin.
	CausationID string
	// CorrelationID groups everything that follows from one request: an exec's id for all facts of an exec.
	CorrelationID string
	// TraceParent is the W3C trace context that the fact was emitted in; empty without tracing.
	TraceParent string
}

// Event is one fact with its envelope: what is appended to the log and what is read from it.
type Event struct {
	Meta
	// Type is the versioned type name.
	Type string
	// Subject is the id of the aggregate, unescaped (CloudEvents' subject, not the NATS subject).
	Subject string
	// Data is the fact as JSON.
	Data []byte
	// compressed is Data as it is stored, where Compressed has made it.
	compressed []byte
}

// New makes an event of a payload. The id must be there: callers draw it or derive it, so that this package draws
// nothing.
func New(p Payload, m Meta) (Event, error) {
	if m.ID == "" {
		return Event{}, fmt.Errorf("new event %s of %q: no id", p.EventType(), p.AggregateID())
	}
	if p.AggregateID() == "" {
		return Event{}, fmt.Errorf("new event %s: no aggregate id", p.EventType())
	}
	// Not json.Marshal, which would write <, > and & inside of a stored document in another way than its hash was
	// computed over.
	var data bytes.Buffer
	enc := json.NewEncoder(&data)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(p); err != nil {
		return Event{}, fmt.Errorf("encode event %s of %q: %w", p.EventType(), p.AggregateID(), err)
	}
	return Event{Meta: m, Type: p.EventType(), Subject: p.AggregateID(), Data: bytes.TrimSuffix(data.Bytes(), []byte("\n"))}, nil
}

// Aggregate is the kind of thing the event is about, read from its type.
func (e Event) Aggregate() Aggregate {
	a, _ := splitType(e.Type)
	return a
}

// Fact is the past-tense word of the event's type: "requested".
func (e Event) Fact() string {
	_, f := splitType(e.Type)
	return f
}

// NATSSubject is where the event is stored.
func (e Event) NATSSubject() string {
	a, f := splitType(e.Type)
	return FactSubject(a, e.Subject, f)
}

// splitType reads "kanade.<aggregate>.<fact>.v<n>".
func splitType(t string) (Aggregate, string) {
	rest, ok := strings.CutPrefix(t, "kanade.")
	aggregate, rest, _ := strings.Cut(rest, ".")
	fact, version, _ := strings.Cut(rest, ".")
	if !ok || version == "" || strings.Contains(version, ".") {
		return "", ""
	}
	return Aggregate(aggregate), fact
}

// DecodeError says that a stored message can't be read as the fact it claims to be. It is decided by the message
// alone: reading it again changes nothing, so handlers park it.
type DecodeError struct {
	RawSubject, Type string
	Err              error
}

func (e *DecodeError) Error() string {
	return fmt.Sprintf("decode event %s on %s: %v", e.Type, e.RawSubject, e.Err)
}

func (e *DecodeError) Unwrap() error { return e.Err }

// Payload decodes the data by the event's type. The result is a value of the registered type, not a pointer. An
// unknown type and data of another shape are a *DecodeError.
func (e Event) Payload() (Payload, error) {
	info, ok := TypeByName(e.Type)
	if !ok {
		return nil, &DecodeError{RawSubject: e.Subject, Type: e.Type, Err: fmt.Errorf("unknown type")}
	}
	p, err := info.decode(e.Data)
	if err != nil {
		return nil, &DecodeError{RawSubject: e.Subject, Type: e.Type, Err: err}
	}
	return p, nil
}

// namespace is the UUIDv5 namespace of every derived id. It is part of the log's format: changing it would give known
// effects new ids.
var namespace = uuid.MustParse("6f0c9a0e-8a5c-5d1e-9d0f-6b616e616465")

// DeriveID is the id of an effect: UUIDv5 over the cause's id and what the effect is. The parts are joined by a byte
// that no id contains.
func DeriveID(cause string, parts ...string) string {
	return uuid.NewSHA1(namespace, []byte(cause+"\x00"+strings.Join(parts, "\x00"))).String()
}
