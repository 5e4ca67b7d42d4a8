// Package api is the service that faces people: it speaks HTTP, decides requests against the log, appends facts to the
// log, and answers queries from a read model that it opens read-only. It never writes SQLite and never calls another
// service; with the projector down it accepts writes and answers reads from the last state, saying how old that is; with
// the scheduler down what it accepts is carried out when that is back.
//
// Run is the whole service. The routes are in internal/rest, the decisions in internal/domain, the writing in
// internal/journal, the live event stream in internal/live.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/process"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/live"
	"kanade/services/api/internal/rest"
)

// Config of the service: flags, environment and defaults in one place. A secret may be given as a value or as the name of
// a file that holds it, not both.
type Config struct {
	// Listen is host:port; port 0 takes a free one. An address that other machines can reach needs a configured token.
	Listen string `name:"listen" env:"KANADE_API_LISTEN" default:"127.0.0.1:8080" help:"Address to listen on, host:port."`
	// NATSURL is one or more broker addresses, comma separated.
	NATSURL string `name:"nats-url" env:"KANADE_NATS_URL" default:"nats://127.0.0.1:4222" help:"Broker addresses, comma separated."`
	// NATSToken is what the broker demands; empty for none.
	NATSToken     string `name:"nats-token" env:"KANADE_NATS_TOKEN" help:"Token for the broker."`
	NATSTokenFile string `name:"nats-token-file" env:"KANADE_NATS_TOKEN_FILE" type:"path" help:"File with the token for the broker."`
	// ReadModelDir is where projectors keep their read models. It need not exist yet; reads are refused until one is there.
	ReadModelDir string `name:"read-model-dir" env:"KANADE_READ_MODEL_DIR" default:"read-model" type:"path" help:"Directory of the read models."`
	// AuthToken is what every request under /api/ must bear. Replicas share it. There is no default: without it Run refuses.
	AuthToken     string `name:"auth-token" env:"KANADE_AUTH_STATIC_TOKEN" help:"Token that every request must bear."`
	AuthTokenFile string `name:"auth-token-file" env:"KANADE_AUTH_STATIC_TOKEN_FILE" type:"path" help:"File with the token that every request must bear."`
	// Limits of the streams, which every service makes when they are missing. The same for all services.
	events.Limits `embed:""`
}

// Deps are what tests and `kanade up` hand in; nil fields are made from the Config. What is handed in stays the caller's
// to close, the listener apart.
type Deps struct {
	// Bus is an open connection; Run closes only one that it made.
	Bus *bus.Bus
	// Listener takes the place of Config.Listen. Run closes it.
	Listener net.Listener
	// Logger is for everything the service has to say; nil means slog.Default().
	Logger *slog.Logger
	// Metrics is what /metrics shows; nil means one of the service's own, with those of the process.
	Metrics *prometheus.Registry
	// Version is what GET /api/version answers; empty means that of the build.
	Version string
	// Listening is called once with the address, when requests are answered.
	Listening func(net.Addr)
}

// Run serves until ctx ends, then lets requests in flight end and returns nil. An error means that it could not begin (no
// token, the address in use, the broker refuses) or that the listener broke. It owns everything it starts and may be run
// several times in one process.
func Run(ctx context.Context, c Config, d Deps) (err error) {
	logger := d.Logger
	if logger == nil {
		logger = slog.Default()
	}
	token, err := process.Secret("KANADE_AUTH_STATIC_TOKEN", c.AuthToken, c.AuthTokenFile)
	if err != nil {
		return fmt.Errorf("start api: %w", err)
	}
	if token == "" {
		return fmt.Errorf("start api: %w", noToken(c, d))
	}
	listener, err := listen(c, d)
	if err != nil {
		return fmt.Errorf("start api: %w", err)
	}
	metrics := d.Metrics
	if metrics == nil {
		metrics = prometheus.NewRegistry()
		metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	front := newFront(listener, logger)
	defer front.close()
	b, closeBus, err := connect(ctx, c, d, logger, metrics)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("start api: %w", err)
	}
	defer closeBus()
	reader, err := readmodel.OpenReader(c.ReadModelDir)
	if err != nil {
		return fmt.Errorf("start api: %w", err)
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	return serve(ctx, front, d, rest.Config{
		Bus: b, Reader: reader, Hub: live.NewHub(b, logger), Logger: logger, Metrics: metrics, Token: token, Version: version(d),
		History: c.Limits.OrDefault().History,
	})
}

// serve answers requests until ctx ends.
func serve(ctx context.Context, front *front, d Deps, r rest.Config) error {
	stopping := make(chan struct{})
	r.Stopping = stopping
	handler, err := rest.Handler(r)
	if err != nil {
		return fmt.Errorf("start api: %w", err)
	}
	hubCtx, stopHub := context.WithCancel(context.Background())
	var hub sync.WaitGroup
	hub.Go(func() { r.Hub.Run(hubCtx) })
	defer func() { stopHub(); hub.Wait() }()

	front.answer(handler)
	r.Logger.Info("api is listening", "address", front.address(), "version", r.Version)
	if d.Listening != nil {
		d.Listening(front.listener.Addr())
	}
	select {
	case err := <-front.broke:
		return fmt.Errorf("serve %s: %w", front.address(), err)
	case <-ctx.Done():
	}
	close(stopping)
	front.close()
	r.Logger.Info("api has stopped")
	return nil
}

func noToken(c Config, d Deps) error {
	const how = "set KANADE_AUTH_STATIC_TOKEN or KANADE_AUTH_STATIC_TOKEN_FILE (`kanade up` makes a token in its data directory)"
	if d.Listener == nil && !isLoopback(c.Listen) {
		return fmt.Errorf("refuse to listen on %s, which other machines can reach, without authentication: %s", c.Listen, how)
	}
	return fmt.Errorf("no token is configured and one is always demanded: %s", how)
}

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func listen(c Config, d Deps) (net.Listener, error) {
	if d.Listener != nil {
		return d.Listener, nil
	}
	return process.Listen(c.Listen, "--listen or KANADE_API_LISTEN")
}

func connect(ctx context.Context, c Config, d Deps, logger *slog.Logger, metrics prometheus.Registerer) (*bus.Bus, func(), error) {
	if d.Bus != nil {
		return d.Bus, func() {}, nil
	}
	token, err := process.Secret("KANADE_NATS_TOKEN", c.NATSToken, c.NATSTokenFile)
	if err != nil {
		return nil, nil, err
	}
	b, err := bus.Open(ctx, bus.Config{URL: c.NATSURL, Token: token, Name: "kanade-api", Logger: logger, Metrics: metrics}, c.Limits.OrDefault())
	if err != nil {
		return nil, nil, err
	}
	return b, b.Close, nil
}

func version(d Deps) string {
	if d.Version != "" {
		return d.Version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
