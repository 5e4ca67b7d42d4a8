package systemtest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"kanade/services/agent"
)

// What follows from a request is one trace: from the POST over the scheduler and the endpoint to the rows.
func TestOneTraceFromThePostToTheRow(t *testing.T) {
	spans := record(t)
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.startProjector()
		s.startScheduler("scheduler")
		s.startAPI()
		s.startAgent("pc1", t.TempDir(), s.broker, instant{})
		settle(time.Second)
		s.write(http.MethodPost, "/api/jobs", `{"id":"hello","version":"1.0.0","execute":{"shell":"sh","timeout":"30s","script":"true"}}`)

		const client = "0af7651916cd43dd8448eb211c80319c"
		answer := s.write(http.MethodPost, "/api/exec/hello", `{"target":{"all":true}}`, "traceparent", "00-"+client+"-b7ad6b7169203331-01")
		var requested struct {
			ExecID string `json:"exec_id"`
		}
		require.NoError(t, json.Unmarshal(answer, &requested))
		settle(10 * time.Second)
		var shown state
		s.read("/api/executions/"+requested.ExecID, &shown)
		require.NotNil(t, shown.Execution.Outcome)
		require.Equal(t, "succeeded", *shown.Execution.Outcome)

		traced := family(spans.Ended(), "POST /api/exec/{job_id}")
		exec := "project events.exec." + requested.ExecID
		require.Subset(t, names(traced), []string{
			"append kanade.exec.requested.v1", exec + ".requested",
			"handle dispatch", "append kanade.exec.planned.v1", "append kanade.exec.wave-released.v1", "append kanade.exec.wave-dispatched.v1",
			exec + ".planned", exec + ".wave-released", exec + ".wave-dispatched",
			"append kanade.run.received.v1", "append kanade.run.started.v1", "append kanade.run.finished.v1",
			"project events.run.pc1.received", "project events.run.pc1.started", "project events.run.pc1.finished",
			"append kanade.exec.closed.v1", exec + ".closed",
		})
		for _, span := range traced {
			require.Equal(t, client, span.SpanContext().TraceID().String(), span.Name())
		}
		finished := slices.IndexFunc(traced, func(s sdktrace.ReadOnlySpan) bool { return s.Name() == "project events.run.pc1.finished" })
		told := slices.IndexFunc(traced, func(s sdktrace.ReadOnlySpan) bool { return s.Name() == "append kanade.run.finished.v1" })
		require.Equal(t, traced[told].SpanContext().SpanID(), traced[finished].Parent().SpanID(), "the row follows from what the endpoint told")
	})
}

// record keeps every span of the process in memory until the test ends.
func record(t *testing.T) *tracetest.SpanRecorder {
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(provider)
	t.Cleanup(func() {
		otel.SetTracerProvider(before)
		// The provider of before hands on to this one for ever, which from here on records nothing.
		require.NoError(t, provider.Shutdown(context.WithoutCancel(t.Context())))
	})
	return spans
}

// family are the spans that have the one of a name among their ancestors.
func family(spans []sdktrace.ReadOnlySpan, name string) []sdktrace.ReadOnlySpan {
	byID := map[trace.SpanID]sdktrace.ReadOnlySpan{}
	for _, s := range spans {
		byID[s.SpanContext().SpanID()] = s
	}
	return slices.DeleteFunc(slices.Clone(spans), func(s sdktrace.ReadOnlySpan) bool {
		for s = byID[s.Parent().SpanID()]; s != nil; s = byID[s.Parent().SpanID()] {
			if s.Name() == name {
				return false
			}
		}
		return true
	})
}

func names(spans []sdktrace.ReadOnlySpan) []string {
	var all []string
	for _, s := range spans {
		all = append(all, s.Name())
	}
	return all
}

// instant is an executor whose scripts end at once.
type instant struct{}

func (instant) Supports(string) bool { return true }

func (instant) Run(context.Context, string, agent.Script, []string, io.Writer, io.Writer) (agent.Exit, error) {
	return agent.Exit{}, nil
}
