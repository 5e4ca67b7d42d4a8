package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// meter counts requests by route template, so that ids do not become labels.
type meter struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMeter(reg prometheus.Registerer) (*meter, error) {
	m := &meter{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kanade_http_requests_total", Help: "Requests answered, by route template, method and status.",
		}, []string{"route", "method", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kanade_http_request_seconds", Help: "Time to the end of the answer, by route template and method.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route", "method"}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register HTTP metrics: %w", err)
		}
	}
	return m, nil
}

// seen is what the outer layer learns of a request from the inner ones.
type seen struct{ route string }

type seenKey struct{}

// named tells the outer layer which route a request took.
func named(path string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s, ok := r.Context().Value(seenKey{}).(*seen); ok {
			s.route = path
			trace.SpanFromContext(r.Context()).SetName(r.Method + " " + path)
		}
		next.ServeHTTP(w, r)
	})
}

// observed gives every request a span that continues the client's trace, a line in the log at debug level and its place
// in the metrics, and turns a panic into a 500.
func (s *server) observed(m *meter, next http.Handler) http.Handler {
	tracer := otel.Tracer("kanade/services/api")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began, what := time.Now(), &seen{route: "none"}
		ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := tracer.Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer))
		out := &recorder{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			method := knownMethod(r.Method)
			status := strconv.Itoa(out.status)
			m.requests.WithLabelValues(what.route, method, status).Inc()
			m.seconds.WithLabelValues(what.route, method).Observe(time.Since(began).Seconds())
			span.SetAttributes(attribute.String("http.route", what.route), attribute.Int("http.response.status_code", out.status))
			if out.status >= http.StatusInternalServerError {
				span.SetStatus(codes.Error, http.StatusText(out.status))
			}
			span.End()
			s.Logger.Debug("request", "method", r.Method, "path", r.URL.EscapedPath(), "status", out.status, "bytes", out.bytes,
				"took", time.Since(began), "from", r.RemoteAddr, "source", r.Header.Get("X-Kanade-Source"))
		}()
		defer s.recovered(out, r)
		next.ServeHTTP(out, r.WithContext(context.WithValue(ctx, seenKey{}, what)))
	})
}

// recovered answers a panic. One that aborts the answer on purpose goes on.
func (s *server) recovered(w *recorder, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(p)
	}
	s.Logger.Error("panic in a request", "method", r.Method, "path", r.URL.Path, "panic", p, "stack", string(debug.Stack()))
	if !w.begun {
		writeFailure(w, r, failureOf(fmt.Errorf("panic: %v", p)))
	}
}

// knownMethod keeps what clients invent out of the labels.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodPatch:
		return method
	}
	return "other"
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
	begun  bool
}

func (r *recorder) WriteHeader(status int) {
	if !r.begun {
		r.status, r.begun = status, true
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	r.begun = true
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
