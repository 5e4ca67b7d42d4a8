package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"kanade/libs/bus"
	"kanade/libs/catalog/fanout"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// A page is what goes out between two looks at the exec: so many commands, or as many as make so many bytes, each of which
// holds the script.
const (
	page      = bus.MaxBatch
	pageBytes = 16 << 20
	// headerRoom is left for headers below what the broker takes as one message.
	headerRoom = 4 << 10
)

// body is the text of all commands of a release: they differ in the request's id only, a UUID.
type body struct{ before, after []byte }

// encodeBody finds the place of the request's id. What stands before it are strings, which hold no quotes of their own.
func encodeBody(c wire.Command) (body, error) {
	const empty, id = `"request_id":""`, len("00000000-0000-0000-0000-000000000000")
	c.RequestID = ""
	text, err := c.MarshalJSON()
	if err != nil {
		return body{}, bus.Permanent(fmt.Errorf("encode: %w", err))
	}
	if size := len(text) + id; size > events.MaxPayload-headerRoom {
		return body{}, bus.Permanent(fmt.Errorf("a command has %d bytes, the limit is %d", size, events.MaxPayload-headerRoom))
	}
	at := bytes.Index(text, []byte(empty))
	if at < 0 {
		return body{}, bus.Permanent(errors.New("encode: no place for the request's id"))
	}
	at += len(empty) - 1
	return body{text[:at], text[at:]}, nil
}

// page makes the next messages of those that have not been sent, and says where the ones after them begin.
func (b body) page(ctx context.Context, commands fanout.Commands, from int, sent map[string][]uint64, now time.Time) (messages []*nats.Msg, next int) {
	trace, sentAt, size := bus.TraceParent(ctx), now.UTC().Format(time.RFC3339Nano), 0
	for next = from; next < commands.Len() && len(messages) < page && size < pageBytes; next++ {
		c := commands.At(next)
		if _, known := sent[c.MessageID]; known {
			continue
		}
		m := &nats.Msg{Subject: c.Subject, Data: slices.Concat(b.before, []byte(c.RequestID), b.after), Header: nats.Header{
			events.HeaderMsgID: {c.MessageID}, events.HeaderSentAt: {sentAt},
		}}
		if trace != "" {
			m.Header.Set(events.HeaderTraceParent, trace)
		}
		size += len(m.Data)
		messages = append(messages, m)
	}
	return messages, next
}
