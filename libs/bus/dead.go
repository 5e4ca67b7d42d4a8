package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"kanade/libs/events"
)

// Headers of a parked message, beside its own. Those of its own that mean something to the broker ("Nats-…") are left
// out.
const (
	HeaderDeadReason   = "Kanade-Dead-Reason"
	HeaderDeadHandler  = "Kanade-Dead-Handler"
	HeaderDeadStream   = "Kanade-Dead-Stream"
	HeaderDeadSequence = "Kanade-Dead-Sequence"
	HeaderDeadSubject  = "Kanade-Dead-Subject"
	// HeaderDeadBody says "omitted" where the body was too large to be carried twice: it is in its own stream.
	HeaderDeadBody = "Kanade-Dead-Body"
)

// maxReason and maxDeadBody bound what a parked message carries, in bytes, so that it is never itself refused.
const (
	maxReason   = 4 << 10
	maxDeadBody = events.MaxPayload / 2
)

// Dead is a message that a handler can't process.
type Dead struct {
	// Handler that gives it up.
	Handler string
	Message RawMsg
	// Reason becomes one line, cut to 4 KiB.
	Reason error
	// Once parks it on a subject of its own, dead.<handler>.<stream>.<sequence>: what is there already is left, however long
	// ago it was parked. Without it the subject is dead.<handler>, and a message is parked once for as long as the broker
	// remembers message ids.
	Once bool
}

// Park stores a message in DEAD with its first header values, the reason and the place it came from. A body over half
// of events.MaxPayload is left out. Nil also when it is parked already. Safe for concurrent use.
func (b *Bus) Park(ctx context.Context, d Dead) error {
	sequence := strconv.FormatUint(d.Message.Seq, 10)
	place := d.Message.Stream + "/" + sequence
	m := &nats.Msg{Subject: events.DeadSubject(d.Handler), Header: nats.Header{}, Data: d.Message.Data}
	for name := range d.Message.Header {
		if !strings.HasPrefix(strings.ToLower(name), "nats-") && !strings.HasPrefix(name, MetadataPrefix) {
			m.Header.Set(name, first(d.Message.Header, name))
		}
	}
	m.Header.Set(HeaderDeadReason, headerValue(d.Reason.Error()))
	m.Header.Set(HeaderDeadHandler, d.Handler)
	m.Header.Set(HeaderDeadStream, d.Message.Stream)
	m.Header.Set(HeaderDeadSequence, sequence)
	m.Header.Set(HeaderDeadSubject, d.Message.Subject)
	m.Header.Set(events.HeaderMsgID, d.Handler+"/"+place)
	if len(m.Data) > maxDeadBody {
		m.Data = nil
		m.Header.Set(HeaderDeadBody, "omitted")
	}
	var opts []jetstream.PublishOpt
	if d.Once {
		m.Subject += "." + d.Message.Stream + "." + sequence
		opts = append(opts, jetstream.WithExpectLastSequencePerSubject(0))
	}
	_, err := b.publish(ctx, m, opts...)
	if err != nil && !(d.Once && isWrongLastSequence(err)) {
		return fmt.Errorf("park %s: %w", place, err)
	}
	return nil
}

// park parks what a router's handler gave up, also when the router is told to stop meanwhile.
func (b *Bus) park(w *message.Message, handler string, reason error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.Context()), DefaultTimeout)
	defer cancel()
	seq, _ := strconv.ParseUint(w.Metadata[MetadataSequence], 10, 64) // 0 for what is from no stream
	err := b.Park(ctx, Dead{Handler: handler, Reason: reason, Message: RawMsg{
		Stream: w.Metadata[MetadataStream], Subject: w.Metadata[MetadataSubject], Seq: seq,
		Header: events.Header(headerOf(w.Metadata)), Data: w.Payload,
	}})
	if err != nil {
		return errors.Join(err, reason)
	}
	return nil
}

// headerValue makes one line of a text, cut to maxReason.
func headerValue(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + " …"
	}
	return s
}
