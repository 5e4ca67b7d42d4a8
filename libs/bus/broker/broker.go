// Package broker runs a NATS server with JetStream inside the process: for `kanade up`, `kanade broker` and tests. The
// services and the agent never link it; they speak to a broker through package bus, embedded or not.
//
// What the store protects from: an acknowledged message survives the death of the process at once, and a power loss
// after Config.SyncInterval at the latest, or at once with SyncAlways (which costs about nine tenths of the append
// rate). Surviving the loss of a disk takes a cluster of three with replicas = 3, which is not embedded.
package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/nats-io/nats-server/v2/server"

	"kanade/libs/events"
)

// lockName is the file, in the store directory, whose lock says that a broker uses the store. It stays when the broker
// ends; only the lock on it matters.
const lockName = "kanade-broker.lock"

// startTimeout bounds Start: a store of a gigabyte is ready after about two seconds.
const startTimeout = 2 * time.Minute

// ErrStoreInUse says that another broker holds the store directory.
var ErrStoreInUse = errors.New("store directory is in use by another broker")

// Config of an embedded broker. Fields that are set win over what File says.
type Config struct {
	// File is a nats-server configuration file; empty means that the fields below are all there is.
	File string
	// StoreDir holds streams and the lock. It is made if missing (0700). Required unless File names one.
	StoreDir string
	// Listen is "host:port" for TCP, port 0 for a free one; empty (without File) means in-process connections only. A
	// listener needs a token: whoever reaches it can command every endpoint.
	Listen string
	// Token is what every connection must present, in-process ones too; empty demands none.
	Token string
	// MaxPayload is the largest message in bytes; 0 means events.MaxPayload (4 MiB), or what File says.
	MaxPayload int32
	// SyncInterval is how often written messages are forced to disk; 0 means the server's default of two minutes, or
	// what File says. It is the most that a power loss can take.
	SyncInterval time.Duration
	// SyncAlways forces every message to disk before it is acknowledged.
	SyncAlways bool
	// Logger gets the server's warnings and errors, its notices at debug level; nil means slog.Default().
	Logger *slog.Logger
}

// Broker is a running embedded broker. It implements nats.InProcessConnProvider, so that a connection made through it
// finds the server again after Restart. Safe for concurrent use.
type Broker struct {
	opts   server.Options
	logger *slog.Logger

	// changing is held while the server starts or stops, which takes its time, and guards lock and opts.Port. mu guards the
	// others and is never held for long: whoever asks for a connection meanwhile is told at once that there is none.
	changing sync.Mutex
	lock     *flock.Flock

	mu  sync.Mutex
	srv *server.Server // nil while shut down
	url string
}

// Start runs a broker and returns when it takes connections and JetStream is ready. Errors say what is in the way: the
// port in use, the store directory in use by another process (ErrStoreInUse), an unreadable configuration file.
func Start(c Config) (*Broker, error) {
	opts, err := options(c)
	if err != nil {
		return nil, fmt.Errorf("configure broker: %w", err)
	}
	b := &Broker{opts: *opts, logger: c.Logger}
	if b.logger == nil {
		b.logger = slog.Default()
	}
	if err := b.Restart(); err != nil {
		return nil, err
	}
	return b, nil
}

// Restart starts a broker that was shut down again, on the same store and, where it listens, on the same port. A broker
// that runs is left alone.
func (b *Broker) Restart() error {
	b.changing.Lock()
	defer b.changing.Unlock()
	if b.server() != nil {
		return nil
	}
	lock, err := lockStore(b.opts.StoreDir)
	if err != nil {
		return fmt.Errorf("start broker: %w", err)
	}
	srv, err := run(b.opts.Clone(), b.logger)
	if err != nil {
		return errors.Join(fmt.Errorf("start broker: %w", err), lock.Unlock())
	}
	b.lock = lock
	b.mu.Lock()
	defer b.mu.Unlock()
	b.srv = srv
	if addr, ok := srv.Addr().(*net.TCPAddr); ok && !b.opts.DontListen {
		b.opts.Port = addr.Port
		b.url = "nats://" + net.JoinHostPort(urlHost(b.opts.Host), strconv.Itoa(addr.Port))
	}
	return nil
}

// Shutdown stops the broker, closes every connection and waits until the store is closed and unlocked. Stopping twice
// is fine.
func (b *Broker) Shutdown() {
	b.changing.Lock()
	defer b.changing.Unlock()
	b.mu.Lock()
	srv := b.srv
	b.srv = nil
	b.mu.Unlock()
	if srv == nil {
		return
	}
	stop(srv)
	if err := b.lock.Unlock(); err != nil {
		b.logger.Error("unlock broker store", "dir", b.opts.StoreDir, "error", err)
	}
}

// InProcess gives connections without a network, for bus.Config.InProcess.
func (b *Broker) InProcess() *Broker { return b }

// InProcessConn implements nats.InProcessConnProvider. It fails while the broker is shut down.
func (b *Broker) InProcessConn() (net.Conn, error) {
	srv := b.server()
	if srv == nil {
		return nil, errors.New("broker is shut down")
	}
	return srv.InProcessConn()
}

func (b *Broker) server() *server.Server {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.srv
}

// URL is where the broker listens, "nats://127.0.0.1:4222", or empty if it does not. It holds no token.
func (b *Broker) URL() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.url
}

// Token is what connections must present.
func (b *Broker) Token() string { return b.opts.Authorization }

// StoreDir is where the streams are.
func (b *Broker) StoreDir() string { return b.opts.StoreDir }

func lockStore(dir string) (*flock.Flock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make store directory: %w", err)
	}
	lock := flock.New(filepath.Join(dir, lockName))
	ok, err := lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock store directory %s: %w", dir, err)
	}
	if !ok {
		return nil, fmt.Errorf("%w: %s (stop the other one, or name another directory)", ErrStoreInUse, dir)
	}
	return lock, nil
}

// run starts a server and waits until it is ready or says that it can't be. The server reports a failed start only to
// its log.
func run(opts *server.Options, logger *slog.Logger) (*server.Server, error) {
	srv, err := server.NewServer(opts)
	if err != nil {
		return nil, err
	}
	log := &serverLog{logger: logger, fatal: make(chan error, 1)}
	srv.SetLoggerV2(log, opts.Debug, opts.Trace, false)
	started := make(chan struct{})
	go func() {
		defer close(started)
		srv.Start()
	}()
	deadline := time.Now().Add(startTimeout)
	for time.Now().Before(deadline) {
		select {
		case err := <-log.fatal:
			<-started
			stop(srv)
			return nil, err
		default:
		}
		if srv.ReadyForConnections(100 * time.Millisecond) {
			<-started
			if !srv.JetStreamEnabled() {
				stop(srv)
				return nil, errors.New("JetStream is off in the configuration file; kanade needs it")
			}
			return srv, nil
		}
	}
	stop(srv)
	return nil, fmt.Errorf("not ready after %s", startTimeout)
}

func stop(srv *server.Server) {
	srv.Shutdown()
	srv.WaitForShutdown()
}

func urlHost(host string) string {
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return "127.0.0.1"
	}
	return host
}

var _ interface{ InProcessConn() (net.Conn, error) } = (*Broker)(nil)

// options merges the fields over the file over what kanade needs.
func options(c Config) (*server.Options, error) {
	opts := &server.Options{DontListen: true}
	if c.File != "" {
		var err error
		if opts, err = server.ProcessConfigFile(c.File); err != nil {
			return nil, err
		}
	} else {
		opts.JetStream = true
	}
	if c.Listen != "" {
		if err := listen(opts, c.Listen); err != nil {
			return nil, err
		}
	}
	if c.StoreDir != "" {
		opts.StoreDir = c.StoreDir
	}
	if opts.StoreDir == "" {
		return nil, errors.New("no store directory")
	}
	if c.Token != "" {
		opts.Authorization = c.Token
	}
	if c.Listen != "" && c.File == "" && c.Token == "" {
		return nil, fmt.Errorf("listen on %s: a token is needed", c.Listen)
	}
	if c.MaxPayload > 0 {
		opts.MaxPayload = c.MaxPayload
	}
	if opts.MaxPayload == 0 {
		opts.MaxPayload = events.MaxPayload
	}
	if c.SyncInterval > 0 {
		opts.SyncInterval = c.SyncInterval
	}
	opts.SyncAlways = opts.SyncAlways || c.SyncAlways
	if opts.JetStreamLimits.DefaultMaxConsumers == 0 {
		// The server's default of 1 000 a stream is one old agent each.
		opts.JetStreamLimits.DefaultMaxConsumers = -1
	}
	opts.NoSigs, opts.DisableJetStreamBanner = true, true
	return opts, nil
}

func listen(opts *server.Options, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("listen address: %w", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return fmt.Errorf("listen address %q: %w", address, err)
	}
	opts.DontListen, opts.Host, opts.Port = false, host, int(n)
	if n == 0 {
		opts.Port = server.RANDOM_PORT
	}
	return nil
}
