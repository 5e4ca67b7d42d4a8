// Package projector is the service that faces the database: it alone writes SQLite. It follows LOG and PRESENCE and
// keeps one full copy of the read model, in a slot of its own; another projector on the same directory keeps another
// copy, and whoever reads takes the freshest.
//
// Rules that it keeps:
//
//   - The checkpoint in the database is the only acknowledgement: rows and checkpoint are committed together, and
//     following begins behind it. A projector that is killed at any moment goes on where it was.
//
//   - What waits is one batch: one message when the system is idle (visible within milliseconds), up to
//     Config.MaxBatch under load.
//
//   - What can't be decoded is parked in DEAD before the checkpoint passes it, once, however often it is rebuilt.
//
//   - An error of the disk is no property of a message: the projector stays where it is and tries again for ever.
//
//   - A log that went back, or whose next messages are gone, is another log: the projector ends and says what to do.
//
//   - Readers are given a file when it has everything that the log had. Whatever needs a new one (a new schema, a file that
//     is damaged, an operator who asks) builds it beside the old one, which is fed and read until then.
//
//   - A file that is held against the log is compared row by row with one that was replayed up to the same message.
//
//   - Snapshots make a start and a look at the past faster, and are never needed: what is wrong with one is passed over, and
//     what proves or repairs a file replays the log.
//
//   - A model of a past moment is built when a fact asks for it, beside the slots, by one projector of each directory.
//
// Rooms: projector.go (the service), model.go (one file and what feeds it), feed.go (one stream), check.go (replay,
// comparison, replacement), snapshot.go (copies in the object store), past.go (models of past moments).
//
// It speaks to nobody but the broker.
package projector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/process"
	"kanade/libs/readmodel"
)

// Config of the service: flags, environment and defaults in one place.
type Config struct {
	// NATSURL is one or more broker addresses, comma separated.
	NATSURL string `name:"nats-url" env:"KANADE_NATS_URL" default:"nats://127.0.0.1:4222" help:"Broker addresses, comma separated."`
	// NATSToken is what the broker demands; empty for none. Given as a value or as the name of a file, not both.
	NATSToken     string `name:"nats-token" env:"KANADE_NATS_TOKEN" help:"Token for the broker."`
	NATSTokenFile string `name:"nats-token-file" env:"KANADE_NATS_TOKEN_FILE" type:"path" help:"File with the token for the broker."`
	// ReadModelDir holds the slots of all projectors of this machine. It is made if need be.
	ReadModelDir string `name:"read-model-dir" env:"KANADE_READ_MODEL_DIR" default:"read-model" type:"path" help:"Directory of the read models."`
	// Listen is host:port of /healthz, /readyz and /metrics; empty: they are not served.
	Listen string `name:"listen" env:"KANADE_PROJECTOR_LISTEN" default:"127.0.0.1:8082" help:"Address of health checks and metrics, host:port."`
	// MaxBatch is how many messages one transaction holds at most; 0 means 5000.
	MaxBatch int `name:"max-batch" env:"KANADE_PROJECTOR_MAX_BATCH" default:"5000" help:"Messages in one transaction at most."`
	// Rebuild builds a new file from the log at the start. Readers are given the old one until it is done.
	Rebuild bool `name:"rebuild" env:"KANADE_PROJECTOR_REBUILD" help:"Build a new file from the log, and then serve it in place of the old one."`
	// SnapshotEvery is how old the newest snapshot of the read model is when this projector makes another one, whoever made
	// that; 0 means 24 h, below it none is made.
	SnapshotEvery time.Duration `name:"snapshot-every" env:"KANADE_PROJECTOR_SNAPSHOT_EVERY" default:"24h" help:"How old the newest snapshot may be; below zero none are made."`
	// Limits of the streams, which every service makes when they are missing. The same for all services.
	events.Limits `embed:""`
}

// GCPercent is what the program gives the collector unless GOGC says otherwise: what a projector holds is young, the
// batches on their way into the file, and to look at it less often costs some ten megabytes.
const GCPercent = 300

// Deps are what tests and `kanade up` hand in; nil fields are made from the Config. What is handed in stays the caller's
// to close, the listener apart.
type Deps struct {
	// Bus is an open connection; Run closes only one that it made.
	Bus *bus.Bus
	// Listener takes the place of Config.Listen. Run closes it.
	Listener net.Listener
	// Logger is for everything the service has to say; nil means slog.Default().
	Logger *slog.Logger
	// Metrics gets the service's collectors, for as long as it runs, and is what /metrics shows; nil means one of the
	// service's own, with those of the process.
	Metrics *prometheus.Registry
}

// Run projects until ctx ends, then returns nil. It waits for a broker that is away and for streams that do not exist
// yet. An error means that it could not begin, or that the log is not the one it has read so far. It owns everything it
// starts and may be run several times in one process.
func Run(ctx context.Context, c Config, d Deps) (err error) {
	if c.MaxBatch <= 0 {
		c.MaxBatch = 5000
	}
	if c.SnapshotEvery == 0 {
		c.SnapshotEvery = 24 * time.Hour
	}
	logger := d.Logger
	if logger == nil {
		logger = slog.Default()
	}
	registry := d.Metrics
	if registry == nil {
		registry = prometheus.NewRegistry()
		registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
	listener, err := listen(c, d)
	if err != nil {
		return fmt.Errorf("start projector: %w", err)
	}
	if listener != nil {
		defer listener.Close()
	}
	slot, err := readmodel.ClaimSlot(c.ReadModelDir, c.Limits.OrDefault().Kept())
	if err != nil {
		return fmt.Errorf("start projector: %w", err)
	}
	defer func() { err = errors.Join(err, slot.Close()) }()
	b, closeBus, err := connect(ctx, c, d, logger, registry)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("start projector: %w", err)
	}
	defer closeBus()
	m, err := newMetrics(registry, slot.Name())
	if err != nil {
		return fmt.Errorf("start projector: %w", err)
	}
	defer m.unregister()
	p := &projector{
		config: c, bus: b, slot: slot, logger: logger, metrics: m, checks: make(chan check, 1), pasts: make(chan pastAsked, keptPasts),
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.run(ctx) })
	group.Go(func() error { return p.buildPasts(ctx) })
	if c.SnapshotEvery > 0 {
		group.Go(func() error { return p.keepSnapshots(ctx) })
	}
	if listener != nil {
		health := process.Health{Metrics: registry, Ready: func(ctx context.Context) (any, bool) {
			positions, near := readiness(ctx, p.feeds())
			return positions, near && p.serving()
		}}
		group.Go(func() error { return health.Serve(ctx, listener) })
	}
	return group.Wait()
}

func listen(c Config, d Deps) (net.Listener, error) {
	if d.Listener != nil || c.Listen == "" {
		return d.Listener, nil
	}
	return process.Listen(c.Listen, "--listen or KANADE_PROJECTOR_LISTEN")
}

func connect(ctx context.Context, c Config, d Deps, logger *slog.Logger, metrics prometheus.Registerer) (*bus.Bus, func(), error) {
	if d.Bus != nil {
		return d.Bus, func() {}, nil
	}
	token, err := process.Secret("KANADE_NATS_TOKEN", c.NATSToken, c.NATSTokenFile)
	if err != nil {
		return nil, nil, err
	}
	b, err := bus.Open(ctx, bus.Config{URL: c.NATSURL, Token: token, Name: "kanade-projector", Logger: logger, Metrics: metrics}, c.Limits.OrDefault())
	if err != nil {
		return nil, nil, err
	}
	return b, b.Close, nil
}
