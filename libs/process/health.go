package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// readyTimeout bounds one look at readiness.
	readyTimeout = 2 * time.Second
	// checkTimeout bounds a health check.
	checkTimeout = 3 * time.Second
)

// Health answers GET /healthz (the process lives), /readyz (200 when it can do its work, else 503, with the state as
// JSON) and /metrics.
type Health struct {
	// Ready says what the process can do at the moment, and whether that is all it is there for. It is called for every
	// request, with at most two seconds of time, by several goroutines.
	Ready func(ctx context.Context) (state any, ok bool)
	// Metrics is what /metrics shows.
	Metrics prometheus.Gatherer
}

// Mount puts the three routes on a mux.
func (h Health) Mount(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", h.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(h.Metrics, promhttp.HandlerOpts{}))
}

func (h Health) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	state, ok := h.Ready(ctx)
	w.Header().Set("Content-Type", "application/json")
	if !ok {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(state)
}

// Serve serves the routes until ctx ends, then nil. It closes the listener.
func (h Health) Serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	h.Mount(mux)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve health and metrics: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
	defer cancel()
	if err := server.Shutdown(stop); err != nil {
		_ = server.Close()
	}
	<-ended
	return nil
}

// Listen is net.Listen for TCP with an error that names the setting to change.
func Listen(address, setting string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("the port of %s is in use by another process; choose another with %s: %w", address, setting, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s (change it with %s): %w", address, setting, err)
	}
	return l, nil
}

// Healthcheck asks the process that listens at an address of this machine for /readyz; nil if it is ready. For container
// health checks.
func Healthcheck(ctx context.Context, listen string) error {
	if listen == "" {
		return errors.New("check health: the process serves no health (give it an address to listen on)")
	}
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("check health: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(io.LimitReader(answer.Body, 4096))
		return fmt.Errorf("check health: %s: %s", answer.Status, strings.TrimSpace(string(body)))
	}
	return nil
}
