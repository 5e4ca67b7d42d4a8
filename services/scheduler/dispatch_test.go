package scheduler_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/scheduler"
)

// fuse is a context that ends when it has been asked for the n-th time: whoever works under it dies there, before a
// request to the broker or, late, between a request and its answer.
type fuse struct {
	context.Context
	left  atomic.Int64
	late  bool
	blown chan struct{}
}

func (f *fuse) Done() <-chan struct{} {
	if f.left.Add(-1) == 0 {
		if f.late {
			go close(f.blown)
		} else {
			close(f.blown)
		}
	}
	return f.blown
}

func (f *fuse) Err() error {
	select {
	case <-f.blown:
		return context.Canceled
	default:
		return f.Context.Err()
	}
}

// fuses lets the first call of a handler for each message die: every six messages one look at the context later.
type fuses struct {
	handler string

	blown atomic.Int64

	mu   sync.Mutex
	seen map[string]bool
}

func (f *fuses) middleware(next message.HandlerFunc) message.HandlerFunc {
	return func(m *message.Message) ([]*message.Message, error) {
		key := m.Metadata[bus.MetadataSubject]
		f.mu.Lock()
		first := message.HandlerNameFromCtx(m.Context()) == f.handler && !f.seen[key]
		if first {
			f.seen[key] = true
		}
		n := len(f.seen)
		f.mu.Unlock()
		if !first {
			return next(m)
		}
		c := &fuse{Context: m.Context(), late: n%2 == 0, blown: make(chan struct{})}
		c.left.Store(int64(n/6 + 1))
		m.SetContext(c)
		_, err := next(m)
		m.SetContext(c.Context)
		if c.Err() != nil {
			f.blown.Add(1)
			return nil, fmt.Errorf("died at step %d: %w", n, c.Err())
		}
		return nil, err
	}
}

// requireDispatched checks that an exec went out once: each decision is in the log once, each command of its plan stored
// once and, where heard, heard once.
func requireDispatched(t *testing.T, w *world, stored []string, id string, heardOnce bool) {
	t.Helper()
	facts := w.facts(events.AggregateExec, id)
	require.Len(t, of[events.ExecPlanned](facts), 1, id)
	require.Len(t, of[events.WaveReleased](facts), 1, id)
	require.Len(t, of[events.WaveDispatched](facts), 1, id)
	require.LessOrEqual(t, len(of[events.ExecClosed](facts)), 1, id)
	plan := of[events.ExecPlanned](facts)[0]
	var want []string
	if len(plan.Subjects) > 0 {
		for _, s := range plan.Subjects {
			want = append(want, id+"/0/"+s)
		}
	} else {
		for _, pc := range slices.Concat(plan.Waves[0].Expected, plan.Waves[0].Waiting) {
			want = append(want, id+"/0/"+wire.SubjectCommandPC(pc))
		}
	}
	slices.Sort(want)
	var got []string
	for _, s := range stored {
		if len(s) > len(id) && s[:len(id)+1] == id+"/" {
			got = append(got, s)
		}
	}
	slices.Sort(got)
	require.Equal(t, want, got, "stored commands of %s", id)
	if heardOnce {
		require.Equal(t, want, w.ears.of(id), "heard commands of %s", id)
	} else {
		require.Subset(t, want, w.ears.of(id))
	}
	require.Equal(t, len(want), of[events.WaveDispatched](facts)[0].Commands)
}

// Whoever plans, sends or cleans up may die at any step: the next one finishes the work.
func TestDispatchDiesAtEveryStep(t *testing.T) {
	for handler, deaths := range map[string]int64{"dispatch": 12, "send": 50} {
		t.Run(handler, func(t *testing.T) { dispatchDies(t, handler, deaths) })
	}
}

func dispatchDies(t *testing.T, handler string, deaths int64) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		f := &fuses{handler: handler, seen: map[string]bool{}}
		w.run(scheduler.Deps{Middleware: []message.HandlerMiddleware{f.middleware}})
		for _, id := range []string{"pc1", "pc2", "pc3"} {
			w.agent(id, nil, "g")
		}
		pass(time.Second)
		n := 0
		for blown := 0; n < blown+12; n++ { // two rounds in which nobody dies any more
			target := []catalog.Target{{PCs: []string{"pc1", "pc2", "nobody"}}, {All: true}, {Groups: []string{"g"}}}[n%3]
			died := f.blown.Load()
			w.exec(fmt.Sprintf("x%d", n), target)
			if pass(5 * time.Second); f.blown.Load() > died {
				blown = n
			}
		}
		require.Greater(t, f.blown.Load(), deaths)
		stored := w.stored()
		for i := range n {
			requireDispatched(t, w, stored, fmt.Sprintf("x%d", i), true)
			require.Equal(t, i%3 > 0, slices.Contains(w.types(fmt.Sprintf("x%d", i)), "closed"))
		}
		t.Logf("died at %d steps", f.blown.Load())
	})
}

func TestDispatchWithTroubleAndRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		trouble := func(seed uint64) scheduler.Deps {
			return scheduler.Deps{Middleware: []message.HandlerMiddleware{bustest.RandomFail(seed, 0.3), bustest.Duplicate(seed, 0.3)}}
		}
		stopA := w.run(trouble(1))
		w.run(trouble(2))
		for i := range 5 {
			w.agent(fmt.Sprintf("pc%d", i), nil, fmt.Sprintf("g%d", i%2))
		}
		pass(time.Second)
		const execs = 40
		for i := range execs {
			target := []catalog.Target{{PCs: []string{"pc1", "pc2"}}, {All: true}, {Groups: []string{"g0", "g1"}}, {Groups: []string{"g1"}, PCs: []string{"pc0"}}}[i%4]
			w.exec(fmt.Sprintf("x%d", i), target)
			if i%10 == 9 {
				stopA()
				stopA = w.run(trouble(uint64(i)))
			}
			if i == 15 {
				bustest.Restart(t, w.broker, 3*time.Second)
			}
			pass(time.Duration(i%4) * 100 * time.Millisecond)
		}
		pass(5 * time.Minute)
		stored, deaf := w.stored(), 0
		for i := range execs {
			id := fmt.Sprintf("x%d", i)
			requireDispatched(t, w, stored, id, false)
			heard := w.ears.of(id)
			require.Len(t, slices.Compact(slices.Clone(heard)), len(heard), "%s heard twice", id)
			if len(heard) < of[events.WaveDispatched](w.facts(events.AggregateExec, id))[0].Commands {
				deaf++ // sent while our own connection was still lost: these agents do not look what they have missed
				continue
			}
			closed := of[events.ExecClosed](w.facts(events.AggregateExec, id))
			require.Len(t, closed, 1, id)
			require.Equal(t, events.OutcomeSucceeded, closed[0].Outcome)
		}
		require.Less(t, deaf, 5)
	})
}

// Two processes that hold the same request at the same time, because one of them has stalled and was taken for dead,
// agree on one plan and store each command once.
func TestDispatchTwiceAtOnce(t *testing.T) {
	for _, handler := range []string{"dispatch", "send"} {
		t.Run(handler, func(t *testing.T) { dispatchTwice(t, handler) })
	}
}

func dispatchTwice(t *testing.T, handler string) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		twice := func(next message.HandlerFunc) message.HandlerFunc {
			return func(m *message.Message) ([]*message.Message, error) {
				if message.HandlerNameFromCtx(m.Context()) != handler {
					return next(m)
				}
				var errs [3]error
				var all sync.WaitGroup
				for i := range errs {
					all.Go(func() { _, errs[i] = next(m) })
				}
				all.Wait()
				for _, err := range errs {
					if err != nil {
						t.Error(err)
					}
				}
				return nil, nil
			}
		}
		w.run(scheduler.Deps{Middleware: []message.HandlerMiddleware{twice}})
		w.run(scheduler.Deps{Middleware: []message.HandlerMiddleware{twice}})
		w.agent("pc1", nil)
		pass(time.Second)
		for i := range 30 {
			w.agent(fmt.Sprintf("late%d", i), nil) // the plans of the three may differ
			w.exec(fmt.Sprintf("x%d", i), []catalog.Target{{All: true}, {All: true, PCs: []string{"nobody"}}}[i%2])
		}
		pass(time.Minute)
		stored := w.stored()
		for i := range 30 {
			requireDispatched(t, w, stored, fmt.Sprintf("x%d", i), false)
		}
	})
}

// Whoever cleans up after a stop may die at any step: nothing of the exec is left, and endpoints can read that it ended.
func TestStopDiesAtEveryStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		f := &fuses{handler: "stop", seen: map[string]bool{}}
		w.run(scheduler.Deps{Middleware: []message.HandlerMiddleware{f.middleware}})
		n := 0
		for blown := 0; n < blown+12; n++ {
			id, died := fmt.Sprintf("x%d", n), f.blown.Load()
			w.exec(id, catalog.Target{PCs: []string{"a", "b", "c"}})
			pass(2 * time.Second)
			w.append([]events.Payload{events.ExecKilled{ExecID: id}, events.ExecCancelled{ExecID: id}}[n%2])
			if pass(5 * time.Second); f.blown.Load() > died {
				blown = n
			}
			word, _, _, ok, err := w.bus.GetView(t.Context(), events.BucketExecStopped, id)
			require.NoError(t, err)
			require.True(t, ok)
			require.Equal(t, []string{"killed", "cancelled"}[n%2], string(word))
		}
		require.Greater(t, f.blown.Load(), int64(10))
		require.Empty(t, w.stored())
		t.Logf("died at %d steps", f.blown.Load())
	})
}

// A kill that comes between two pages of commands ends the dispatch there, and takes back what has gone out.
func TestKillBetweenPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		pass(time.Second)
		pcs := make([]string, 5000)
		for i := range pcs {
			pcs[i] = fmt.Sprintf("pc-%04d", i)
		}
		var heard atomic.Int64
		sub, err := w.bus.Conn().Subscribe("commands.>", func(*nats.Msg) {
			if heard.Add(1) == 1 {
				go w.append(events.ExecKilled{ExecID: "x"})
			}
		})
		require.NoError(t, err)
		defer sub.Unsubscribe()
		w.exec("x", catalog.Target{PCs: pcs})
		pass(time.Minute)
		require.Positive(t, heard.Load())
		require.Less(t, heard.Load(), int64(len(pcs)), "it goes on to the end")
		require.NotContains(t, w.types("x"), "wave-dispatched")
		require.Empty(t, w.stored())
		closed := of[events.ExecClosed](w.facts(events.AggregateExec, "x"))
		require.Len(t, closed, 1)
		require.Equal(t, map[events.TargetState]int{events.StateSkipped: len(pcs)}, closed[0].Totals.Expected)
	})
}

// An exec that is stopped before anybody has planned it ends at once, and nothing of it goes out.
func TestStopBeforeThePlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.agent("pc", nil)
		for id, stop := range map[string]events.Payload{"k": events.ExecKilled{ExecID: "k"}, "c": events.ExecCancelled{ExecID: "c"}} {
			w.exec(id, catalog.Target{All: true})
			w.append(stop)
		}
		w.run(scheduler.Deps{})
		pass(time.Minute)
		for id, outcome := range map[string]events.Outcome{"k": events.OutcomeKilled, "c": events.OutcomeCancelled} {
			require.Equal(t, "expired", w.types(id)[2])
			require.Equal(t, outcome, of[events.ExecExpired](w.facts(events.AggregateExec, id))[0].Outcome)
		}
		require.Empty(t, w.stored())
	})
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		f := &fuses{handler: "expiry", seen: map[string]bool{}}
		w.run(scheduler.Deps{Middleware: []message.HandlerMiddleware{f.middleware}})
		w.agent("good", nil)
		w.agent("silent", silent)
		w.agent("hangs", func(r events.Run) []answer {
			return []answer{{0, events.RunReceived{Run: r}}, {0, events.RunStarted{Run: r}}}
		})
		pass(time.Second)
		w.exec("keep", catalog.Target{PCs: []string{"silent"}})
		n := 0
		for blown := 0; n < blown+12; n++ {
			died := f.blown.Load()
			deadline := time.Now().Add(time.Minute)
			w.exec(fmt.Sprintf("x%d", n), []catalog.Target{{All: true}, {PCs: []string{"good", "silent", "nobody"}}}[n%2], func(r *events.ExecRequested) { r.DeadlineAt = &deadline })
			pass(2*time.Minute + 29*time.Second)
			require.NotContains(t, w.types(fmt.Sprintf("x%d", n)), "expired")
			if pass(5 * time.Second); f.blown.Load() > died {
				blown = n
			}
		}
		require.Greater(t, f.blown.Load(), int64(30))
		t.Logf("died at %d steps", f.blown.Load())
		require.Equal(t, []string{"keep/0/commands.pc.silent"}, w.stored(), "only what has not expired is left")
		for i := range n {
			facts := w.facts(events.AggregateExec, fmt.Sprintf("x%d", i))
			expired := of[events.ExecExpired](facts)
			require.Len(t, expired, 1)
			require.Empty(t, of[events.ExecClosed](facts))
			require.Equal(t, events.OutcomeExpired, expired[0].Outcome)
			want := map[events.TargetState]int{events.StateSucceeded: 1, events.StateExpired: 1, events.StateUnknown: 1}
			if i%2 == 1 {
				want = map[events.TargetState]int{events.StateSucceeded: 1, events.StateExpired: 2}
			}
			require.Equal(t, want, expired[0].Totals.Expected)
		}
	})
}

// Two execs whose time is up at once both expire: their facts have ids of their own.
func TestExpiryOfTwoAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		w.agent("silent", silent)
		pass(time.Second)
		deadline := time.Now().Add(time.Minute)
		for _, id := range []string{"x", "y"} {
			w.exec(id, catalog.Target{PCs: []string{"silent"}}, func(r *events.ExecRequested) { r.DeadlineAt = &deadline })
		}
		pass(5 * time.Minute)
		for _, id := range []string{"x", "y"} {
			require.Len(t, of[events.ExecExpired](w.facts(events.AggregateExec, id)), 1, id)
		}
		require.Empty(t, w.stored())
	})
}

// Whoever answers after the close changes the totals of the log, at most once a minute, and not the outcome.
func TestAnswersAfterTheCloseAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		w.run(scheduler.Deps{})
		w.agent("good", nil)
		for _, id := range []string{"away-1", "away-2", "away-3"} {
			w.beat(id, "1.0.0")
		}
		pass(3 * time.Minute)
		w.exec("x", catalog.Target{All: true})
		pass(5 * time.Second)
		returns := func(pc string) {
			run := events.Run{PCID: pc, ExecID: "x", RequestID: "r", ResultID: pc}
			w.append(events.RunStarted{Run: run})
			pass(time.Second)
			w.append(events.RunFinished{Run: run, State: events.StateSucceeded})
		}
		corrected := func() []events.ExecCorrected { return of[events.ExecCorrected](w.facts(events.AggregateExec, "x")) }
		require.Equal(t, "closed", w.types("x")[4])
		returns("away-1")
		pass(time.Second)
		returns("away-2")
		pass(50 * time.Second)
		require.Empty(t, corrected(), "a minute has not passed")
		pass(10 * time.Second)
		require.Len(t, corrected(), 1)
		require.Equal(t, map[events.TargetState]int{events.StateWaiting: 1, events.StateSucceeded: 2}, corrected()[0].Totals.Others)
		pass(time.Hour)
		returns("away-3")
		pass(time.Second)
		require.Len(t, corrected(), 2, "that it has started, and a minute later")
		pass(time.Hour)
		require.Len(t, corrected(), 3)
		require.Equal(t, map[events.TargetState]int{events.StateSucceeded: 3}, corrected()[2].Totals.Others)
		require.Equal(t, "corrected", w.types("x")[7])
	})
}

func TestExpiryOfClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		w.run(scheduler.Deps{})
		w.agent("good", nil)
		away := w.agent("away", nil)
		pass(time.Second)
		away.sleep()
		pass(3 * time.Minute)
		deadline := time.Now().Add(4 * time.Hour)
		for _, id := range []string{"x", "y"} { // that expire at the same instant
			w.exec(id, catalog.Target{All: true}, func(r *events.ExecRequested) { r.DeadlineAt = &deadline })
		}
		pass(time.Hour)
		require.ElementsMatch(t, []string{"x/0/commands.all", "y/0/commands.all"}, w.stored(), "the commands wait for whoever is away")
		require.Equal(t, "closed", w.types("x")[4])
		pass(4 * time.Hour)
		require.Equal(t, []string{"requested", "planned", "wave-released", "wave-dispatched", "closed", "expired"}, w.types("x"))
		require.Contains(t, w.types("y"), "expired")
		expired := of[events.ExecExpired](w.facts(events.AggregateExec, "x"))[0]
		require.Equal(t, events.OutcomeSucceeded, expired.Outcome, "an exec keeps its outcome")
		require.Equal(t, map[events.TargetState]int{events.StateExpired: 1}, expired.Totals.Others)
		require.Empty(t, w.stored())
	})
}

// An exec whose time is up while its dispatcher was away leaves no command behind.
func TestExpiryDuringDispatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var away atomic.Bool
		away.Store(true)
		dies := func(next message.HandlerFunc) message.HandlerFunc {
			return func(m *message.Message) ([]*message.Message, error) {
				if message.HandlerNameFromCtx(m.Context()) != "send" || !away.Load() {
					return next(m)
				}
				// It dies with the last page on its way: the expiry comes before that page.
				ctx, cancel := context.WithCancel(m.Context())
				defer cancel()
				sub, err := w.bus.Conn().SubscribeSync("commands.>")
				require.NoError(t, err)
				defer sub.Unsubscribe()
				go func() {
					if _, err := sub.NextMsgWithContext(ctx); err == nil {
						cancel()
					}
				}()
				m.SetContext(ctx)
				_, err = next(m)
				return nil, fmt.Errorf("dead: %w", err)
			}
		}
		w.run(scheduler.Deps{Middleware: []message.HandlerMiddleware{dies}})
		deadline := time.Now().Add(time.Minute)
		w.exec("x", catalog.Target{PCs: []string{"a", "b"}}, func(r *events.ExecRequested) { r.DeadlineAt = &deadline })
		pass(5 * time.Minute)
		require.Contains(t, w.types("x"), "expired")
		_, err := w.bus.JetStream().Publish(t.Context(), "commands.pc.a", nil, jetstream.WithMsgID("x/0/commands.pc.late")) // what a stalled one may still send
		require.NoError(t, err)
		away.Store(false)
		pass(time.Minute)
		if !slices.Contains(w.types("x"), "wave-dispatched") {
			require.Empty(t, w.stored())
		}
	})
}
