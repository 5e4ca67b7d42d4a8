package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"kanade/libs/events"
)

// Any as expected sequence appends without a check.
const Any = ^uint64(0)

// Errors of Append.
var (
	// ErrConflict: the aggregate has facts that the decision did not know. Fold again and decide again.
	ErrConflict = errors.New("aggregate has changed")
	// ErrLogFull: the log has reached its byte limit and refuses everything until it is given room.
	ErrLogFull = errors.New("log is full")
)

// Conflict is what Append returns to a stale writer; errors.Is(err, ErrConflict) holds for it.
type Conflict struct {
	// Filter is the aggregate, as a subject filter.
	Filter string
	// Expected is the last sequence that the writer knew, Last the one that was found. Last is at most Expected if the
	// newer facts have left the log already.
	Expected, Last uint64
}

func (e *Conflict) Error() string {
	return fmt.Sprintf("%v: %s is at sequence %d, not %d", ErrConflict, e.Filter, e.Last, e.Expected)
}

// Is makes every Conflict an ErrConflict.
func (e *Conflict) Is(target error) bool { return target == ErrConflict }

// Stored is a fact as the log holds it.
type Stored struct {
	events.Event
	// Seq is its sequence in the stream it was read from.
	Seq uint64
	// StoredAt is when the broker stored it, by its own clock, UTC.
	StoredAt time.Time
	// RawSubject is the NATS subject.
	RawSubject string
}

// Append writes one fact to the log and returns its sequence. Unless expectedLast is Any, the log's last sequence over
// everything of the event's aggregate must be expectedLast (0: nothing there), else the error is a *Conflict. An event
// whose id is stored already counts as appended: with a check if it lies after expectedLast, without one if it is not
// older than the log's duplicate window. So after ErrUnavailable the same event with the same expectation may be
// appended again, and doing it twice is doing it once.
//
// An event without trace context gets that of ctx. Errors: *Conflict, ErrLogFull, ErrUnavailable.
func (b *Bus) Append(ctx context.Context, e events.Event, expectedLast uint64) (seq uint64, err error) {
	ctx, span := b.tracer.Start(ctx, "append "+e.Type, trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(attribute.String("kanade.aggregate.id", e.Subject)))
	defer func() {
		endSpan(span, err)
		b.metrics.appended(err)
	}()
	if e.TraceParent == "" {
		e.TraceParent = TraceParent(ctx)
	}
	header, body, err := e.Encode()
	if err != nil {
		return 0, fmt.Errorf("append %s of %q: %w", e.Type, e.Subject, err)
	}
	var opts []jetstream.PublishOpt
	filter := events.AggregateFilter(e.Aggregate(), e.Subject)
	if expectedLast != Any {
		opts = append(opts, jetstream.WithExpectLastSequenceForSubject(expectedLast, filter))
	}
	seq, err = b.publish(ctx, &nats.Msg{Subject: e.NATSSubject(), Header: header, Data: body}, opts...)
	if isWrongLastSequence(err) {
		seq, err = b.resolve(ctx, filter, e.ID, expectedLast)
	}
	if err != nil {
		return 0, fmt.Errorf("append %s of %q: %w", e.Type, e.Subject, err)
	}
	return seq, nil
}

// resolve looks, after the broker has refused an append, whether it had been stored before: the broker checks the
// sequence before it looks for duplicates, so that a repeated append is refused because of itself, and another writer
// may have followed it at once. It asks the leader, and looks no further than what the log held then: others may write
// faster than it reads.
func (b *Bus) resolve(ctx context.Context, filter, id string, expected uint64) (uint64, error) {
	conflict := &Conflict{Filter: filter, Expected: expected}
	last, ok, err := b.getRaw(ctx, events.StreamLog, getRequest{LastFor: filter})
	if err != nil {
		return 0, err
	}
	if !ok {
		return 0, conflict
	}
	for next := expected + 1; ; {
		m, ok, err := b.getRaw(ctx, events.StreamLog, getRequest{Seq: next, NextFor: filter})
		if err != nil {
			return 0, err
		}
		if !ok || m.Seq > last.Seq {
			return 0, conflict
		}
		if first(m.Header, events.HeaderMsgID) == id {
			return m.Seq, nil
		}
		conflict.Last, next = m.Seq, m.Seq+1
	}
}

// publish sends one message to the stream of its subject and waits for the acknowledgement.
func (b *Bus) publish(ctx context.Context, m *nats.Msg, opts ...jetstream.PublishOpt) (uint64, error) {
	ctx, cancel, err := b.ready(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	ack, err := b.js.PublishMsg(ctx, m, opts...)
	if err != nil {
		return 0, publishError(err)
	}
	return ack.Sequence, nil
}

// Numbers of the broker's errors that the client has no names for.
const (
	errStoreFailed = 10077 // among others: a limit reached by a stream that discards new messages
	errNoMessage   = 10037
	// errWrongLastInFlight is 10071 of a cluster's leader that has another message for the subject under way.
	errWrongLastInFlight = 10164
)

func publishError(err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == errStoreFailed && strings.Contains(api.Description, "maximum") {
		return fmt.Errorf("%w: %w", ErrLogFull, err)
	}
	return unavailable(err)
}

func isWrongLastSequence(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) &&
		(api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == errWrongLastInFlight)
}

func first(h events.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}
