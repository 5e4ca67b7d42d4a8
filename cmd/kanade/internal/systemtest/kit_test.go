package systemtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/services/agent"
	"kanade/services/api"
	"kanade/services/projector"
	"kanade/services/scheduler"
)

const kitToken = "a-token-for-tests"

// site is the whole of kanade without a network, for a bubble of testing/synctest: a broker, the services, which come and
// go by name, and HTTP over pipes.
type site struct {
	t         testing.TB
	broker    *broker.Broker
	readModel string
	running   map[string]*part
	api       pipes
	// limits are what services are told of retention; zero: the defaults.
	limits events.Limits
	// seen is the last sequence that a write has answered; reads ask for it.
	seen uint64
}

// part is one running service on a connection of its own.
type part struct {
	bus    *bus.Bus
	cancel context.CancelFunc
	ended  chan error
}

func newSite(t testing.TB) *site {
	s := &site{t: t, broker: bustest.Broker(t), readModel: t.TempDir(), running: map[string]*part{}}
	t.Cleanup(func() {
		for name := range s.running {
			s.stop(name)
		}
	})
	bustest.Connect(t, s.broker).Close()
	return s
}

// run starts a service under a name.
func (s *site) run(name string, way nats.InProcessConnProvider, run func(context.Context, *bus.Bus) error) {
	s.t.Helper()
	require.NotContains(s.t, s.running, name)
	b, err := bus.Connect(s.t.Context(), bus.Config{InProcess: way, Token: bustest.Token, Name: "kanade-" + name, Logger: quiet(s.t)})
	require.NoError(s.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	p := &part{bus: b, cancel: cancel, ended: make(chan error, 1)}
	go func() { p.ended <- run(ctx, b) }()
	s.running[name] = p
}

// stop asks a service to end, and waits for it.
func (s *site) stop(name string) {
	s.t.Helper()
	p := s.running[name]
	require.NotNil(s.t, p, name)
	delete(s.running, name)
	p.cancel()
	require.NoError(s.t, <-p.ended, name)
	p.bus.Close()
}

// cut takes the broker from a service before it ends, so that it can't finish or say anything.
func (s *site) cut(name string) {
	s.t.Helper()
	p := s.running[name]
	require.NotNil(s.t, p, name)
	delete(s.running, name)
	p.bus.Close()
	p.cancel()
	<-p.ended // what it says of a connection that is gone is no matter
}

func (s *site) startScheduler(name string) {
	s.t.Helper()
	s.run(name, s.broker, func(ctx context.Context, b *bus.Bus) error {
		return scheduler.Run(ctx, scheduler.Config{Limits: s.limits}, scheduler.Deps{Bus: b, Logger: quiet(s.t)})
	})
}

func (s *site) startProjector() {
	s.t.Helper()
	s.startProjectorOn("projector", s.readModel)
}

func (s *site) startProjectorOn(name, dir string) {
	s.t.Helper()
	s.run(name, s.broker, func(ctx context.Context, b *bus.Bus) error {
		return projector.Run(ctx, projector.Config{ReadModelDir: dir, Limits: s.limits}, projector.Deps{Bus: b, Logger: quiet(s.t)})
	})
}

func (s *site) startAPI() {
	s.t.Helper()
	listener := s.api.listen()
	s.run("api", s.broker, func(ctx context.Context, b *bus.Bus) error {
		return api.Run(ctx, api.Config{AuthToken: kitToken, ReadModelDir: s.readModel}, api.Deps{Bus: b, Listener: listener, Logger: quiet(s.t)})
	})
}

// startAgent starts an endpoint on its data directory; way is how it reaches the broker.
func (s *site) startAgent(pc, data string, way nats.InProcessConnProvider, x agent.Executor) {
	s.t.Helper()
	s.run(pc, way, func(ctx context.Context, b *bus.Bus) error {
		// A beat a minute is enough to count as alive, and half of what a simulated day costs are beats.
		return agent.Run(ctx, agent.Config{ID: pc, Data: data, Heartbeat: time.Minute}, agent.Deps{Bus: b, Executor: x, Logger: quiet(s.t)})
	})
}

// try sends a request; a service that is down, or an answer that is no success, is an error.
func (s *site) try(method, path, body string, headers ...string) ([]byte, http.Header, error) {
	return s.api.try(method, path, body, headers...)
}

// try sends a request to the api that listens there.
func (p *pipes) try(method, path, body string, headers ...string) ([]byte, http.Header, error) {
	r, err := http.NewRequestWithContext(context.Background(), method, "http://api"+path, strings.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("Authorization", "Bearer "+kitToken)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	transport := &http.Transport{DialContext: p.dial, DisableKeepAlives: true}
	answer, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, text)
	}
	return text, answer.Header, err
}

// write sends a request that must succeed, and remembers its sequence.
func (s *site) write(method, path, body string, headers ...string) []byte {
	s.t.Helper()
	text, header, err := s.try(method, path, body, headers...)
	require.NoError(s.t, err)
	seq, err := strconv.ParseUint(header.Get("Kanade-Sequence"), 10, 64)
	require.NoError(s.t, err)
	s.seen = max(s.seen, seq)
	return text
}

// read gets what is true after the last write.
func (s *site) read(path string, v any) {
	s.t.Helper()
	text, _, err := s.try(http.MethodGet, path, "", "Kanade-Min-Sequence", strconv.FormatUint(s.seen, 10))
	require.NoError(s.t, err)
	require.NoError(s.t, json.Unmarshal(text, v), "%s", text)
}

// pipes is an address in memory, on which one listener after another may listen.
type pipes struct {
	mu       sync.Mutex
	listener *pipeListener
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) listen() net.Listener {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener = &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	return p.listener
}

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	p.mu.Lock()
	l := p.listener
	p.mu.Unlock()
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error { l.once.Do(func() { close(l.closed) }); return nil }
func (*pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

// cable is one endpoint's way to the broker. Pulled, it is as if the network was gone.
type cable struct {
	broker *broker.Broker
	mu     sync.Mutex
	pulled bool
	conns  []net.Conn
}

func (c *cable) InProcessConn() (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pulled {
		return nil, net.ErrClosed
	}
	conn, err := c.broker.InProcessConn()
	if err == nil {
		c.conns = append(c.conns, conn)
	}
	return conn, err
}

func (c *cable) pull() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.pulled, c.conns = true, nil
}

func (c *cable) plug() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pulled = false
}

// settle lets simulated time pass, and then everything that is due happen.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// quiet writes errors to the test's log; that a broker is gone and found again is no news where it is made to.
func quiet(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
}

// long skips a test that takes long where only short ones are asked for, as beside the race detector.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes long: run it without -short")
	}
}

// drawnSeed is a proof's seed: KANADE_SEED, or a drawn one. It is told, so that the proof can be repeated.
func drawnSeed(t *testing.T) uint64 {
	seed := rand.Uint64()
	if text := os.Getenv("KANADE_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, "KANADE_SEED")
	}
	t.Logf("seed %d", seed)
	return seed
}
