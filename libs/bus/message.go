package bus

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"

	"kanade/libs/events"
)

// newMessage wraps a stored message for Watermill: headers and place in metadata. Of a header with several values the
// first is kept. The UUID, which Watermill uses in its log only, is the message id.
func newMessage(m RawMsg, delivered uint64) *message.Message {
	w := message.NewMessage(first(m.Header, events.HeaderMsgID), m.Data)
	for name := range m.Header {
		w.Metadata[name] = first(m.Header, name)
	}
	w.Metadata[MetadataStream] = m.Stream
	w.Metadata[MetadataSubject] = m.Subject
	w.Metadata[MetadataSequence] = strconv.FormatUint(m.Seq, 10)
	w.Metadata[MetadataTime] = m.Time.Format(time.RFC3339Nano)
	w.Metadata[MetadataDelivered] = strconv.FormatUint(delivered, 10)
	return w
}

// rawOf undoes newMessage.
func rawOf(w *message.Message) (RawMsg, error) {
	seq, err := strconv.ParseUint(w.Metadata[MetadataSequence], 10, 64)
	if err != nil {
		return RawMsg{}, fmt.Errorf("message without a place in a stream: %w", err)
	}
	at, err := time.Parse(time.RFC3339Nano, w.Metadata[MetadataTime])
	if err != nil {
		return RawMsg{}, fmt.Errorf("message without a time of storage: %w", err)
	}
	return RawMsg{
		Stream: w.Metadata[MetadataStream], Subject: w.Metadata[MetadataSubject], Seq: seq, Time: at,
		Header: events.Header(headerOf(w.Metadata)), Data: w.Payload,
	}, nil
}

func headerOf(metadata message.Metadata) nats.Header {
	h := make(nats.Header, len(metadata))
	for name, value := range metadata {
		if !strings.HasPrefix(name, MetadataPrefix) {
			h[name] = []string{value}
		}
	}
	return h
}

// hold keeps a delivered message from being given to somebody else until its handler has settled it or ctx ends. It
// says whether the handler acknowledged it, and whether it settled it at all.
func hold(ctx context.Context, w *message.Message, interval time.Duration, progress func()) (acked, settled bool) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-w.Acked():
			return true, true
		case <-w.Nacked():
			return false, true
		case <-ticker.C:
			progress()
		case <-ctx.Done():
			select { // what happened before counts
			case <-w.Acked():
				return true, true
			default:
				return false, false
			}
		}
	}
}
