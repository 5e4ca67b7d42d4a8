package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"kanade/libs/events"
)

// Metadata keys of messages that the subscribers of this package deliver, beside the message's own headers. What begins
// with MetadataPrefix is never sent to the broker.
const (
	MetadataPrefix    = "kanade/"
	MetadataStream    = MetadataPrefix + "stream"
	MetadataSubject   = MetadataPrefix + "subject"
	MetadataSequence  = MetadataPrefix + "sequence"  // decimal
	MetadataTime      = MetadataPrefix + "time"      // RFC 3339 with nanoseconds, when the broker stored it
	MetadataDelivered = MetadataPrefix + "delivered" // decimal, 1 the first time
	metadataReply     = MetadataPrefix + "reply"
	// MetadataExpected is read by Publisher: the sequence that must be the last one on the message's subject.
	MetadataExpected = MetadataPrefix + "expected"
)

// Publisher publishes Watermill messages: topic = subject, metadata = headers (Nats-Msg-Id among them), payload = body.
// It waits for the acknowledgement and puts the sequence into the message's metadata (MetadataSequence). Close does
// nothing, so that several handlers of a Router may share it.
func (b *Bus) Publisher() message.Publisher { return publisher{b} }

type publisher struct{ bus *Bus }

func (publisher) Close() error { return nil }

func (p publisher) Publish(topic string, messages ...*message.Message) error {
	for _, m := range messages {
		out := &nats.Msg{Subject: topic, Header: headerOf(m.Metadata), Data: m.Payload}
		if trace := TraceParent(m.Context()); trace != "" && out.Header.Get(events.HeaderTraceParent) == "" {
			out.Header.Set(events.HeaderTraceParent, trace)
		}
		var opts []jetstream.PublishOpt
		if s := m.Metadata.Get(MetadataExpected); s != "" {
			expected, err := strconv.ParseUint(s, 10, 64)
			if err != nil {
				return fmt.Errorf("publish on %s: expected sequence: %w", topic, err)
			}
			opts = append(opts, jetstream.WithExpectLastSequencePerSubject(expected))
		}
		seq, err := p.bus.publish(m.Context(), out, opts...)
		if isWrongLastSequence(err) {
			err = fmt.Errorf("%w: %w", ErrConflict, err)
		}
		if err != nil {
			return fmt.Errorf("publish on %s: %w", topic, err)
		}
		m.Metadata.Set(MetadataSequence, strconv.FormatUint(seq, 10))
	}
	return nil
}

// DefaultWindow is the window of PublishAll where none is given.
const DefaultWindow = 256

// PublishAll publishes messages in order without waiting for each, with at most window of them unacknowledged (0 means
// DefaultWindow), and returns when every acknowledgement has been checked. After an error some may have been stored and
// others not, not necessarily the first ones; *PublishError counts them. Give every message a Nats-Msg-Id.
func (b *Bus) PublishAll(ctx context.Context, msgs []*nats.Msg, window int) error {
	if window <= 0 {
		window = DefaultWindow
	}
	failed := &PublishError{Total: len(msgs)}
	pending := make([]jetstream.PubAckFuture, 0, window)
	for i, m := range msgs {
		if len(pending) == window {
			failed.check(await(ctx, pending[0]))
			pending = pending[1:]
		}
		if failed.Err != nil {
			failed.Failed += len(msgs) - i
			break
		}
		f, err := b.publishAsync(ctx, m)
		if err != nil {
			failed.Failed += len(msgs) - i - 1
			failed.check(err)
			break
		}
		pending = append(pending, f)
	}
	for _, f := range pending {
		failed.check(await(ctx, f))
	}
	if failed.Err != nil {
		return failed
	}
	return nil
}

func (b *Bus) publishAsync(ctx context.Context, m *nats.Msg) (jetstream.PubAckFuture, error) {
	if !b.Connected() { // the contexts of ready cost as much as the publish
		_, cancel, err := b.ready(ctx)
		if err != nil {
			return nil, err
		}
		cancel()
	}
	f, err := b.js.PublishMsgAsync(m)
	return f, unavailable(err)
}

func await(ctx context.Context, f jetstream.PubAckFuture) error {
	select {
	case <-f.Ok():
		return nil
	case err := <-f.Err():
		return publishError(err)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

// PublishError says how many of the messages of PublishAll are not known to be stored, and why the first was not.
type PublishError struct {
	Total, Failed int
	Err           error
}

func (e *PublishError) check(err error) {
	if err == nil {
		return
	}
	e.Failed++
	if e.Err == nil || errors.Is(e.Err, ErrUnavailable) && !errors.Is(err, ErrUnavailable) {
		e.Err = err // what the broker says weighs more than that it was not heard
	}
}

func (e *PublishError) Error() string {
	return fmt.Sprintf("publish: %d of %d messages not acknowledged: %v", e.Failed, e.Total, e.Err)
}

func (e *PublishError) Unwrap() error { return e.Err }
