// Package scheduler is the service that faces the fleet and time. It turns schedules into ticks and ticks into
// ExecRequested; every ExecRequested, whoever emitted it, into commands for agents; it supervises running execs, and keeps
// the buckets that agents read equal to the log.
//
// It needs nothing but the broker, and keeps nothing that can't be folded from the log again. Any number may run, two are
// recommended: every decision is appended against its aggregate's last sequence and every effect has a derived id. There
// are no sleeping goroutines that matter: a due time is a message on TIMERS.
//
// The rooms: internal/domain decides, internal/supervisor folds and takes the steps that follow from the fold,
// internal/dispatch sends commands, internal/tick ends ticks, internal/view writes buckets, internal/housekeeping takes out of
// the log what has had its time.
package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/process"
	"kanade/services/scheduler/internal/dispatch"
	"kanade/services/scheduler/internal/housekeeping"
	"kanade/services/scheduler/internal/supervisor"
	"kanade/services/scheduler/internal/tick"
	"kanade/services/scheduler/internal/view"
)

// Config of the service: flags, environment and defaults in one place. A secret may be given as a value or as the name of
// a file that holds it, not both.
type Config struct {
	// Listen is where health, readiness and metrics are served, host:port.
	Listen string `name:"listen" env:"KANADE_SCHEDULER_LISTEN" default:"127.0.0.1:8083" help:"Address for health and metrics, host:port."`
	// NATSURL is one or more broker addresses, comma separated.
	NATSURL string `name:"nats-url" env:"KANADE_NATS_URL" default:"nats://127.0.0.1:4222" help:"Broker addresses, comma separated."`
	// NATSToken is what the broker demands; empty for none.
	NATSToken     string `name:"nats-token" env:"KANADE_NATS_TOKEN" help:"Token for the broker."`
	NATSTokenFile string `name:"nats-token-file" env:"KANADE_NATS_TOKEN_FILE" type:"path" help:"File with the token for the broker."`
	// Workers is how many execs are dispatched at once; the others wait for a free one, in order.
	Workers int `name:"workers" env:"KANADE_SCHEDULER_WORKERS" default:"8" help:"Execs dispatched at once."`
	// Limits of the streams, which every service makes when they are missing. The same for all services.
	events.Limits `embed:""`
}

// DefaultWorkers is Config.Workers where that is not given.
const DefaultWorkers = 8

// GCPercent is what the program gives the collector unless GOGC says otherwise: where many schedules are due together, a
// seventh of the time would go to it.
const GCPercent = 300

// Deps are what tests and `kanade up` hand in; nil fields are made from the Config. What is handed in stays the caller's
// to close, the listener apart.
type Deps struct {
	// Bus is an open connection with the streams ensured.
	Bus *bus.Bus
	// Listener takes the place of Config.Listen. With a Bus and without a Listener nothing is served.
	Listener net.Listener
	// Logger; nil means slog.Default().
	Logger *slog.Logger
	// Metrics is what /metrics shows; nil means one of the service's own, with those of the process.
	Metrics *prometheus.Registry
	// Middleware runs around every handler; for tests.
	Middleware []message.HandlerMiddleware
	// Ready is called once when the fold has caught up and handlers run.
	Ready func()
}

// Run works until ctx ends, then lets the handlers in flight end and returns nil. A broker that is away is waited for; an
// error means that it could not begin, or that the broker refuses what it needs. It owns everything it starts and may be
// run several times in one process.
func Run(ctx context.Context, c Config, d Deps) error {
	d = d.complete()
	listener, err := listen(c, d)
	if err != nil {
		return fmt.Errorf("start scheduler: %w", err)
	}
	if listener != nil {
		defer listener.Close()
	}
	if d.Bus == nil {
		if d.Bus, err = connect(ctx, c, d); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("start scheduler: %w", err)
		}
		defer d.Bus.Close()
	}
	retain := c.Limits.OrDefault().Kept()
	fold, err := supervisor.New(d.Bus, retain, d.Logger, d.Metrics)
	if err != nil {
		return fmt.Errorf("start scheduler: %w", err)
	}
	defer fold.Close()
	keeper, err := housekeeping.New(d.Bus, fold, retain, d.Logger, d.Metrics)
	if err != nil {
		return fmt.Errorf("start scheduler: %w", err)
	}
	defer keeper.Close()
	router, err := route(ctx, d, fold, keeper, max(c.Workers, 0))
	if err != nil {
		return fmt.Errorf("start scheduler: %w", err)
	}
	if err := work(ctx, d, fold, keeper, router, listener); err != nil && (ctx.Err() == nil || !errors.Is(err, ctx.Err())) {
		return fmt.Errorf("run scheduler: %w", err)
	}
	return nil
}

// relieveEvery is how often it is looked whether the log is nearly full.
const relieveEvery = time.Hour

// work runs everything. When it is time to end, or something has failed, the fold goes on until the handlers in flight
// have ended: they wait for it.
func work(ctx context.Context, d Deps, fold *supervisor.Supervisor, keeper *housekeeping.Keeper, router *bus.Router, listener net.Listener) error {
	folding, stopFold := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFold()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return fold.Run(folding) })
	group.Go(func() error {
		defer stopFold()
		return router.Run(ctx)
	})
	if listener != nil {
		health := process.Health{Metrics: d.Metrics, Ready: func(context.Context) (any, bool) { return readiness(d.Bus, fold) }}
		group.Go(func() error { return health.Serve(ctx, listener) })
	}
	group.Go(func() error {
		select {
		case <-fold.Ready():
		case <-ctx.Done():
			return nil
		}
		select {
		case <-router.Running():
			d.Logger.Info("scheduler runs")
			if d.Ready != nil {
				d.Ready()
			}
		case <-ctx.Done():
			return nil
		}
		relieve := time.NewTicker(relieveEvery)
		defer relieve.Stop()
		for {
			if err := keeper.Relieve(ctx); err != nil && ctx.Err() == nil {
				d.Logger.Warn("relieve the log if it is nearly full; trying again later", "after", relieveEvery, "error", err)
			}
			select {
			case <-relieve.C:
			case <-ctx.Done():
				return nil
			}
		}
	})
	return group.Wait()
}

// route registers every handler under its durable's name. What may work long (requests, waves, stops, and whatever is due)
// comes through pull consumers. Housekeeping has a worker of its own and ends with ctx at once: the next run does the rest.
func route(ctx context.Context, d Deps, fold *supervisor.Supervisor, keeper *housekeeping.Keeper, workers int) (*bus.Router, error) {
	if workers == 0 {
		workers = DefaultWorkers
	}
	router, err := d.Bus.NewRouter(bus.RouterConfig{Middleware: d.Middleware})
	if err != nil {
		return nil, err
	}
	pull := func(stream, durable string, workers int, filters ...string) message.Subscriber {
		sub, subErr := d.Bus.PullSubscriber(bus.PullConfig{Stream: stream, Durable: durable, Filters: filters, Workers: workers})
		err = errors.Join(err, subErr)
		return sub
	}
	dispatcher := dispatch.New(d.Bus, fold, d.Logger)
	ticker := tick.New(d.Bus, fold, d.Logger)
	timer := func(kind string) message.Subscriber {
		return pull(events.StreamTimers, kind, workers, events.TimerDueFilter(kind))
	}
	requested := pull(events.StreamLog, dispatch.Durable, workers, dispatch.Filters()...)
	released := pull(events.StreamLog, dispatch.SendDurable, workers, dispatch.SendFilters()...)
	stopped := pull(events.StreamLog, dispatch.StopDurable, workers, dispatch.StopFilters()...)
	fired := pull(events.StreamLog, tick.FiredDurable, workers, tick.FiredFilters()...)
	tickDue, waveDue := timer(supervisor.TimerTick), timer(supervisor.TimerWave)
	expiryDue, sweepDue := timer(supervisor.TimerExpiry), timer(dispatch.TimerSweep)
	dayDue := pull(events.StreamTimers, supervisor.TimerHousekeeping, 1, events.TimerDueFilter(supervisor.TimerHousekeeping))
	if err != nil {
		return nil, err
	}
	router.Handle(dispatch.Durable, requested, dispatcher.Requested)
	router.Handle(tick.FiredDurable, fired, ticker.Fired)
	router.Handle(dispatch.SendDurable, released, dispatcher.Released)
	router.Handle(dispatch.StopDurable, stopped, dispatcher.Stopped)
	router.HandleTimer(supervisor.TimerTick, tickDue, ticker.Due)
	router.HandleTimer(supervisor.TimerWave, waveDue, dispatcher.Wave)
	router.HandleTimer(supervisor.TimerExpiry, expiryDue, dispatcher.Expire)
	router.HandleTimer(dispatch.TimerSweep, sweepDue, dispatcher.Sweep)
	router.HandleTimer(supervisor.TimerHousekeeping, dayDue, func(handling context.Context, t bus.Timer) error {
		handling, cancel := context.WithCancel(handling)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		return keeper.Due(handling, t)
	})
	if err := view.Register(router, d.Bus, d.Logger, d.Metrics); err != nil {
		return nil, err
	}
	return router, nil
}

func (d Deps) complete() Deps {
	if d.Logger == nil {
		d.Logger = slog.Default()
	}
	if d.Metrics == nil {
		d.Metrics = prometheus.NewRegistry()
		d.Metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	return d
}

func listen(c Config, d Deps) (net.Listener, error) {
	if d.Listener != nil || d.Bus != nil {
		return d.Listener, nil
	}
	return process.Listen(c.Listen, "--listen or KANADE_SCHEDULER_LISTEN")
}

func connect(ctx context.Context, c Config, d Deps) (*bus.Bus, error) {
	token, err := process.Secret("KANADE_NATS_TOKEN", c.NATSToken, c.NATSTokenFile)
	if err != nil {
		return nil, err
	}
	return bus.Open(ctx, bus.Config{URL: c.NATSURL, Token: token, Name: "kanade-scheduler", Logger: d.Logger, Metrics: d.Metrics}, c.Limits.OrDefault())
}

// state is what /readyz answers.
type state struct {
	Connected bool `json:"connected"`
	CaughtUp  bool `json:"caught_up"`
}

func readiness(b *bus.Bus, fold *supervisor.Supervisor) (any, bool) {
	s := state{Connected: b.Connected()}
	select {
	case <-fold.Ready():
		s.CaughtUp = true
	default:
	}
	return s, s.Connected && s.CaughtUp
}
