package view_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/services/scheduler/internal/view"
)

func TestMain(m *testing.M) { bustest.Main(m) }

// world is a broker, an operator with an old CLI and one with ours.
type world struct {
	t        *testing.T
	broker   *broker.Broker
	bus      *bus.Bus
	reg      *prometheus.Registry
	appended int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, broker: bustest.Broker(t), reg: prometheus.NewRegistry()}
	w.bus = bustest.Connect(t, w.broker)
	return w
}

// run starts the handlers with a connection of their own, each answer on which takes a random time up to lag.
func (w *world) run(lag time.Duration, mw ...message.HandlerMiddleware) (stop func()) {
	w.t.Helper()
	b, err := bus.Connect(w.t.Context(), bus.Config{
		InProcess: slow{w.broker.InProcess(), lag}, Token: w.broker.Token(), Name: "scheduler", Logger: bustest.Logger(w.t),
	})
	require.NoError(w.t, err)
	router, err := b.NewRouter(bus.RouterConfig{Middleware: mw})
	require.NoError(w.t, err)
	require.NoError(w.t, view.Register(router, b, bustest.Logger(w.t), w.reg))
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- router.Run(ctx) }()
	<-router.Running()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
		b.Close()
	})
	w.t.Cleanup(stop)
	return stop
}

// slow is a connection whose answers take their time.
type slow struct {
	nats.InProcessConnProvider
	lag time.Duration
}

func (s slow) InProcessConn() (net.Conn, error) {
	c, err := s.InProcessConnProvider.InProcessConn()
	return slowConn{c, s.lag}, err
}

type slowConn struct {
	net.Conn
	lag time.Duration
}

func (c slowConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.lag > 0 {
		time.Sleep(rand.N(c.lag))
	}
	return n, err
}

// append stores a fact as the api would, unless the aggregate has changed since expected.
func (w *world) append(p events.Payload, expected uint64) (uint64, error) {
	w.t.Helper()
	w.appended++
	e, err := events.New(p, events.Meta{ID: fmt.Sprintf("fact-%d", w.appended), Source: "/kanade/test", Time: time.Now(), Actor: "user:test"})
	require.NoError(w.t, err)
	return w.bus.Append(w.t.Context(), e, expected)
}

func (w *world) tell(p events.Payload) uint64 {
	w.t.Helper()
	seq, err := w.append(p, bus.Any)
	require.NoError(w.t, err)
	return seq
}

func (w *world) kv(bucket string) jetstream.KeyValue {
	w.t.Helper()
	kv, err := w.bus.JetStream().KeyValue(w.t.Context(), bucket)
	require.NoError(w.t, err)
	return kv
}

// put writes as an old CLI does.
func (w *world) put(bucket, key, value string) {
	w.t.Helper()
	_, err := w.kv(bucket).PutString(w.t.Context(), key, value)
	require.NoError(w.t, err)
}

// shown is an entry that must be ours: its value, "-" if it is deleted or was never there.
func (w *world) shown(bucket, key string) (string, uint64) {
	w.t.Helper()
	v, ok, err := w.bus.View(w.t.Context(), bucket, key)
	require.NoError(w.t, err)
	require.True(w.t, !ok || v.Ours, "%s of %s is not ours: %q", key, bucket, v.Value)
	if !ok || v.Deleted {
		return "-", v.LogSeq
	}
	return string(v.Value), v.LogSeq
}

// facts of one aggregate, each id once.
func (w *world) facts(a events.Aggregate, id string) []bus.Stored {
	w.t.Helper()
	all, err := w.bus.Load(w.t.Context(), a, id, 0)
	require.NoError(w.t, err)
	ids := map[string]bool{}
	for _, s := range all {
		require.False(w.t, ids[s.ID], "%s is stored twice", s.ID)
		ids[s.ID] = true
	}
	return all
}

// adoptions counts by result.
func (w *world) adoptions(bucket string) map[string]int {
	w.t.Helper()
	families, err := w.reg.Gather()
	require.NoError(w.t, err)
	counts := map[string]int{}
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() == "kanade_scheduler_adoptions_total" && m.Label[0].GetValue() == bucket {
				counts[m.Label[1].GetValue()] = int(m.Counter.GetValue())
			}
		}
	}
	return counts
}

// pass lets simulated time pass.
func pass(d time.Duration) { time.Sleep(d) }
