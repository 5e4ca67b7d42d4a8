package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"kanade/cmd/kanade/internal/backup"
	"kanade/cmd/kanade/internal/home"
	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/libs/events"
	"kanade/libs/process"
)

// brokerTimeout bounds how long a command waits for a broker.
const brokerTimeout = 10 * time.Second

// brokerConnection says which broker.
type brokerConnection struct {
	NATSURL       string `name:"nats-url" env:"KANADE_NATS_URL" default:"nats://127.0.0.1:4222" help:"Broker addresses, comma separated; by default that of 'kanade up' on this machine, ${default}." placeholder:"URL"`
	NATSToken     string `name:"nats-token" env:"KANADE_NATS_TOKEN" hidden:"" help:"Token for the broker; by the environment, so that no other user reads it in the list of processes."`
	NATSTokenFile string `name:"nats-token-file" env:"KANADE_NATS_TOKEN_FILE" help:"File with the token for the broker; without one, that of 'kanade up' on this machine is used." placeholder:"FILE"`
}

// open connects to the broker, or says within seconds that it can't.
func (c *brokerConnection) open(ctx context.Context, logger *slog.Logger) (*bus.Bus, error) {
	token, err := c.token()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, brokerTimeout)
	defer cancel()
	b, err := bus.Connect(ctx, bus.Config{URL: c.NATSURL, Token: token, Name: "kanade-cli", Logger: logger})
	switch {
	case errors.Is(err, bus.ErrUnavailable):
		return nil, fmt.Errorf("no broker answers at %s; name it with --nats-url: %w", c.NATSURL, err)
	case err != nil:
		return nil, fmt.Errorf("%w; name a file that holds it with --nats-token-file", err)
	}
	return b, nil
}

// token is that of the environment or of the named file, or, for a broker on this machine alone, the one that `kanade
// up` keeps in the default data directory: it is never sent to another host.
func (c *brokerConnection) token() (string, error) {
	token, err := process.Secret("KANADE_NATS_TOKEN", c.NATSToken, c.NATSTokenFile)
	if token != "" || err != nil {
		return token, err
	}
	for address := range strings.SplitSeq(c.NATSURL, ",") {
		if !onThisMachine(strings.TrimSpace(address)) {
			return "", nil
		}
	}
	dir, err := home.Default()
	if err != nil {
		return "", nil // no such place on this machine, so no token in it
	}
	token, _, err = home.BrokerToken(dir)
	return token, err
}

type backupCmd struct {
	brokerConnection
	Dir string `arg:"" type:"path" help:"Directory of the backup; it is made."`
}

func (c *backupCmd) Run(ctx context.Context, a *app) error {
	logger := a.logger()
	b, err := c.open(ctx, logger)
	if err != nil {
		return err
	}
	defer b.Close()
	began := time.Now()
	m, err := backup.Take(ctx, b, c.Dir, ownVersion(), logger)
	if err != nil {
		return err
	}
	if a.json {
		return a.printValue(m)
	}
	fmt.Fprintf(a.out, "backup of %d streams, %.1f MB, the log up to %d, taken in %s: %s\n",
		len(m.Streams), megabytes(m.Size()), m.Of(events.StreamLog).Last, time.Since(began).Round(time.Millisecond), c.Dir)
	return nil
}

type restoreCmd struct {
	brokerConnection
	Dir  string `arg:"" type:"path" help:"Directory of the backup."`
	Data string `type:"path" placeholder:"DIR" help:"Restore into the data directory of a 'kanade up' that does not run, instead of a broker that does."`
}

func (c *restoreCmd) Run(ctx context.Context, a *app) (err error) {
	logger := a.logger()
	b, closeBroker, err := c.target(ctx, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeBroker()) }()
	began := time.Now()
	r, err := backup.Restore(ctx, b, c.Dir)
	if err != nil {
		return err
	}
	if a.json {
		return a.printValue(r)
	}
	m := r.Manifest
	fmt.Fprintf(a.out, "restored %d streams, %.1f MB, the log up to %d, as of %s, in %s\n", len(m.Streams), megabytes(m.Size()),
		m.Of(events.StreamLog).Last, m.TakenAt.Format(time.RFC3339), time.Since(began).Round(time.Millisecond))
	for _, stream := range slices.Sorted(maps.Keys(r.Expired)) {
		fmt.Fprintf(a.out, "%s: %d messages were left out, their time is up\n", stream, r.Expired[stream])
	}
	if r.Unknown > 0 {
		fmt.Fprintf(a.out, "%d commands were left out, the log does not know their execs\n", r.Unknown)
	}
	fmt.Fprintf(a.out, `Next:
  - Start the services. The scheduler folds this log by itself.
  - Read models that hold later facts don't fit it: their projectors end and say so. Start those once with --rebuild, or delete
    the read-model directory%s beforehand; one that was behind goes on.
  - What happened since the backup is not in the log, and endpoints don't report it again.
`, c.readModel())
	return nil
}

// target is the broker to restore into.
func (c *restoreCmd) target(ctx context.Context, logger *slog.Logger) (*bus.Bus, func() error, error) {
	if c.Data == "" {
		b, err := c.open(ctx, logger)
		if err != nil {
			return nil, nil, fmt.Errorf("%w\nto restore into the data directory of `kanade up`, name that with --data", err)
		}
		return b, func() error { b.Close(); return nil }, nil
	}
	h, err := home.Open(c.Data)
	if err != nil {
		return nil, nil, err
	}
	embedded, err := broker.Start(broker.Config{StoreDir: h.Path("broker"), Token: h.BrokerToken, Logger: logger})
	if err != nil {
		return nil, nil, errors.Join(err, h.Close())
	}
	b, err := bus.Connect(ctx, bus.Config{InProcess: embedded.InProcess(), Token: h.BrokerToken, Name: "kanade-cli", Logger: logger})
	if err != nil {
		embedded.Shutdown()
		return nil, nil, errors.Join(err, h.Close())
	}
	return b, func() error { b.Close(); embedded.Shutdown(); return h.Close() }, nil
}

// readModel names the read-model directory, where it is known.
func (c *restoreCmd) readModel() string {
	if c.Data == "" {
		return ""
	}
	return " " + (&home.Home{Dir: c.Data}).Path("readmodel")
}

// logger is for what a command has to warn of.
func (a *app) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func megabytes(n int64) float64 { return float64(n) / 1e6 }
