package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"

	"kanade/libs/events"
)

// DefaultTimeout bounds every request to the broker whose context has no deadline, waiting for a lost connection
// included.
const DefaultTimeout = 5 * time.Second

// syncQueue is how many messages of one batch of direct gets may wait to be read; no batch may be larger. The client makes
// the room anew for every request, and by its default that is half a megabyte.
const syncQueue = 2048

// Errors that callers tell apart with errors.Is.
var (
	// ErrUnavailable says that the broker could not be asked, or did not answer in time. Whether a write happened is then
	// unknown; to repeat it with the same id is safe.
	ErrUnavailable = errors.New("broker is unavailable")
	// ErrNotFound says that a stream, bucket, store or object does not exist.
	ErrNotFound = errors.New("not found")
)

// Config of a connection.
type Config struct {
	// URL is one or more broker addresses, comma separated: "nats://127.0.0.1:4222". Ignored with InProcess.
	URL string
	// Token is what the broker demands; empty for none.
	Token string
	// Name identifies the connection in the broker's monitoring and in metrics: "kanade-scheduler".
	Name string
	// InProcess connects to an embedded broker of this process; nil means the network.
	InProcess nats.InProcessConnProvider
	// Logger is for what handlers and the connection have to say; nil means slog.Default().
	Logger *slog.Logger
	// Metrics gets this package's collectors; nil means none. Several connections may share one.
	Metrics prometheus.Registerer
}

// Bus is one connection to the broker. Safe for concurrent use.
type Bus struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	legacy  nats.JetStreamContext // watermill-nats speaks the older API
	name    string
	logger  *slog.Logger
	metrics *metrics
	tracer  trace.Tracer
	clock   clock
	closed  chan struct{}

	mu sync.Mutex
	up chan struct{} // closed while connected
	at time.Time     // when the connection, or the last one, began
	// epoch is cancelled when the connection is lost, so that whoever waits for the broker's next message asks again:
	// a broker that restarted has forgotten open pull requests.
	epoch    context.Context
	endEpoch context.CancelFunc
}

// Connect opens a connection. It tries until the broker answers or ctx ends; a refused token is an error at once.
// Afterwards a lost connection is made again for ever, every 250 ms to 350 ms.
func Connect(ctx context.Context, c Config) (*Bus, error) {
	b := &Bus{
		name: c.Name, logger: c.Logger, closed: make(chan struct{}), up: make(chan struct{}),
		tracer: otel.Tracer("kanade/libs/bus"), clock: clock{asking: semaphore.NewWeighted(1)},
	}
	if b.logger == nil {
		b.logger = slog.Default()
	}
	b.epoch, b.endEpoch = context.WithCancel(context.Background())
	close(b.up)
	nc, err := dial(ctx, c, b)
	if err != nil {
		return nil, fmt.Errorf("connect to broker: %w", err)
	}
	b.nc, b.at = nc, time.Now()
	if err := b.open(c.Metrics); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// Open is Connect with the streams ensured: how a service that is given no connection begins.
func Open(ctx context.Context, c Config, l events.Limits) (*Bus, error) {
	b, err := Connect(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := b.Ensure(ctx, l); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (b *Bus) open(reg prometheus.Registerer) (err error) {
	if b.js, err = jetstream.New(b.nc, jetstream.WithDefaultTimeout(DefaultTimeout), jetstream.WithPublishAsyncTimeout(DefaultTimeout)); err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	if b.legacy, err = b.nc.JetStream(nats.MaxWait(DefaultTimeout)); err != nil {
		return fmt.Errorf("open JetStream: %w", err)
	}
	if b.metrics, err = newMetrics(reg, b); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	return nil
}

// dial repeats the first connection itself: the client's own way of doing so hides a refused token.
func dial(ctx context.Context, c Config, b *Bus) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name(c.Name), nats.Token(c.Token), nats.Timeout(2 * time.Second),
		nats.MaxReconnects(-1), nats.ReconnectWait(250 * time.Millisecond), nats.IgnoreAuthErrorAbort(),
		nats.ReconnectJitter(100*time.Millisecond, 100*time.Millisecond),
		// What can't be sent now is an error now: a publish that was given up must not go out minutes later.
		nats.ReconnectBufSize(-1),
		nats.SyncQueueLen(syncQueue),
		nats.PingInterval(30 * time.Second), nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { b.disconnected(err) }),
		nats.ReconnectHandler(func(*nats.Conn) { b.reconnected() }),
		nats.ClosedHandler(func(*nats.Conn) { close(b.closed) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			b.logger.Warn("broker connection", "connection", c.Name, "error", err)
		}),
	}
	if c.InProcess != nil {
		opts = append(opts, nats.InProcessServer(c.InProcess))
	}
	wait := 100 * time.Millisecond
	for {
		nc, err := nats.Connect(c.URL, opts...)
		if err == nil {
			return nc, nil
		}
		if errors.Is(err, nats.ErrAuthorization) || errors.Is(err, nats.ErrAuthExpired) {
			return nil, fmt.Errorf("the broker refuses the token: %w", err)
		}
		if sleepErr := sleep(ctx, wait); sleepErr != nil {
			return nil, fmt.Errorf("%w: %w (%w)", ErrUnavailable, err, sleepErr)
		}
		wait = min(2*wait, 2*time.Second)
	}
}

// Close closes the connection and waits until its callbacks have ended. It drains nothing: what is not acknowledged
// comes again. Stop routers and follows first. Closing twice is fine.
func (b *Bus) Close() {
	b.nc.Close()
	<-b.closed
	b.endEpoch()
	if b.metrics != nil {
		b.metrics.close()
	}
}

// Conn is the connection for core messages: heartbeats, live questions. It must not be closed or drained.
func (b *Bus) Conn() *nats.Conn { return b.nc }

// JetStream is the client under this package, for what it does not cover.
func (b *Bus) JetStream() jetstream.JetStream { return b.js }

// Connected says whether the broker can be asked, for readiness checks.
func (b *Bus) Connected() bool { return b.nc.IsConnected() }

// Reconnects is how often the connection was made anew.
func (b *Bus) Reconnects() uint64 { return b.nc.Stats().Reconnects }

// ConnectedAt is when the connection began, by this machine's clock; while there is none, the last one.
func (b *Bus) ConnectedAt() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at
}

func (b *Bus) disconnected(err error) {
	b.mu.Lock()
	select {
	case <-b.up:
		b.up = make(chan struct{})
	default:
	}
	b.endEpoch()
	b.mu.Unlock()
	if err != nil { // nil when we close it ourselves
		b.logger.Warn("lost the broker; trying again", "connection", b.name, "error", err)
	}
}

func (b *Bus) reconnected() {
	b.mu.Lock()
	b.endEpoch()
	b.epoch, b.endEpoch = context.WithCancel(context.Background())
	b.at = time.Now()
	select {
	case <-b.up:
	default:
		close(b.up)
	}
	b.mu.Unlock()
	b.logger.Info("found the broker again", "connection", b.name, "url", b.nc.ConnectedUrlRedacted())
}

// connected waits for a connection and gives a context that ends with ctx or when that connection is lost.
func (b *Bus) connected(ctx context.Context) (context.Context, context.CancelFunc, error) {
	b.mu.Lock()
	up := b.up
	b.mu.Unlock()
	select {
	case <-up:
	case <-b.closed:
		return nil, nil, fmt.Errorf("%w: %w", ErrUnavailable, nats.ErrConnectionClosed)
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
	b.mu.Lock()
	epoch := b.epoch
	b.mu.Unlock()
	session, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(epoch, cancel)
	return session, func() { stop(); cancel() }, nil
}

// ready waits for a connection and gives a context for one request: it ends with ctx, when the connection is lost (what
// was asked over it is never answered), and after DefaultTimeout where ctx has no deadline.
func (b *Bus) ready(ctx context.Context) (context.Context, context.CancelFunc, error) {
	cancel := context.CancelFunc(func() {})
	if _, ok := ctx.Deadline(); !ok {
		ctx, cancel = context.WithTimeout(ctx, DefaultTimeout)
	}
	session, release, err := b.connected(ctx)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	return session, func() { release(); cancel() }, nil
}

// unavailable marks an error of the client as ErrUnavailable where it says nothing about the request itself. Canceled is
// the end of a context of ready.
func unavailable(err error) error {
	if err == nil || errors.Is(err, ErrUnavailable) {
		return err
	}
	for _, known := range []error{
		context.DeadlineExceeded, context.Canceled, nats.ErrTimeout, nats.ErrNoResponders, jetstream.ErrNoStreamResponse,
		nats.ErrConnectionClosed, nats.ErrReconnectBufExceeded, nats.ErrDisconnected, nats.ErrConnectionReconnecting,
		nats.ErrBadSubscription,
	} {
		if errors.Is(err, known) {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
	}
	var api *jetstream.APIError
	if errors.As(err, &api) && api.Code == 503 {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// again waits before something is tried again, and gives the next wait: twice as long, at most maxRetry. While the broker
// is away it waits for that, however long it takes, and begins anew: an outage must not have made the waits long by the
// time it is over.
func (b *Bus) again(ctx context.Context, wait time.Duration) time.Duration {
	if !b.nc.IsConnected() {
		if _, release, err := b.connected(ctx); err == nil {
			release()
		}
		wait = firstRetry
	}
	_ = sleep(ctx, wait)
	return min(2*wait, maxRetry)
}

// sleep waits for d or until ctx ends, whose error it then gives.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
