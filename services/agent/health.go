package agent

import (
	"context"
	"net"
	"sync/atomic"

	"kanade/libs/process"
)

// health serves /healthz (the process lives), /readyz (the broker is connected) and /metrics. Its zero value serves
// nothing.
type health struct {
	connected atomic.Pointer[func() bool]
	stop      context.CancelFunc
	done      chan struct{}
}

// readiness is what /readyz answers.
type readiness struct {
	Connected bool `json:"connected"`
}

func serveHealth(c Config, d Deps) (*health, error) {
	h := &health{}
	if d.Listener == nil && c.Listen == "" {
		return h, nil
	}
	l := d.Listener
	if l == nil {
		var err error
		if l, err = process.Listen(c.Listen, "--listen or KANADE_AGENT_LISTEN"); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.stop, h.done = cancel, make(chan struct{})
	go func() {
		defer close(h.done)
		if err := h.serve(ctx, l, d); err != nil {
			d.Logger.Error("health and metrics are not served any more", "error", err)
		}
	}()
	return h, nil
}

func (h *health) serve(ctx context.Context, l net.Listener, d Deps) error {
	return process.Health{Metrics: d.Metrics, Ready: func(context.Context) (any, bool) {
		connected := h.connected.Load()
		r := readiness{Connected: connected != nil && (*connected)()}
		return r, r.Connected
	}}.Serve(ctx, l)
}

func (h *health) ready(connected func() bool) { h.connected.Store(&connected) }

func (h *health) close() {
	if h.stop != nil {
		h.stop()
		<-h.done
	}
}
