package projector

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/ThreeDotsLabs/watermill/message"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// handler is what DEAD knows the projector as.
const handler = "projector"

// maxReason and maxBody bound what a parked message carries, in bytes, so that it is never itself refused.
const (
	maxReason = 4 << 10
	maxBody   = events.MaxPayload / 2
)

// park stores a message in DEAD, on a subject of its own: dead.projector.<stream>.<sequence>. A second projector, or the
// same one that builds its model anew, finds it there and leaves it.
func park(ctx context.Context, b *bus.Bus, p readmodel.Poison) error {
	sequence := strconv.FormatUint(p.Message.Seq, 10)
	w := message.NewMessage(handler+"/"+p.Message.Stream+"/"+sequence, p.Message.Data)
	w.SetContext(ctx)
	for name, values := range p.Message.Header {
		// What begins so means something to the broker, or to Publisher.
		if !strings.HasPrefix(strings.ToLower(name), "nats-") && !strings.HasPrefix(name, bus.MetadataPrefix) && len(values) > 0 {
			w.Metadata[name] = values[0]
		}
	}
	w.Metadata[events.HeaderMsgID] = w.UUID
	w.Metadata[bus.HeaderDeadHandler] = handler
	w.Metadata[bus.HeaderDeadStream] = p.Message.Stream
	w.Metadata[bus.HeaderDeadSequence] = sequence
	w.Metadata[bus.HeaderDeadSubject] = p.Message.Subject
	w.Metadata[bus.HeaderDeadReason] = oneLine(p.Err.Error())
	w.Metadata[bus.MetadataExpected] = "0"
	if len(w.Payload) > maxBody {
		w.Payload = nil
		w.Metadata[bus.HeaderDeadBody] = "omitted"
	}
	err := b.Publisher().Publish(events.DeadSubject(handler)+"."+p.Message.Stream+"."+sequence, w)
	if err != nil && !errors.Is(err, bus.ErrConflict) {
		return fmt.Errorf("park message %s of %s: %w", sequence, p.Message.Stream, err)
	}
	return nil
}

// oneLine makes a header's value of a text.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + " …"
	}
	return s
}
