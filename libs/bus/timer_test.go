package bus_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

// fired collects due timers.
type fired struct {
	mu  sync.Mutex
	all []bus.Timer
	at  []time.Time
}

func (f *fired) add(t bus.Timer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all, f.at = append(f.all, t), append(f.at, time.Now().UTC())
}

func startTimers(t testing.TB, b *bus.Bus, h bus.TimerHandler) (stop func()) {
	t.Helper()
	sub, err := b.PullSubscriber(bus.PullConfig{Stream: events.StreamTimers, Durable: "timers", Filters: []string{events.TimerDueFilter("tick")}, Workers: 2})
	require.NoError(t, err)
	r, err := b.NewRouter(bus.RouterConfig{})
	require.NoError(t, err)
	r.HandleTimer("timers", sub, h)
	return run(t, r)
}

func tick(key string, at time.Time) bus.Timer {
	return bus.Timer{Kind: "tick", Key: key, Generation: at.UTC().Format(time.RFC3339Nano), At: at.UTC(), Data: []byte(key)}
}

func TestTimersFireToTheMillisecondAcrossBrokerRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		b := bustest.Connect(t, br)
		var got fired
		stop := startTimers(t, b, func(_ context.Context, timer bus.Timer) error { got.add(timer); return nil })
		defer stop()
		begin := time.Now()
		var want []bus.Timer
		for i := range 10 {
			// Every second one comes due while the broker is up, at odd fractions of a second.
			want = append(want, tick(fmt.Sprintf("a/b.%d", i), begin.Add(time.Duration(i+1)*time.Hour+937*time.Millisecond)))
			require.NoError(t, b.SetTimer(t.Context(), want[i]))
		}
		for range 5 {
			pause(70 * time.Minute)
			bustest.Restart(t, br, 10*time.Minute)
		}
		pause(24 * time.Hour)
		require.Equal(t, want, got.all)
		late := 0
		for i := range want {
			if got.at[i].Sub(want[i].At) > 3*time.Millisecond {
				late++
				require.Less(t, got.at[i].Sub(want[i].At), 11*time.Minute, "only what came due while the broker was down is late")
			}
			require.False(t, got.at[i].Before(want[i].At), "never early")
		}
		require.LessOrEqual(t, late, 5)
		left, _, err := b.LastRaw(t.Context(), events.StreamTimers, "timers.>")
		require.NoError(t, err)
		require.Zero(t, left.Seq, "a handled timer is gone: %s", left.Subject)
	})
}

func TestTimerInThePastFiresAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		var got fired
		stop := startTimers(t, b, func(_ context.Context, timer bus.Timer) error { got.add(timer); return nil })
		defer stop()
		begin := time.Now()
		require.NoError(t, b.SetTimer(t.Context(), tick("old", begin.Add(-time.Hour))))
		pause(time.Second)
		require.Len(t, got.all, 1)
		require.LessOrEqual(t, got.at[0].Sub(begin), 300*time.Millisecond)
	})
}

func TestSettingATimerAgainChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		ctx := t.Context()
		timer := tick("a", time.Now().Add(time.Hour))
		set := func() bool {
			ok, err := b.TimerSet(ctx, timer.Kind, timer.Key, timer.Generation)
			require.NoError(t, err)
			return ok
		}
		require.False(t, set())
		require.NoError(t, b.SetTimer(ctx, timer))
		require.True(t, set())
		later := timer
		later.At = timer.At.Add(time.Hour)
		pause(10 * time.Minute)
		require.NoError(t, b.SetTimer(ctx, later), "the first instant stands")

		var got fired
		var handled atomic.Bool
		stop := startTimers(t, b, func(_ context.Context, timer bus.Timer) error {
			got.add(timer)
			if !handled.Load() {
				return errors.New("not yet")
			}
			return nil
		})
		defer stop()
		pause(55 * time.Minute)
		require.True(t, set(), "due and not handled")
		handled.Store(true)
		pause(time.Minute)
		require.False(t, set())
		require.Equal(t, timer, got.all[len(got.all)-1])
		require.WithinDuration(t, timer.At, got.at[0], 3*time.Millisecond)
		n := len(got.all)
		pause(2 * time.Hour)
		require.Len(t, got.all, n)
	})
}

func TestTimerRefusesBadNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		for _, timer := range []bus.Timer{{}, {Kind: "a.b", Key: "k", Generation: "1"}, {Kind: "a", Key: "k"}, {Kind: "a", Generation: "1"}} {
			require.Error(t, b.SetTimer(t.Context(), timer))
		}
	})
}

// Whatever is set, at whatever moments the broker and the workers stop, every timer fires, never early.
func TestEveryTimerFires(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		type act struct {
			wait time.Duration
			due  time.Duration // from then; 0: restart the broker
		}
		acts := rapid.SliceOfN(rapid.Custom(func(r *rapid.T) act {
			return act{
				wait: time.Duration(rapid.IntRange(0, 5000).Draw(r, "wait")) * time.Millisecond,
				due:  time.Duration(max(0, rapid.IntRange(-2000, 20_000).Draw(r, "due"))) * time.Millisecond,
			}
		}), 1, 12).Draw(r, "acts")
		var wrong []string
		synctest.Test(t, func(t *testing.T) {
			br := bustest.Broker(t)
			b := bustest.Connect(t, br)
			var got fired
			stop := startTimers(t, b, func(_ context.Context, timer bus.Timer) error { got.add(timer); return nil })
			defer stop()
			var keys []string
			for i, a := range acts {
				pause(a.wait)
				if a.due == 0 {
					bustest.Restart(t, br, time.Second)
					pause(time.Second)
					continue
				}
				key := fmt.Sprint(i)
				keys = append(keys, key)
				if err := b.SetTimer(t.Context(), tick(key, time.Now().Add(a.due))); err != nil {
					t.Fatal(err)
				}
			}
			pause(time.Minute)
			seen := map[string]bool{}
			for i, timer := range got.all {
				seen[timer.Key] = true
				if got.at[i].Before(timer.At) {
					wrong = append(wrong, fmt.Sprintf("timer %s fired %s early", timer.Key, timer.At.Sub(got.at[i])))
				}
			}
			for _, key := range keys {
				if !seen[key] {
					wrong = append(wrong, fmt.Sprintf("timer %s never fired", key))
				}
			}
		})
		if len(wrong) > 0 {
			r.Fatal(wrong)
		}
	})
}
