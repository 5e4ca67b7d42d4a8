// Package up runs the whole of kanade in one process, for a laptop, a demo, a small site: the embedded broker, api,
// projector, scheduler, and an agent of this machine. They are the same services as anywhere else and speak to each
// other through the broker alone; only their connections stay inside the process.
//
// [Start] takes the data directory (package home), starts everything and returns when the API is ready to answer.
// [System.Done] is closed when a service ends by itself, which ends the others; [System.Stop] ends everything in the
// reverse order and gives the directory up. Nothing outlives a System and no two of them share anything, so that a
// process may start one after the other, or several in several directories.
package up

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"kanade/cmd/kanade/internal/home"
	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/libs/events"
	"kanade/libs/process"
)

const (
	// readyTimeout bounds the start: a big log is read into the read model first, so it is generous.
	readyTimeout = 10 * time.Minute
	// stopTimeout bounds the end: services answer what they have begun, the agent tells its last facts.
	stopTimeout = 20 * time.Second
)

// Config says where everything is. All fields are required but PC, Rebuild and Log.
type Config struct {
	// Data is the data directory.
	Data string
	// Listen is the API's address, NATSListen the broker's; port 0 takes a free one.
	Listen, NATSListen string
	// Agent runs an agent of this machine, under the id PC; empty means the host's name.
	Agent bool
	PC    string
	// Rebuild builds the read model anew; readers are given the old one until then.
	Rebuild bool
	// Log gets what the home's kanade.log gets; nil means nobody does.
	Log slog.Handler
}

// System is a running kanade. Its fields are read-only; its methods may be called from any goroutine.
type System struct {
	// Home is the open data directory.
	Home *home.Home
	// URL is the API's, BrokerURL the broker's.
	URL, BrokerURL string
	// PC is the id of this machine's agent; empty without one.
	PC string

	logger  *slog.Logger
	metrics *prometheus.Registry // of all parts; the api shows it
	closers []func() error       // in the order of opening
	cancel  context.CancelFunc
	stopped sync.Once
	result  error

	work       sync.WaitGroup
	scheduling chan struct{} // closed when the scheduler works
	done       chan struct{} // closed when a service has ended by itself
	mu         sync.Mutex
	ended      []error
}

// Start starts everything. Errors say what is in the way and, where a flag of `kanade up` mends it, which.
func Start(ctx context.Context, c Config) (_ *System, err error) {
	s := &System{done: make(chan struct{}), scheduling: make(chan struct{}), metrics: prometheus.NewRegistry()}
	s.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if err := s.open(c); err != nil {
		return nil, err
	}
	listener, err := process.Listen(c.Listen, "--listen")
	if err != nil {
		return nil, err
	}
	s.URL = "http://" + reachable(listener.Addr())
	if err := s.start(ctx, c, listener); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	if err := s.ready(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// reachable is how this machine reaches a listener: one on all addresses by loopback.
func reachable(a net.Addr) string {
	if tcp, ok := a.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(tcp.Port))
	}
	return a.String()
}

// open opens the home and its log.
func (s *System) open(c Config) (err error) {
	if s.Home, err = home.Open(c.Data); err != nil {
		return err
	}
	s.closers = append(s.closers, s.Home.Close)
	file, err := s.Home.Log()
	if err != nil {
		return err
	}
	s.closers = append(s.closers, file.Close)
	handlers := []slog.Handler{slog.NewTextHandler(file, nil)}
	if c.Log != nil {
		handlers = append(handlers, c.Log)
	}
	s.logger = slog.New(slog.NewMultiHandler(handlers...))
	return nil
}

// start starts the broker and the services on it. The listener belongs to the api when there is no error.
func (s *System) start(ctx context.Context, c Config, listener net.Listener) error {
	b, err := s.startBroker(c.NATSListen)
	if err != nil {
		return err
	}
	if err := s.prepare(ctx, b); err != nil {
		return err
	}
	return s.startServices(ctx, c, b, listener)
}

func (s *System) startBroker(address string) (*broker.Broker, error) {
	b, err := broker.Start(broker.Config{
		StoreDir: s.Home.Path("broker"), Listen: address, Token: s.Home.BrokerToken, Logger: s.logger.With("part", "broker"),
	})
	if err != nil {
		return nil, fmt.Errorf("broker on %s (change it with --nats-listen): %w", address, err)
	}
	s.closers = append(s.closers, func() error { b.Shutdown(); return nil })
	s.BrokerURL = b.URL()
	return b, nil
}

// connect opens a connection for one part, inside the process.
func (s *System) connect(ctx context.Context, b *broker.Broker, part string) (*bus.Bus, error) {
	c, err := bus.Connect(ctx, bus.Config{
		InProcess: b.InProcess(), Token: s.Home.BrokerToken, Name: "kanade-" + part, Logger: s.logger.With("part", part), Metrics: s.metrics,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", part, err)
	}
	return c, nil
}

// prepare makes streams and buckets.
func (s *System) prepare(ctx context.Context, b *broker.Broker) error {
	c, err := s.connect(ctx, b, "up")
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Ensure(ctx, Limits()); err != nil {
		if strings.Contains(err.Error(), "insufficient storage resources") {
			return fmt.Errorf("the disk of %s has too little room, about 8 GiB must be free: name another directory with --data: %w", s.Home.Dir, err)
		}
		return err
	}
	return nil
}

// Limits are those of a small site: its streams may grow to about 5 GiB in all.
func Limits() events.Limits {
	l := events.DefaultLimits()
	l.Fleet = 1000
	l.LogBytes, l.TelemetryBytes, l.ObsBytes, l.DeadBytes, l.OutputBytes = 4<<30, 256<<20, 256<<20, 128<<20, 128<<20
	l.ResultOutputBytes, l.SnapshotBytes = 512<<20, 256<<20
	return l
}

// run runs one service until ctx is done. One that ends before ends the system.
func (s *System) run(ctx context.Context, name string, fn func(context.Context) error) {
	s.work.Go(func() {
		err := fn(ctx)
		if ctx.Err() != nil && err == nil {
			return
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		err = fmt.Errorf("%s: %w", name, err)
		s.logger.Error("service ended", "service", name, "error", err)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.ended = append(s.ended, err); len(s.ended) == 1 {
			close(s.done)
		}
	})
}

// Done is closed when a service has ended by itself; Stop then says why.
func (s *System) Done() <-chan struct{} { return s.done }

// Stop ends everything, in the reverse order, and waits for it. The error is that of the services that ended in error.
// Stopping twice is fine.
func (s *System) Stop() error {
	s.stopped.Do(func() { s.result = s.stop() })
	return s.result
}

func (s *System) stop() error {
	if s.cancel != nil {
		s.cancel()
	}
	stopped := make(chan struct{})
	go func() { s.work.Wait(); close(stopped) }()
	var errs []error
	select {
	case <-stopped:
	case <-time.After(stopTimeout):
		errs = append(errs, fmt.Errorf("services still run after %s; they are left behind", stopTimeout))
	}
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(append(s.ended, errs...)...)
}

// hostID is the host's name as an id: what no id may hold becomes a dash.
func hostID() string {
	name, err := os.Hostname()
	if err != nil {
		return "this-machine"
	}
	return validID(name)
}

func validID(name string) string {
	id := strings.Map(func(r rune) rune {
		if strings.ContainsRune("._=/-", r) || r < 0x80 && (r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z') {
			return r
		}
		return '-'
	}, name)
	id = strings.TrimRight(strings.TrimLeft(id, "._=/-"), ".")
	if id = id[:min(len(id), 128)]; events.ValidID(id) != nil {
		return "this-machine"
	}
	return id
}
