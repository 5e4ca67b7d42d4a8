package projector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"kanade/libs/bus"
)

// maxLag is how many messages a projector may be behind and still be ready.
const maxLag = 1000

// probeTimeout bounds a readiness check, which asks the broker.
const probeTimeout = 2 * time.Second

// position is how far one stream is, as /readyz says it.
type position struct {
	Stream  string `json:"stream"`
	Applied uint64 `json:"applied"`
	Lag     uint64 `json:"lag"`
	Error   string `json:"error,omitempty"`
}

// serve answers GET /healthz (the process lives), /readyz (200 when every stream is at most maxLag messages behind and
// nothing hinders it, else 503; either way with the positions) and /metrics, until ctx ends.
func serve(ctx context.Context, l net.Listener, b *bus.Bus, feeds []*feed, registry *prometheus.Registry) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) { ready(w, r, b, feeds) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve health checks: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTimeout)
	defer cancel()
	if err := server.Shutdown(stop); err != nil {
		_ = server.Close()
	}
	<-ended
	return nil
}

func ready(w http.ResponseWriter, r *http.Request, b *bus.Bus, feeds []*feed) {
	ctx, cancel := context.WithTimeout(r.Context(), probeTimeout)
	defer cancel()
	status := http.StatusOK
	positions := make([]position, len(feeds))
	for i, f := range feeds {
		applied, lag, err := f.lag(ctx)
		positions[i] = position{Stream: f.stream, Applied: applied, Lag: lag}
		if err != nil {
			positions[i].Error = err.Error()
		}
		if err != nil || lag > maxLag {
			status = http.StatusServiceUnavailable
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(positions)
}

// Healthcheck asks the projector that the same Config runs on this machine whether it lives.
func Healthcheck(ctx context.Context, c Config) error {
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/healthz", nil)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return errors.New("check health: " + answer.Status)
	}
	return nil
}
