// Package agent faces one endpoint: it hears the commands that are addressed to it, runs each at most once, and tells the
// log what became of it.
//
// It needs one outgoing connection to the broker and a data directory. It opens no port unless told to, makes no JetStream
// consumer, and links neither the broker nor a database. While the broker is away it finishes what runs, keeps what it has
// to tell in its outbox, and catches up on the commands it missed when the broker is back.
//
// What may happen to a command is in package runner; how it is heard in inbox; what is remembered in ledger; how facts
// reach the log in outbox.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kanade/libs/bus"
	"kanade/libs/process"
	"kanade/services/agent/internal/domain"
	"kanade/services/agent/internal/executor"
	"kanade/services/agent/internal/heartbeat"
	"kanade/services/agent/internal/inbox"
	"kanade/services/agent/internal/ledger"
	"kanade/services/agent/internal/metrics"
	"kanade/services/agent/internal/outbox"
	"kanade/services/agent/internal/runner"
)

// Executor runs scripts; see Deps. Script is what it is given, Exit what it returns.
type (
	Executor = domain.Executor
	Script   = domain.Script
	Exit     = domain.Exit
)

// Version is what the agent calls itself in heartbeats. Agents before 1.0.0 are kanade 0.43.x.
const Version = heartbeat.Version

// ErrInUse says that another agent has the data directory.
var ErrInUse = ledger.ErrInUse

// Deps are what a caller may give an agent instead of letting it make them.
type Deps struct {
	// Bus is an open connection, which stays open; nil means one made from the Config.
	Bus *bus.Bus
	// Listener serves health and metrics; Run closes it. Nil means Config.Listen.
	Listener net.Listener
	// Logger; nil means slog.Default().
	Logger *slog.Logger
	// Metrics gets the collectors and serves /metrics; nil means a registry of its own.
	Metrics *prometheus.Registry
	// Executor runs the scripts; nil means processes of this system. Tests and simulations script theirs.
	Executor Executor
	// Jitter draws a wait in [0, n), n > 0; nil means uniformly.
	Jitter func(n time.Duration) time.Duration

	// committed is called after every commit to the ledger.
	committed func(ledger.Snapshot)
}

const (
	// drainTime is how long a stopping agent tries to get rid of its last facts; the rest goes out at the next start.
	drainTime  = 2 * time.Second
	pruneEvery = time.Hour
)

// Run runs an agent until ctx is done. Scripts that run then are killed and reported so; commands that wait are carried
// out after the next start. It owns every goroutine that it starts and may be called again in the same process.
//
// Errors: a Config that makes no sense, ErrInUse, a token that the broker refuses, a ledger that can't be read. An
// unreachable broker is none: it is waited for.
func Run(ctx context.Context, c Config, d Deps) error {
	if d.Listener != nil {
		defer d.Listener.Close()
	}
	c, err := c.complete()
	if err != nil {
		return err
	}
	d = d.complete()
	store, err := ledger.Open(c.Data, d.committed)
	if err != nil {
		return err
	}
	defer store.Close()
	if d.Executor == nil {
		if d.Executor, err = executor.New(filepath.Join(c.Data, "scripts")); err != nil {
			return err
		}
	}
	m, err := metrics.New(d.Metrics, store.Waiting)
	if err != nil {
		return err
	}
	defer m.Close()
	health, err := serveHealth(c, d)
	if err != nil {
		return err
	}
	defer health.close()

	if d.Bus == nil {
		if d.Bus, err = connect(ctx, c, d); err != nil {
			if ctx.Err() != nil {
				return nil // stopped before the broker was there
			}
			return err
		}
		defer d.Bus.Close()
	}
	health.ready(d.Bus.Connected)
	d.Logger.Info("agent runs", "id", c.ID, "data", c.Data, "version", Version)
	return work(ctx, c, d, store, m)
}

func connect(ctx context.Context, c Config, d Deps) (*bus.Bus, error) {
	token, err := process.Secret("KANADE_NATS_TOKEN", c.NATSToken, c.NATSTokenFile)
	if err != nil {
		return nil, err
	}
	return bus.Connect(ctx, bus.Config{
		URL: c.NATSURL, Token: token, Name: "kanade-agent " + c.ID, Logger: d.Logger, Metrics: d.Metrics,
	})
}

// work runs the parts. They stop in two steps: first what makes facts, then the outbox that sends them.
func work(ctx context.Context, c Config, d Deps, store *ledger.Ledger, m *metrics.Metrics) error {
	spool := filepath.Join(c.Data, "spool")
	if err := outbox.CleanSpool(spool, store); err != nil {
		return err
	}
	out := outbox.New(d.Bus, store, d.Logger, m)
	run := runner.New(runner.Config{
		Bus: d.Bus, Ledger: store, Executor: d.Executor, PCID: c.ID, Spool: spool, Limit: c.Limit, Jitter: d.Jitter,
		Wake: out.Wake, Logger: d.Logger, Metrics: m,
	})
	if err := run.Recover(ctx); err != nil {
		return err
	}
	in := inbox.New(inbox.Config{
		Bus: d.Bus, Ledger: store, PCID: c.ID, Logger: d.Logger, Receive: run.Receive, CatchUpFailed: m.CatchUpFailures.Inc,
	})
	beat := heartbeat.Config{Conn: d.Bus.Conn(), PCID: c.ID, Interval: c.Heartbeat, Logger: d.Logger}

	sending, stopSending := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSending()
	making, stopMaking := context.WithCancelCause(ctx)
	defer stopMaking(nil)
	var makers, sender group
	sender.start(sending, stopMaking, "outbox", out.Run)
	makers.start(making, stopMaking, "runner", run.Run)
	makers.start(making, stopMaking, "inbox", in.Run)
	makers.start(making, stopMaking, "heartbeat", func(ctx context.Context) error {
		select {
		case <-in.Hears():
			return heartbeat.Run(ctx, beat)
		case <-ctx.Done():
			return nil
		}
	})
	makers.start(making, stopMaking, "housekeeping", func(ctx context.Context) error { return prune(ctx, store, d.Logger) })

	err := makers.wait()
	stopSending()
	err = errors.Join(err, sender.wait())
	if err == nil && d.Bus.Connected() {
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		_, err = out.Flush(drain)
		err = errors.Join(err, out.Settle())
	}
	d.Logger.Info("agent stopped", "id", c.ID)
	return err
}

// prune forgets old entries of the ledger, at the start and every hour.
func prune(ctx context.Context, store *ledger.Ledger, logger *slog.Logger) error {
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	for {
		if n, err := store.Prune(time.Now()); err != nil {
			logger.Error("the ledger can't be pruned", "error", err)
		} else if n > 0 {
			logger.Info("ledger pruned", "entries", n)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// group is goroutines that end together: the first error stops the others.
type group struct {
	work sync.WaitGroup
	mu   sync.Mutex
	errs []error
}

func (g *group) start(ctx context.Context, stop context.CancelCauseFunc, name string, run func(context.Context) error) {
	g.work.Go(func() {
		if err := run(ctx); err != nil {
			err = fmt.Errorf("%s: %w", name, err)
			g.mu.Lock()
			g.errs = append(g.errs, err)
			g.mu.Unlock()
			stop(err)
		}
	})
}

func (g *group) wait() error {
	g.work.Wait()
	return errors.Join(g.errs...)
}

func (d Deps) complete() Deps {
	if d.Logger == nil {
		d.Logger = slog.Default()
	}
	if d.Metrics == nil {
		d.Metrics = prometheus.NewRegistry()
	}
	if d.Jitter == nil {
		d.Jitter = func(n time.Duration) time.Duration { return rand.N(n) }
	}
	return d
}
