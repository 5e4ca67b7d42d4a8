package projector

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"kanade/libs/bus"
	"kanade/libs/events"
)

// traced is a fact that was emitted within a trace.
type traced struct {
	parent, subject string
	sequence        uint64
}

func tracedIn(raw []bus.RawMsg) []traced {
	var found []traced
	for _, m := range raw {
		if parent := m.Header[events.HeaderTraceParent]; len(parent) > 0 {
			found = append(found, traced{parent[0], m.Subject, m.Seq})
		}
	}
	return found
}

// batchSpan is the span of one transaction, and of what it applied for others: a request's trace ends with the row.
type batchSpan struct {
	trace.Span
	tracer trace.Tracer
	traced []traced
}

func startBatch(ctx context.Context, stream string, b batch) batchSpan {
	tracer := otel.Tracer("kanade/services/projector")
	_, span := tracer.Start(ctx, "project "+stream, trace.WithAttributes(
		attribute.Int("kanade.messages", b.Len()), attribute.Int64("kanade.sequence", int64(b.Last()))))
	return batchSpan{span, tracer, b.traced}
}

// end ends the batch's span, and makes one in the trace of each fact that bears one. Without a tracing SDK there are no
// valid spans, and nothing is made.
func (s batchSpan) end(ctx context.Context, started time.Time, err error) {
	if err != nil {
		s.SetStatus(codes.Error, err.Error())
	}
	s.Span.End()
	if err != nil || !s.SpanContext().IsValid() {
		return
	}
	link := trace.WithLinks(trace.Link{SpanContext: s.SpanContext()})
	for _, m := range s.traced {
		_, span := s.tracer.Start(bus.WithTraceParent(ctx, m.parent), "project "+m.subject, trace.WithTimestamp(started),
			trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(attribute.Int64("kanade.sequence", int64(m.sequence))), link)
		span.End()
	}
}
