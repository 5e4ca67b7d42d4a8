package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
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
	"kanade/libs/events/wire"
	"kanade/services/agent/internal/bucket"
)

const (
	testPC   = "pc-01"
	testJob  = "hello"
	testExec = "ed70b3bc-5ac5-4c70-a90d-b319c4557e8e"
)

// scripted is an Executor whose scripts are words: "sleep <duration>", "fail <code>", "say <text>", "stuck" (until
// killed). It counts how often each run was started.
type scripted struct {
	mu      sync.Mutex
	started map[string]int
	order   []string
	// plays overrides what a script does.
	plays func(ctx context.Context, name string, s Script, stdout io.Writer) (Exit, error)
}

func newScripted() *scripted { return &scripted{started: map[string]int{}} }

func (x *scripted) Supports(shell string) bool { return shell == "sh" }

func (x *scripted) Run(ctx context.Context, name string, s Script, _ []string, stdout, _ io.Writer) (Exit, error) {
	x.mu.Lock()
	x.started[name]++
	x.order = append(x.order, s.Body)
	play := x.plays
	x.mu.Unlock()
	if play != nil {
		return play(ctx, name, s, stdout)
	}
	word, rest, _ := strings.Cut(s.Body, " ")
	switch word {
	case "sleep", "stuck":
		d, err := time.ParseDuration(rest)
		if err != nil {
			d = 1000 * time.Hour
		}
		select {
		case <-ctx.Done():
			return Exit{Signal: "kill"}, nil
		case <-time.After(d):
		}
	case "fail":
		var code int
		fmt.Sscan(rest, &code)
		return Exit{Code: code}, nil
	default:
		io.WriteString(stdout, rest)
	}
	return Exit{}, nil
}

func (x *scripted) starts() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := 0
	for _, k := range x.started {
		n += k
	}
	return n
}

func (x *scripted) bodies() []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.order)
}

// site is a broker with one agent.
type site struct {
	t    *testing.T
	br   *broker.Broker
	bus  *bus.Bus
	dir  string
	exec *scripted
	deps Deps
	// limit is how many commands are carried out at once; 0 is the default.
	limit int
}

func newSite(t *testing.T) *site {
	br := bustest.Broker(t)
	s := &site{t: t, br: br, bus: bustest.Connect(t, br), dir: t.TempDir(), exec: newScripted()}
	s.deps = Deps{Executor: s.exec, Logger: bustest.Logger(t)}
	return s
}

// start runs the agent until stop is called, or the test ends.
func (s *site) start() (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := s.deps
	if d.Bus == nil {
		d.Bus = s.bus
	}
	done := make(chan error, 1)
	go func() { done <- Run(ctx, Config{ID: testPC, Data: s.dir, Limit: s.limit}, d) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			require.NoError(s.t, <-done)
		})
	}
	s.t.Cleanup(stop)
	return stop
}

// command is one that says its request id.
func command(request string, change ...func(*wire.Command)) wire.Command {
	c := wire.Command{
		ID: testJob, Version: "1.0.0", RequestID: request, ExecID: testExec, Shell: wire.ShellSh, Script: "say " + request,
		TimeoutSecs: 30,
	}
	for _, f := range change {
		f(&c)
	}
	return c
}

// send publishes a command as the dispatcher does: into EXEC, heard live by whoever listens.
func (s *site) send(subject string, c wire.Command) {
	s.t.Helper()
	data, err := json.Marshal(c)
	require.NoError(s.t, err)
	_, err = s.bus.JetStream().PublishMsg(s.t.Context(), &nats.Msg{
		Subject: subject, Data: data, Header: nats.Header{events.HeaderMsgID: {c.RequestID + "/" + subject}},
	})
	require.NoError(s.t, err)
}

func (s *site) put(name, key, value string) {
	s.t.Helper()
	_, err := s.bus.JetStream().Publish(s.t.Context(), bucket.Subject(name, key), []byte(value))
	require.NoError(s.t, err)
}

// follower answers direct gets of a bucket's key with what was there long ago, in place of the broker, which alone would
// answer with what is there.
func (s *site) follower(name, key, stale string) {
	s.t.Helper()
	stream, err := s.bus.JetStream().Stream(s.t.Context(), "KV_"+name)
	require.NoError(s.t, err)
	config := stream.CachedInfo().Config
	config.AllowDirect = false
	_, err = s.bus.JetStream().UpdateStream(s.t.Context(), config)
	require.NoError(s.t, err)
	_, err = s.bus.Conn().Subscribe("$JS.API.DIRECT.GET.KV_"+name+"."+bucket.Subject(name, key), func(m *nats.Msg) {
		_ = m.RespondMsg(&nats.Msg{Data: []byte(stale), Header: nats.Header{
			"Nats-Time-Stamp": {time.Now().Add(-time.Hour).UTC().Format(time.RFC3339Nano)},
		}})
	})
	require.NoError(s.t, err)
}

// resize gives a stream another byte limit, and tells the one it had.
func (s *site) resize(stream string, room int64) (before int64) {
	s.t.Helper()
	found, err := s.bus.JetStream().Stream(s.t.Context(), stream)
	require.NoError(s.t, err)
	config := found.CachedInfo().Config
	before, config.MaxBytes = config.MaxBytes, room
	_, err = s.bus.JetStream().UpdateStream(s.t.Context(), config)
	require.NoError(s.t, err)
	return before
}

// cable is the agent's own way to the broker, which can be cut.
type cable struct {
	broker *broker.Broker
	mu     sync.Mutex
	broken bool
	conns  []net.Conn
}

// dial connects over the cable, until the test ends.
func (c *cable) dial(t *testing.T) *bus.Bus {
	t.Helper()
	b, err := bus.Connect(t.Context(), bus.Config{InProcess: c, Token: bustest.Token, Name: "agent", Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(b.Close)
	return b
}

func (c *cable) InProcessConn() (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		return nil, net.ErrClosed
	}
	conn, err := c.broker.InProcessConn()
	if err == nil {
		c.conns = append(c.conns, conn)
	}
	return conn, err
}

func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.broken, c.conns = true, nil
}

func (c *cable) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = false
}

// facts are the run facts in the log, in order.
func (s *site) facts() []events.RunFact {
	s.t.Helper()
	stored, err := s.bus.Load(s.t.Context(), events.AggregateRun, testPC, 0)
	require.NoError(s.t, err)
	var facts []events.RunFact
	for _, e := range stored {
		f, ok, err := events.RunFactOf(e.Event)
		require.NoError(s.t, err)
		require.True(s.t, ok)
		facts = append(facts, f)
	}
	return facts
}

// kinds are "<request>:<fact>[=state or reason]" of every fact in the log.
func (s *site) kinds() []string {
	var out []string
	for _, f := range s.facts() {
		k := f.RequestID + ":" + string(f.Kind)
		if f.Kind == events.RunKindFinished {
			k += "=" + string(f.State)
		}
		if f.Kind == events.RunKindSkipped {
			k += "=" + f.Reason
		}
		out = append(out, k)
	}
	return out
}

func ran(request string) []string {
	return []string{request + ":received", request + ":started", request + ":finished=succeeded"}
}

// settle lets simulated time pass.
func settle(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
