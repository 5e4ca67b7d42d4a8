// Package sim runs a fleet of simulated endpoints in one process, for benchmarks and demonstrations.
//
// A simulated endpoint beats, hears its subjects live and answers each command at once with the facts of a whole run:
// received, started, finished. It shares a connection with many others, keeps the requests it knows in memory only, runs
// nothing and does not catch up. What it says is built by the same functions as what an agent says.
package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/agent/internal/domain"
	"kanade/services/agent/internal/heartbeat"
	"kanade/services/agent/internal/outbox"
)

// Config of a fleet.
type Config struct {
	// Buses are the connections; endpoints are dealt out among them. At least one. They stay open.
	Buses []*bus.Bus
	// PCs are the endpoints' ids. Groups, if not nil, tells the groups of one.
	PCs    []string
	Groups func(pc string) []string
	// Heartbeat is the interval; 0 means one beat at the start.
	Heartbeat time.Duration
	// Heard, if not nil, is called with each command's endpoint before anything is done about it; the connection's other
	// endpoints wait for it.
	Heard func(pc string)
	// Hold, if not nil, is asked before commands are answered. What it gives holds answers back until it is closed, nil
	// does not; commands are heard all the same.
	Hold func() <-chan struct{}
	// ExitCode tells how a run ends; nil means 0 for all.
	ExitCode func(pc string, requestID string) int
	// Logger; nil means slog.Default().
	Logger *slog.Logger
}

// Fleet is a running fleet.
type Fleet struct {
	config Config
	cancel context.CancelFunc
	work   sync.WaitGroup
	runs   atomic.Int64
}

const (
	// batch is how many commands of one connection are answered at once.
	batch = 512
	// window is how many facts may be unacknowledged.
	window       = 2048
	startTimeout = 30 * time.Second
)

// Start subscribes every endpoint, beats once for each, and returns when the broker knows of it all.
func Start(ctx context.Context, c Config) (*Fleet, error) {
	if len(c.Buses) == 0 {
		return nil, errors.New("start fleet: no connection")
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	ctx, cancel := context.WithCancel(ctx)
	f := &Fleet{config: c, cancel: cancel}
	for i, b := range c.Buses {
		l := &line{fleet: f, bus: b, owner: map[*nats.Subscription]string{}, known: map[string]bool{}}
		for k := i; k < len(c.PCs); k += len(c.Buses) {
			l.pcs = append(l.pcs, c.PCs[k])
		}
		if err := l.open(ctx); err != nil {
			f.Close()
			return nil, fmt.Errorf("start fleet: %w", err)
		}
		f.work.Go(func() { l.answer(ctx) })
		f.work.Go(func() { l.beatOn(ctx) })
	}
	return f, nil
}

// Close stops the fleet and waits for what it is just answering.
func (f *Fleet) Close() {
	f.cancel()
	f.work.Wait()
}

// Runs is how many runs the log has acknowledged the end of.
func (f *Fleet) Runs() int64 { return f.runs.Load() }

// line is the endpoints of one connection.
type line struct {
	fleet *Fleet
	bus   *bus.Bus
	pcs   []string
	heard chan *nats.Msg
	owner map[*nats.Subscription]string
	known map[string]bool // result ids: the ledger of all of them

	data    []byte
	command domain.Command
}

func (l *line) open(ctx context.Context) error {
	l.heard = make(chan *nats.Msg, 8*len(l.pcs)+1024)
	for _, pc := range l.pcs {
		subjects := []string{wire.SubjectCommandAll, wire.SubjectCommandPC(pc)}
		if l.fleet.config.Groups != nil {
			for _, g := range l.fleet.config.Groups(pc) {
				subjects = append(subjects, wire.SubjectCommandGroup(g))
			}
		}
		for _, subject := range subjects {
			sub, err := l.bus.Conn().ChanSubscribe(subject, l.heard)
			if err != nil {
				l.close()
				return fmt.Errorf("subscribe %s to %s: %w", pc, subject, err)
			}
			l.owner[sub] = pc
		}
	}
	l.beat()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := l.bus.Conn().FlushWithContext(ctx); err != nil {
		l.close()
		return err
	}
	return nil
}

func (l *line) close() {
	for sub := range l.owner {
		_ = sub.Unsubscribe()
	}
}

func (l *line) beat() {
	for _, pc := range l.pcs {
		data, err := json.Marshal(wire.Heartbeat{PCID: pc, At: time.Now(), AgentVersion: heartbeat.Version, Hostname: pc, OSFamily: "linux"})
		if err == nil {
			err = l.bus.Conn().Publish(wire.SubjectHeartbeat(pc), data)
		}
		if err != nil {
			l.fleet.config.Logger.Debug("a heartbeat could not be sent", "endpoint", pc, "error", err)
		}
	}
}

func (l *line) beatOn(ctx context.Context) {
	if l.fleet.config.Heartbeat <= 0 {
		return
	}
	tick := time.NewTicker(l.fleet.config.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			l.beat()
		}
	}
}

// answer takes what has been heard, up to a batch, and publishes the facts of all of it.
func (l *line) answer(ctx context.Context) {
	defer l.close()
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-l.heard:
			var facts []*nats.Msg
			runs := int64(0)
			for _, m := range l.gather(ctx, m) {
				if add := l.run(m); add != nil {
					facts, runs = append(facts, add...), runs+1
				}
			}
			if err := l.publish(ctx, facts); err == nil {
				l.fleet.runs.Add(runs)
			}
		}
	}
}

// gather hears a command and the others that are there, up to a batch, or all that come while answers are held back.
func (l *line) gather(ctx context.Context, m *nats.Msg) []*nats.Msg {
	commands := []*nats.Msg{m}
	l.hear(m)
	var held <-chan struct{}
	if f := l.fleet.config.Hold; f != nil {
		held = f()
	}
	for held != nil || len(commands) < batch {
		if held == nil {
			select {
			case m = <-l.heard:
			default:
				return commands
			}
		} else {
			select {
			case <-ctx.Done():
				return nil
			case <-held:
				held = nil
				continue
			case m = <-l.heard:
			}
		}
		l.hear(m)
		commands = append(commands, m)
	}
	return commands
}

func (l *line) hear(m *nats.Msg) {
	if f := l.fleet.config.Heard; f != nil {
		f(l.owner[m.Sub])
	}
}

// publish tries until all is acknowledged; the facts' ids make repeating harmless.
func (l *line) publish(ctx context.Context, facts []*nats.Msg) error {
	for {
		err := l.bus.PublishAll(ctx, facts, window)
		if err == nil || ctx.Err() != nil {
			return err
		}
		l.fleet.config.Logger.Warn("the log does not take the fleet's facts; trying again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// parse remembers the last command: a broadcast comes once for each endpoint.
func (l *line) parse(data []byte) (c domain.Command, err error) {
	if bytes.Equal(data, l.data) {
		return l.command, nil
	}
	if c, err = domain.ParseCommand(data); err == nil {
		l.data, l.command = data, c
	}
	return c, err
}

// run is the facts of a whole run; nil for a duplicate, or what is no command.
func (l *line) run(m *nats.Msg) []*nats.Msg {
	pc := l.owner[m.Sub]
	c, err := l.parse(m.Data)
	if err != nil {
		l.fleet.config.Logger.Warn("a command can't be read", "error", err)
		return nil
	}
	now := time.Now()
	e := domain.NewEntry(c, m.Header.Get(events.HeaderTraceParent), pc, now)
	if l.known[e.Run.ResultID] {
		return nil
	}
	l.known[e.Run.ResultID] = true
	e.StartedAt = now.UTC()
	code := 0
	if f := l.fleet.config.ExitCode; f != nil {
		code = f(pc, c.RequestID)
	}
	at := domain.Stamp{Own: now, Broker: now}
	received, err1 := domain.Received(e, at)
	started, err2 := domain.Started(e, at)
	finished, err3 := domain.Finished(e, c.Judge(domain.Exit{Code: code}, nil, nil), events.Output{}, events.Output{}, nil, at)
	var out []*nats.Msg
	err = errors.Join(err1, err2, err3)
	for _, m := range []*domain.Message{received, started, finished} {
		if m != nil && err == nil {
			var msg *nats.Msg
			if msg, err = outbox.Encode(*m); err == nil {
				out = append(out, msg)
			}
		}
	}
	if err != nil {
		l.fleet.config.Logger.Error("a run can't be told", "error", err)
		return nil
	}
	return out
}
