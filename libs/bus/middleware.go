package bus

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"kanade/libs/events"
)

// TraceParent is the trace context of ctx in its W3C form, for events.Meta and headers; empty without a trace.
func TraceParent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[events.HeaderTraceParent]
}

// WithTraceParent continues the trace of a message in ctx; without one ctx comes back as it is.
func WithTraceParent(ctx context.Context, traceParent string) context.Context {
	if traceParent == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{events.HeaderTraceParent: traceParent})
}

func endSpan(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// traced continues the trace that the message was emitted in.
func (b *Bus) traced(next message.HandlerFunc) message.HandlerFunc {
	return func(w *message.Message) ([]*message.Message, error) {
		before := w.Context()
		ctx, span := b.tracer.Start(WithTraceParent(before, w.Metadata[events.HeaderTraceParent]),
			"handle "+message.HandlerNameFromCtx(before), trace.WithSpanKind(trace.SpanKindConsumer),
			trace.WithAttributes(
				attribute.String("messaging.destination.name", w.Metadata[MetadataSubject]),
				attribute.String("kanade.stream", w.Metadata[MetadataStream]),
				attribute.String("kanade.sequence", w.Metadata[MetadataSequence])))
		w.SetContext(ctx)
		out, err := next(w)
		w.SetContext(before)
		endSpan(span, err)
		return out, err
	}
}

// settled decides what a handler's error means, counts it and says it.
func (b *Bus) settled(next message.HandlerFunc) message.HandlerFunc {
	return func(w *message.Message) ([]*message.Message, error) {
		handler := message.HandlerNameFromCtx(w.Context())
		start := time.Now()
		out, err := next(w)
		outcome := outcomeDone
		log := b.logger.With("handler", handler, "stream", w.Metadata[MetadataStream],
			"sequence", w.Metadata[MetadataSequence], "subject", w.Metadata[MetadataSubject])
		if IsPermanent(err) {
			if parkErr := b.park(w, handler, err); parkErr != nil {
				err = parkErr
			} else {
				log.Error("parked message", "reason", err)
				outcome, err = outcomeParked, nil
			}
		}
		if err != nil {
			outcome = outcomeRetried
			if errors.Is(err, context.Canceled) {
				log.Debug("handler was interrupted", "error", err)
			} else {
				log.Warn("handler failed; trying again", "delivered", w.Metadata[MetadataDelivered], "error", err)
			}
		}
		b.metrics.handled(handler, outcome, time.Since(start))
		return out, err
	}
}

// recovered turns a panic into an error, which is tried again like any other: whether the message alone caused it can't
// be told, and a defect that is mended should find the message still there.
func recovered(next message.HandlerFunc) message.HandlerFunc {
	return func(w *message.Message) (out []*message.Message, err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("handler panicked: %v\n%s", p, debug.Stack())
			}
		}()
		return next(w)
	}
}
