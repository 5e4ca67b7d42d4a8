package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

const agentFacts = "events.agent.>"

// start runs a router with one handler and returns what stops it and waits.
func start(t testing.TB, b *bus.Bus, sub message.Subscriber, h bus.Handler, mw ...message.HandlerMiddleware) (stop func()) {
	t.Helper()
	r, err := b.NewRouter(bus.RouterConfig{Middleware: mw})
	require.NoError(t, err)
	r.Handle("work", sub, h)
	return run(t, r)
}

func run(t testing.TB, r *bus.Router) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	<-r.Running()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// transports are both ways a handler gets its messages.
func transports(t *testing.T, test func(t *testing.T, make func(*bus.Bus) message.Subscriber)) {
	pull := func(b *bus.Bus) message.Subscriber {
		s, err := b.PullSubscriber(bus.PullConfig{Stream: events.StreamLog, Durable: "work", Filters: []string{agentFacts}})
		require.NoError(t, err)
		return s
	}
	push := func(b *bus.Bus) message.Subscriber {
		s, err := b.PushSubscriber(bus.PushConfig{Stream: events.StreamLog, Durable: "work", Filters: []string{agentFacts, "audit.>"}})
		require.NoError(t, err)
		return s
	}
	for name, make := range map[string]func(*bus.Bus) message.Subscriber{"pull": pull, "push": push} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, make) })
		})
	}
}

// seen collects what a handler was called with.
type seen struct {
	mu  sync.Mutex
	ids []string
	at  []time.Time
}

func (s *seen) add(m bus.Stored) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids, s.at = append(s.ids, m.ID), append(s.at, time.Now())
}

func (s *seen) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.ids...)
}

func TestHandlersSeeEveryFact(t *testing.T) {
	transports(t, func(t *testing.T, make func(*bus.Bus) message.Subscriber) {
		b := bustest.Connect(t, bustest.Broker(t))
		var got seen
		appendFacts(t, b, "before", 3)
		stop := start(t, b, make(b), func(_ context.Context, m bus.Stored) error { got.add(m); return nil })
		appendFacts(t, b, "after", 3)
		synctest.Wait()
		require.Equal(t, []string{"before-0", "before-1", "before-2", "after-0", "after-1", "after-2"}, got.list())
		stop()
		appendFacts(t, b, "later", 1)
		stop = start(t, b, make(b), func(_ context.Context, m bus.Stored) error { got.add(m); return nil })
		defer stop()
		pause(time.Second)
		require.Equal(t, "later-0", got.list()[len(got.list())-1])
		require.Len(t, got.list(), 7, "what was acknowledged does not come again")
	})
}

func TestFailureIsTriedAgainWithGrowingDelay(t *testing.T) {
	transports(t, func(t *testing.T, make func(*bus.Bus) message.Subscriber) {
		b := bustest.Connect(t, bustest.Broker(t))
		var got seen
		appendFacts(t, b, "pc", 1)
		begin := time.Now()
		stop := start(t, b, make(b), func(_ context.Context, m bus.Stored) error {
			got.add(m)
			if len(got.list()) < 11 {
				return errors.New("not yet")
			}
			return nil
		})
		defer stop()
		pause(time.Hour)
		require.Len(t, got.at, 11)
		at := time.Duration(0)
		for i, want := range []float64{0, .25, .5, 1, 2, 4, 8, 16, 30, 30, 30} {
			at += time.Duration(want * float64(time.Second))
			require.WithinDuration(t, begin.Add(at), got.at[i], 50*time.Millisecond, "call %d", i)
		}
	})
}

func TestPushKeepsOrderWhileAMessageIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		sub, err := b.PushSubscriber(bus.PushConfig{Stream: events.StreamLog, Durable: "work"})
		require.NoError(t, err)
		var got seen
		failures := 3
		appendFacts(t, b, "pc", 4)
		stop := start(t, b, sub, func(_ context.Context, m bus.Stored) error {
			if m.Seq == 2 && failures > 0 {
				failures--
				return errors.New("not yet")
			}
			got.add(m)
			return nil
		})
		defer stop()
		pause(time.Minute)
		require.Equal(t, []string{"pc-0", "pc-1", "pc-2", "pc-3"}, got.list())
	})
}

// A worker whose process dies does so without a word: here its connection goes while its handler hangs.
func TestMessageOfAKilledWorkerIsTakenOverInASecond(t *testing.T) {
	transports(t, func(t *testing.T, make func(*bus.Bus) message.Subscriber) {
		br := bustest.Broker(t)
		dead, alive := bustest.Connect(t, br), bustest.Dial(t, br)
		taken, blocked := context.WithCancel(context.Background())
		first := func(ctx context.Context, m bus.Stored) error {
			blocked()
			<-ctx.Done()
			return ctx.Err()
		}
		stopDead := start(t, dead, make(dead), first)
		appendFacts(t, alive, "pc", 1)
		<-taken.Done()
		var got seen
		stop := start(t, alive, make(alive), func(_ context.Context, m bus.Stored) error { got.add(m); return nil })
		defer stop()
		pause(10 * time.Second)
		require.Empty(t, got.list(), "while the worker lives its message is its own")
		killed := time.Now()
		dead.Conn().Close()
		pause(time.Minute)
		require.Equal(t, []string{"pc-0"}, got.list())
		require.LessOrEqual(t, got.at[0].Sub(killed), 1100*time.Millisecond)
		stopDead()
	})
}

func TestStopWaitsForTheHandlerAndLosesNothing(t *testing.T) {
	transports(t, func(t *testing.T, make func(*bus.Bus) message.Subscriber) {
		b := bustest.Connect(t, bustest.Broker(t))
		var got seen
		slow := func(_ context.Context, m bus.Stored) error {
			time.Sleep(3 * time.Second)
			got.add(m)
			return nil
		}
		appendFacts(t, b, "pc", 6)
		for len(got.list()) < 6 {
			stop := start(t, b, make(b), slow)
			pause(4 * time.Second) // in the middle of the second one
			stop()
		}
		require.Equal(t, []string{"pc-0", "pc-1", "pc-2", "pc-3", "pc-4", "pc-5"}, got.list())
	})
}

func TestStopInterruptsWhoTakesTooLong(t *testing.T) {
	transports(t, func(t *testing.T, make func(*bus.Bus) message.Subscriber) {
		b := bustest.Connect(t, bustest.Broker(t))
		appendFacts(t, b, "pc", 1)
		stop := start(t, b, make(b), func(ctx context.Context, m bus.Stored) error {
			<-ctx.Done()
			return ctx.Err()
		})
		pause(time.Second)
		begin := time.Now()
		stop()
		require.Equal(t, bus.DrainTimeout, time.Since(begin))
		var got seen
		stop = start(t, b, make(b), func(_ context.Context, m bus.Stored) error { got.add(m); return nil })
		defer stop()
		pause(2 * time.Second)
		require.Equal(t, []string{"pc-0"}, got.list())
	})
}

func TestPermanentErrorIsParkedWithItsReason(t *testing.T) {
	transports(t, func(t *testing.T, make func(*bus.Bus) message.Subscriber) {
		b := bustest.Connect(t, bustest.Broker(t))
		last := appendFacts(t, b, "pc", 2)
		var got seen
		stop := start(t, b, make(b), func(_ context.Context, m bus.Stored) error {
			if m.Seq == 1 {
				return fmt.Errorf("plan pc: %w", bus.Permanent(errors.New("no such\nthing")))
			}
			got.add(m)
			return nil
		})
		defer stop()
		pause(time.Minute)
		require.Equal(t, []string{"pc-1"}, got.list())
		dead, ok, err := b.LastRaw(t.Context(), events.StreamDead, "dead.>")
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, "dead.work", dead.Subject)
		for name, want := range map[string]string{
			bus.HeaderDeadReason: "plan pc: no such thing", bus.HeaderDeadHandler: "work", bus.HeaderDeadStream: events.StreamLog,
			bus.HeaderDeadSequence: "1", bus.HeaderDeadSubject: "events.agent.pc.grouped", "ce-id": "pc-0",
		} {
			require.Equal(t, []string{want}, dead.Header[name], name)
		}
		original, _, err := b.Get(t.Context(), events.StreamLog, 1)
		require.NoError(t, err)
		require.Equal(t, original.Data, dead.Data)
		require.Equal(t, uint64(2), last)
	})
}

func TestWhatIsNoFactIsParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		sub, err := b.PullSubscriber(bus.PullConfig{Stream: events.StreamLog, Durable: "work"})
		require.NoError(t, err)
		require.NoError(t, b.Conn().Publish("events.agent.pc.grouped", []byte("{")))
		stop := start(t, b, sub, func(context.Context, bus.Stored) error { t.Error("called"); return nil })
		defer stop()
		pause(time.Second)
		dead, ok, err := b.LastRaw(t.Context(), events.StreamDead, "dead.>")
		require.NoError(t, err)
		require.True(t, ok)
		require.Contains(t, dead.Header[bus.HeaderDeadReason][0], "envelope")
	})
}

func TestPanicIsTriedAgain(t *testing.T) {
	transports(t, func(t *testing.T, make func(*bus.Bus) message.Subscriber) {
		b := bustest.Connect(t, bustest.Broker(t))
		appendFacts(t, b, "pc", 1)
		calls := 0
		stop := start(t, b, make(b), func(context.Context, bus.Stored) error {
			if calls++; calls < 3 {
				panic("oops")
			}
			return nil
		})
		defer stop()
		pause(time.Minute)
		require.Equal(t, 3, calls)
	})
}

func TestHandlersSurviveABrokerRestart(t *testing.T) {
	transports(t, func(t *testing.T, make func(*bus.Bus) message.Subscriber) {
		br := bustest.Broker(t)
		b := bustest.Connect(t, br)
		var got seen
		stop := start(t, b, make(b), func(_ context.Context, m bus.Stored) error { got.add(m); return nil })
		defer stop()
		for i := range 3 {
			pc := fmt.Sprint(i)
			appendFacts(t, b, pc, 2)
			synctest.Wait()
			bustest.Restart(t, br, 5*time.Second)
			pause(2 * time.Second)
		}
		appendFacts(t, b, "end", 1)
		pause(time.Second)
		require.Equal(t, []string{"0-0", "0-1", "1-0", "1-1", "2-0", "2-1", "end-0"}, got.list())
	})
}

// An idle subscriber must still be there after days: requests that wait expire and are asked again.
func TestIdleHandlersStayThere(t *testing.T) {
	transports(t, func(t *testing.T, make func(*bus.Bus) message.Subscriber) {
		b := bustest.Connect(t, bustest.Broker(t))
		var got seen
		stop := start(t, b, make(b), func(_ context.Context, m bus.Stored) error { got.add(m); return nil })
		defer stop()
		pause(26 * time.Hour)
		appendFacts(t, b, "pc", 1)
		pause(10 * time.Millisecond)
		require.Equal(t, []string{"pc-0"}, got.list())
	})
}

func TestUrgentWorkPassesAHugeOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		sub, err := b.PullSubscriber(bus.PullConfig{Stream: events.StreamLog, Durable: "work", Workers: 2})
		require.NoError(t, err)
		var got seen
		stop := start(t, b, sub, func(_ context.Context, m bus.Stored) error {
			if m.Subject == "huge" {
				time.Sleep(time.Minute)
			}
			got.add(m)
			return nil
		})
		defer stop()
		appendFacts(t, b, "huge", 1)
		begin := time.Now()
		appendFacts(t, b, "urgent", 5)
		pause(2 * time.Minute)
		require.Equal(t, []string{"urgent-0", "urgent-1", "urgent-2", "urgent-3", "urgent-4", "huge-0"}, got.list())
		require.Less(t, got.at[4].Sub(begin), time.Second)
	})
}

func TestTroubleReachesEveryFactAtLeastOnce(t *testing.T) {
	transports(t, func(t *testing.T, make func(*bus.Bus) message.Subscriber) {
		b := bustest.Connect(t, bustest.Broker(t))
		var got seen
		stop := start(t, b, make(b), func(_ context.Context, m bus.Stored) error { got.add(m); return nil },
			bustest.Duplicate(1, 0.3), bustest.RandomFail(2, 0.3))
		defer stop()
		appendFacts(t, b, "pc", 50)
		pause(time.Hour)
		ids := map[string]bool{}
		for _, id := range got.list() {
			ids[id] = true
		}
		require.Len(t, ids, 50)
		require.Greater(t, len(got.list()), 50)
	})
}

func TestRunSaysWhatIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		r, err := b.NewRouter(bus.RouterConfig{})
		require.NoError(t, err)
		sub, err := b.PullSubscriber(bus.PullConfig{Stream: "NONE", Durable: "work"})
		require.NoError(t, err)
		r.HandleRaw("work", sub, func(context.Context, bus.RawMsg) error { return nil })
		require.ErrorIs(t, r.Run(t.Context()), bus.ErrNotFound)
		r.HandleRaw("work", sub, func(context.Context, bus.RawMsg) error { return nil })
		require.ErrorContains(t, r.Run(t.Context()), "two handlers")
		_, err = b.PushSubscriber(bus.PushConfig{Stream: events.StreamLog, Durable: "a.b"})
		require.ErrorContains(t, err, "a.b")
	})
}

func TestTraceGoesOnInTheHandler(t *testing.T) {
	transports(t, func(t *testing.T, make func(*bus.Bus) message.Subscriber) {
		b := bustest.Connect(t, bustest.Broker(t))
		const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
		_, err := b.Append(bus.WithTraceParent(t.Context(), parent), fact(t, "a", "pc"), 0)
		require.NoError(t, err)
		var got trace.SpanContext
		stop := start(t, b, make(b), func(ctx context.Context, m bus.Stored) error {
			got = trace.SpanContextFromContext(ctx)
			return nil
		})
		pause(time.Second)
		stop()
		require.Equal(t, "0af7651916cd43dd8448eb211c80319c", got.TraceID().String())
	})
}

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		bustest.Connect(t, br)
		reg := prometheus.NewRegistry()
		var buses []*bus.Bus
		for _, name := range []string{"one", "two"} {
			b, err := bus.Connect(t.Context(), bus.Config{InProcess: br, Token: bustest.Token, Name: name, Metrics: reg, Logger: bustest.Logger(t)})
			require.NoError(t, err)
			buses = append(buses, b)
		}
		b := buses[0]
		require.NoError(t, b.SetTimer(t.Context(), bus.Timer{Kind: "k", Key: "a", Generation: "1", At: time.Now().Add(time.Hour)}))
		appendFacts(t, b, "pc", 3)
		_, err := b.Append(t.Context(), fact(t, "x", "pc"), 1)
		require.Error(t, err)
		sub, err := b.PullSubscriber(bus.PullConfig{Stream: events.StreamLog, Durable: "work"})
		require.NoError(t, err)
		failed := false
		stop := start(t, b, sub, func(_ context.Context, m bus.Stored) error {
			if m.Seq == 1 {
				return bus.Permanent(errors.New("bad"))
			}
			if m.Seq == 2 && !failed {
				failed = true
				return errors.New("later")
			}
			return nil
		})
		pause(time.Minute)
		stop()
		families, err := reg.Gather()
		require.NoError(t, err)
		got := map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := f.GetName()
				for _, l := range m.GetLabel() {
					name += " " + l.GetValue()
				}
				got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
		require.Equal(t, map[string]float64{
			"kanade_appends_total stored": 3, "kanade_appends_total conflict": 1,
			"kanade_handler_duration_seconds work done": 2, "kanade_handler_duration_seconds work retried": 1,
			"kanade_handler_duration_seconds work parked": 1, "kanade_parked_messages_total work": 1,
			"kanade_broker_connected one": 1, "kanade_broker_connected two": 1,
			"kanade_timers_outstanding one": 1, "kanade_timers_outstanding two": 1,
			"kanade_dead_letters one": 1, "kanade_dead_letters two": 1,
		}, got)
		for _, b := range buses {
			b.Close()
		}
	})
}
