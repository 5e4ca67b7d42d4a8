package readmodel

import (
	"errors"
	"time"

	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// Message is one message of a stream, as the broker stored it.
type Message struct {
	Stream, Subject string
	Seq             uint64
	// Time is when the broker stored it.
	Time   time.Time
	Header events.Header
	Data   []byte
}

// Poison is a message that can't be decoded. Err is or wraps an *events.DecodeError: every rebuild decides the same.
type Poison struct {
	Message Message
	Err     error
}

// Batch is messages of one stream, decoded. Decoding needs no database, so it can be done while another batch is being
// written.
type Batch struct {
	stream   string
	messages []decoded
}

// Len is the number of messages, poison included.
func (b Batch) Len() int { return len(b.messages) }

// Last is the sequence of the last message; 0 when the batch is empty.
func (b Batch) Last() uint64 {
	if len(b.messages) == 0 {
		return 0
	}
	return b.messages[len(b.messages)-1].seq
}

// Poison is what can't be decoded, whether or not the checkpoint has passed it: what is to be kept is parked before the
// batch is applied.
func (b Batch) Poison() []Poison {
	var poison []Poison
	for i := range b.messages {
		if p := b.messages[i].poison; p != nil {
			poison = append(poison, *p)
		}
	}
	return poison
}

// decoded is one message: a fact, or poison.
type decoded struct {
	fact
	messageID string
	poison    *Poison
}

// fact is what a table applies. Of run, heartbeat, audit and payload exactly one is set.
type fact struct {
	seq uint64
	// at is the broker's time of the message.
	at        time.Time
	event     events.Event
	payload   events.Payload
	run       *events.RunFact
	heartbeat *wire.Heartbeat
	audit     *wire.AuditEvent
}

// Decode reads messages of one stream.
func Decode(stream string, messages []Message) Batch {
	b := Batch{stream: stream, messages: make([]decoded, len(messages))}
	for i, m := range messages {
		d := &b.messages[i]
		d.seq, d.at, d.messageID = m.Seq, m.Time.UTC(), ""
		if id := m.Header[events.HeaderMsgID]; len(id) > 0 {
			d.messageID = id[0]
		}
		var err error
		if stream == events.StreamPresence {
			err = d.decodeHeartbeat(m)
		} else {
			err = d.decodeEvent(m)
		}
		if err != nil {
			d.poison = &Poison{Message: m, Err: err}
		}
	}
	return b
}

func (d *decoded) decodeEvent(m Message) error {
	e, err := events.Decode(m.Subject, m.Header, m.Data)
	if err != nil {
		return err
	}
	run, ok, err := events.RunFactOf(e)
	switch {
	case err != nil:
		return err
	case ok && (run.PCID == "" || run.ResultID == ""):
		return &events.DecodeError{RawSubject: m.Subject, Type: e.Type, Err: errors.New("pc_id or result_id is missing")}
	case ok:
		d.run = &run
	case e.Type == events.TypeWireAudit:
		audit, err := wire.DecodeAuditEvent(e.Data)
		if err != nil {
			return &events.DecodeError{RawSubject: m.Subject, Type: e.Type, Err: err}
		}
		d.audit = &audit
	default:
		if d.payload, err = e.Payload(); err != nil {
			return err
		}
	}
	e.Data = nil
	d.event = e
	return nil
}

func (d *decoded) decodeHeartbeat(m Message) error {
	h, err := wire.DecodeHeartbeat(m.Data)
	if err == nil && h.PCID == "" {
		err = errors.New("pc_id is missing")
	}
	if err != nil {
		return &events.DecodeError{RawSubject: m.Subject, Type: "heartbeat", Err: err}
	}
	d.heartbeat = &h
	return nil
}
