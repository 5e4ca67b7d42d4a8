package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// health serves /healthz (the process works), /readyz (the broker is connected) and /metrics. Its zero value serves
// nothing.
type health struct {
	server    *http.Server
	done      chan struct{}
	connected atomic.Pointer[func() bool]
}

func serveHealth(c Config, d Deps) (*health, error) {
	h := &health{}
	if d.Listener == nil && c.Listen == "" {
		return h, nil
	}
	if d.Listener == nil {
		var err error
		if d.Listener, err = net.Listen("tcp", c.Listen); err != nil {
			return nil, fmt.Errorf("listen for health and metrics: %w", err)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", h.serveReady)
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.Metrics, promhttp.HandlerOpts{}))
	h.server, h.done = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}, make(chan struct{})
	go func() {
		defer close(h.done)
		if err := h.server.Serve(d.Listener); !errors.Is(err, http.ErrServerClosed) {
			d.Logger.Error("health and metrics are not served any more", "error", err)
		}
	}()
	return h, nil
}

func (h *health) ready(connected func() bool) { h.connected.Store(&connected) }

func (h *health) serveReady(w http.ResponseWriter, _ *http.Request) {
	if connected := h.connected.Load(); connected == nil || !(*connected)() {
		http.Error(w, "the broker is not connected", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

func (h *health) close() {
	if h.server != nil {
		_ = h.server.Close()
		<-h.done
	}
}

// Healthcheck asks a running agent of the same configuration whether it works. Without Config.Listen there is nobody to
// ask, which is an error.
func Healthcheck(ctx context.Context, c Config) error {
	if c.Listen == "" {
		return errors.New("healthcheck: the agent serves no health (set --listen)")
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("healthcheck: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/healthz", nil)
	if err != nil {
		return fmt.Errorf("healthcheck: %w", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("healthcheck: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("healthcheck: the agent answers %s", res.Status)
	}
	return nil
}
