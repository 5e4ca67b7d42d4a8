package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"

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

// park stores a message in DEAD on dead.<handler>. The message id is made of handler and place, so that a message that
// is delivered again is parked once.
func (b *Bus) park(w *message.Message, handler string, reason error) error {
	place := w.Metadata[MetadataStream] + "/" + w.Metadata[MetadataSequence]
	m := &nats.Msg{Subject: events.DeadSubject(handler), Header: headerOf(w.Metadata), Data: w.Payload}
	for name := range m.Header {
		if strings.HasPrefix(strings.ToLower(name), "nats-") {
			delete(m.Header, name)
		}
	}
	m.Header.Set(HeaderDeadReason, headerValue(reason.Error()))
	m.Header.Set(HeaderDeadHandler, handler)
	m.Header.Set(HeaderDeadStream, w.Metadata[MetadataStream])
	m.Header.Set(HeaderDeadSequence, w.Metadata[MetadataSequence])
	m.Header.Set(HeaderDeadSubject, w.Metadata[MetadataSubject])
	m.Header.Set(events.HeaderMsgID, handler+"/"+place)
	if len(m.Data) > maxDeadBody {
		m.Data = nil
		m.Header.Set(HeaderDeadBody, "omitted")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.Context()), DefaultTimeout)
	defer cancel()
	if _, err := b.publish(ctx, m); err != nil {
		return fmt.Errorf("park %s: %w", place, errors.Join(err, reason))
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
