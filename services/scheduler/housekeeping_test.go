package scheduler_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/scheduler"
)

const day = 24 * time.Hour

// short are limits with which weeks suffice: a history of two days and the shortest ledger there is, nine days.
func short() events.Limits {
	l := bustest.Limits()
	l.History, l.Ledger = 2*day, 0
	return l
}

// newShortWorld is a world whose schedulers have those limits.
func newShortWorld(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.limits = short()
	return w
}

// within gives an exec an hour.
func within(r *events.ExecRequested) {
	deadline := time.Now().Add(time.Hour)
	r.DeadlineAt = &deadline
}

// days are what the clock has told.
func (w *world) days() []string {
	var all []string
	for _, x := range of[events.ClockTicked](w.facts(events.AggregateClock, events.ClockID)) {
		all = append(all, x.Day)
	}
	return all
}

// midnight is that of some days after the first.
func midnight(days int) time.Time { return time.Date(2000, 1, 1+days, 0, 0, 0, 0, time.UTC) }

// night runs some schedulers around that midnight, from half a minute before to ten minutes after: by day nothing happens
// here, and simulating that nothing happens takes time.
func (w *world) night(days, schedulers int) {
	w.t.Helper()
	until(w.t, midnight(days).Add(-30*time.Second))
	for range schedulers {
		defer w.run(scheduler.Deps{})()
	}
	until(w.t, midnight(days).Add(10*time.Minute))
}

// until lets simulated time pass until an instant.
func until(t *testing.T, when time.Time) {
	t.Helper()
	at(t, when.Format(time.DateTime))
}

// late is what an endpoint says of an exec when nobody waits for it any more.
func (w *world) late(execID, pc string, state events.TargetState) uint64 {
	run := events.Run{PCID: pc, ExecID: execID, RequestID: events.DeriveID(execID, "request", pc), JobID: "job", Version: "1"}
	run.ResultID = events.ResultID(run.RequestID, pc)
	return w.append(events.RunFinished{Run: run, State: state})
}

// An exec is reduced when it is older than the history, with what endpoints said after its end; its other facts go a week
// later, and it goes with the ledger.
func TestExecIsReducedAndForgotten(t *testing.T) {
	long(t)
	synctest.Test(t, func(t *testing.T) {
		w := newShortWorld(t)
		stop := w.run(scheduler.Deps{})
		pc1 := w.agent("pc1", nil)
		pass(time.Second)
		w.exec("x", catalog.Target{PCs: []string{"pc1", "pc2", "pc3"}}, within)
		w.exec("young", catalog.Target{PCs: []string{"pc1"}}, within)
		pass(time.Minute)
		pc1.sleep()
		pass(2 * time.Hour)
		require.Equal(t, "expired", w.types("x")[4])
		w.late("x", "pc2", events.StateFailed)
		w.late("x", "joined", events.StateSucceeded)
		stop()
		until(t, midnight(1).Add(-time.Minute))
		stop = w.run(scheduler.Deps{})
		pass(10 * time.Minute)
		w.exec("next", catalog.Target{PCs: []string{"pc1"}}, within)
		pass(2 * time.Hour)
		stop()
		w.night(2, 2)
		require.Len(t, w.types("x"), 5, "it is not older than the history")

		w.night(3, 2)
		require.Equal(t, []string{"requested", "planned", "wave-released", "wave-dispatched", "expired", "reduced"}, w.types("x"))
		require.Equal(t, "closed", w.types("young")[4])
		require.Len(t, of[events.ExecReduced](w.facts(events.AggregateExec, "young")), 1)
		require.NotContains(t, w.types("next"), "reduced")
		x := of[events.ExecReduced](w.facts(events.AggregateExec, "x"))[0]
		require.Equal(t, map[events.TargetState]int{events.StateSucceeded: 1, events.StateFailed: 1, events.StateExpired: 1}, x.Totals.Expected)
		require.Equal(t, map[events.TargetState]int{events.StateSucceeded: 1}, x.Totals.Others, "whoever joined in is counted")
		require.Equal(t, []any{events.OutcomeExpired, 3, "job", events.Actor("user:test")}, []any{x.Outcome, x.TargetCount, x.JobID, x.Actor})
		require.Equal(t, []string{"2000-01-02", "2000-01-03", "2000-01-04"}, w.days(), "one a day, of two schedulers")

		w.night(4, 2)
		require.Contains(t, w.types("next"), "reduced")
		w.night(10, 2)
		require.Len(t, w.types("x"), 6, "not before a week has passed")
		w.night(11, 2)
		require.Equal(t, []string{"reduced"}, w.types("x"))
		require.Equal(t, []string{"reduced"}, w.types("young"))
		require.Equal(t, x, w.facts(events.AggregateExec, "x")[0])
		w.night(16, 2)
		require.Equal(t, []string{"reduced"}, w.types("x"))
		w.night(17, 2)
		require.Empty(t, w.types("x"))
		require.Equal(t, []string{"reduced"}, w.types("next"), "a day younger")
		w.night(18, 2)
		require.Empty(t, w.types("next"))
	})
}

// What endpoints, old ones too, and the clock have said leaves by its age alone, what is a document does not.
func TestWhatAgesLeaves(t *testing.T) {
	long(t)
	synctest.Test(t, func(t *testing.T) {
		w := newShortWorld(t)
		left := func() map[string]int {
			all := map[string]int{}
			require.NoError(t, w.bus.Walk(t.Context(), ">", 0, func(m bus.RawMsg) (bool, error) {
				all[m.Subject[:strings.LastIndexByte(m.Subject, '.')]]++
				return true, nil
			}))
			return all
		}
		say := func() {
			w.late("x", "pc1", events.StateSucceeded)
			for _, subject := range []string{wire.SubjectResults("r"), wire.SubjectStarted("x", "pc1"), "audit.exec"} {
				require.NoError(t, w.bus.Conn().Publish(subject, []byte("what can't be read ages as well")))
			}
			w.append(events.AgentGrouped{PCID: "pc1", Groups: []string{"g"}})
			require.NoError(t, w.bus.Conn().Flush())
			pass(time.Second)
		}
		say()
		until(t, midnight(4).Add(time.Minute))
		say()
		w.night(9, 1)
		all := left()
		require.Subset(t, all, map[string]int{"events.run.pc1": 2, "events.started.x": 2, "results": 2, "audit": 2, "events.clock.day": 1, "events.agent.pc1": 2}, "history and slack are not over")
		w.night(10, 2)
		all = left()
		require.Subset(t, all, map[string]int{"events.run.pc1": 1, "events.started.x": 1, "results": 1, "audit": 1, "events.clock.day": 2, "events.agent.pc1": 2})
		w.night(14, 2)
		all = left()
		require.Subset(t, all, map[string]int{"events.clock.day": 4, "events.agent.pc1": 2})
		for _, gone := range []string{"events.run.pc1", "events.started.x", "results", "audit"} {
			require.NotContains(t, all, gone)
		}
		w.night(24, 2)
		all = left()
		require.Equal(t, []int{2, 1}, []int{all["events.clock.day"], all["events.agent.pc1"]}, "the days that came before have aged, the groups were superseded")
	})
}

// Documents, ticks, progress and records leave; the newest of what lives does not, and the schedulers go on with what is
// left, from a saved fold and from the log alone.
func TestDocumentsAndTicksLeave(t *testing.T) {
	long(t)
	synctest.Test(t, func(t *testing.T) {
		w := newShortWorld(t)
		stop := w.run(scheduler.Deps{})
		first := w.job("job", "1")
		w.job("gone", "1")
		w.append(events.JobDeleted{ID: "gone"})
		w.append(events.AgentGrouped{PCID: "pc1", Groups: []string{"a"}})
		w.append(events.AgentGrouped{PCID: "pc1", Groups: []string{"b"}})
		w.append(events.FreezeSaved{ID: events.FleetID, From: "1999-01-01", Until: "1999-01-02", TZ: "utc"})
		w.append(events.FreezeCleared{ID: events.FleetID})
		w.append(events.ScriptRevoked{JobID: "gone"})
		w.append(events.ReadModelCheckRequested{ID: events.ReadModelID})
		pc1 := w.agent("pc1", nil)
		w.schedule("daily", "when: {calendar: {at: '00:05'}}\ntarget: {pcs: [pc1]}\ntz: utc")
		w.schedule("often", "when: {per_pc: {every: 1h}}\ntarget: {all: true}")
		w.schedule("deleted", "when: {cron: '*/20 * * * *'}\ntarget: {pcs: [pc1]}\ntz: utc")
		pass(3*time.Hour + 2*time.Minute)
		w.append(events.ScheduleDeleted{ID: "deleted"})
		pc1.sleep()
		w.job("job", "2")
		stop()
		count := func(a events.Aggregate, id string) int { return len(w.facts(a, id)) }
		progress := func() int { return len(of[events.ScheduleProgressed](w.facts(events.AggregateSchedule, "often"))) }
		require.Equal(t, 4, progress())
		require.Greater(t, count(events.AggregateSchedule, "deleted"), 10)

		for night := 1; night <= 17; night++ {
			if night == 7 {
				require.Equal(t, 4, progress())
			}
			if night == 17 {
				require.Equal(t, 2, count(events.AggregateJob, "job"))
				require.Equal(t, 2, count(events.AggregateJob, "gone"))
				require.Equal(t, 17, len(w.ledger("daily")))
			}
			w.night(night, 1)
		}
		require.Equal(t, 1, progress(), "what an endpoint said last is remembered")
		require.Equal(t, "2", of[events.JobSaved](w.facts(events.AggregateJob, "job"))[0].Version)
		_, there, err := w.bus.Get(t.Context(), events.StreamLog, first)
		require.NoError(t, err)
		require.False(t, there)
		require.Equal(t, 1, count(events.AggregateJob, "job"))
		require.Zero(t, count(events.AggregateJob, "gone"))
		require.Zero(t, count(events.AggregateFreeze, events.FleetID))
		require.Zero(t, count(events.AggregateConfig, events.ReadModelID))
		require.Zero(t, count(events.AggregateSchedule, "deleted"))
		require.Equal(t, 1, count(events.AggregateScript, "gone"), "the revocation holds")
		require.Equal(t, 1, count(events.AggregateConfig, events.InstallationID))
		require.Equal(t, []string{"b"}, of[events.AgentGrouped](w.facts(events.AggregateAgent, "pc1"))[0].Groups)
		require.Len(t, of[events.AgentGrouped](w.facts(events.AggregateAgent, "pc1")), 1)
		require.Len(t, of[events.AgentSeen](w.facts(events.AggregateAgent, "pc1")), 1)
		require.Len(t, of[events.ScheduleSaved](w.facts(events.AggregateSchedule, "often")), 1)
		require.Len(t, w.ledger("often"), 1, "the newest tick stays")
		require.Len(t, w.ledger("daily"), 17, "one has come, the oldest has gone")

		// Who knows nothing but what is left goes on where the others were: no tick twice, none left out.
		require.NoError(t, w.bus.DeleteObject(t.Context(), events.StoreSchedulerState, "fold-v7"))
		stop = w.run(scheduler.Deps{})
		w.append(events.ScheduleDeleted{ID: "often"})
		w.append(events.AgentGrouped{PCID: "pc1", Groups: []string{"c"}})
		w.schedule("deleted", "when: {cron: '*/20 * * * *'}\ntarget: {pcs: [pc1]}\ntz: utc")
		pass(time.Hour)
		require.Len(t, w.ledger("deleted"), 3, "one of that name begins anew")
		stop()
		w.night(18, 1)
		ticks := w.ledger("daily")
		require.Len(t, ticks, 17)
		for i, x := range ticks {
			require.Equal(t, midnight(2+i).Add(5*time.Minute), x.To)
			require.Equal(t, events.TickFired, x.Outcome)
		}
	})
}

// Handlers fail, come twice and are killed, schedulers come and go and so does the broker: in the end the log holds what it
// has to, each exec was reduced once, and no fact left before its time.
func TestProveHousekeepingInTrouble(t *testing.T) {
	span, seed := proof(t, 90, 21)
	random := rand.New(rand.NewPCG(seed, 0))
	synctest.Test(t, func(t *testing.T) {
		w := newShortWorld(t)
		trouble := func() scheduler.Deps {
			return scheduler.Deps{Middleware: []message.HandlerMiddleware{bustest.RandomFail(random.Uint64(), 0.3), bustest.Duplicate(random.Uint64(), 0.3)}}
		}
		w.job("job", "1")
		requested := map[string]time.Time{}
		reducedAt := map[string]time.Time{}
		answered := map[string]bool{}
		said := map[uint64]time.Time{} // by sequence, until it has left
		restarts, aged := 0, 0
		for d := 1; d <= span; d++ {
			until(t, midnight(d).Add(-30*time.Second))
			stops := []func(){w.run(trouble()), w.run(trouble())}
			for i := range 5 {
				id := fmt.Sprintf("x-%d-%d", d, i)
				w.exec(id, catalog.Target{PCs: []string{"pc1", "pc2"}}, func(r *events.ExecRequested) {
					deadline := time.Now().Add(time.Minute)
					r.DeadlineAt = &deadline
				})
				requested[id] = time.Now()
			}
			until(t, midnight(d))
			pass(time.Duration(random.IntN(20)) * time.Millisecond) // the day's work has begun, or is about to
			switch random.IntN(3) {
			case 0:
				bustest.Restart(t, w.broker, time.Duration(random.IntN(3000)+1)*time.Millisecond)
				restarts++
			case 1:
				stops[d%2]()
				stops[d%2] = w.run(trouble())
				restarts++
			}
			until(t, midnight(d).Add(5*time.Minute))
			if random.IntN(2) == 0 {
				id := fmt.Sprintf("x-%d-%d", d, random.IntN(5))
				said[w.late(id, "pc2", events.StateSucceeded)] = time.Now()
				answered[id] = true
			}
			until(t, midnight(d).Add(10*time.Minute))
			for _, stop := range stops {
				stop()
			}
			now := time.Now()
			for seq, at := range said {
				_, is, err := w.bus.Get(t.Context(), events.StreamLog, seq)
				require.NoError(t, err)
				if age := now.Sub(at); age < 9*day || age > 11*day {
					require.Equal(t, age < 9*day, is, "what was said %s ago (seed %d)", age, seed)
				}
				if !is {
					delete(said, seq)
					aged++
				}
			}
			for id, at := range requested {
				types := w.types(id)
				n := len(of[events.ExecReduced](w.facts(events.AggregateExec, id)))
				age := now.Sub(at)
				switch {
				case age < 2*day:
					require.Zero(t, n, "%s is younger than the history (seed %d)", id, seed)
					require.Equal(t, "requested", types[0])
				case age < 16*day:
					require.LessOrEqual(t, n, 1)
					if n == 1 && reducedAt[id].IsZero() {
						reducedAt[id] = now
						x := of[events.ExecReduced](w.facts(events.AggregateExec, id))[0]
						require.Equal(t, answered[id], x.Totals.Expected[events.StateSucceeded] == 1, "%s (seed %d)", id, seed)
					}
					if age > 4*day {
						require.Equal(t, 1, n, "%s is overdue (seed %d)", id, seed)
					}
					if n == 1 && now.Sub(reducedAt[id]) < 7*day-time.Hour {
						require.Equal(t, "requested", types[0], "%s: its facts went before a week had passed (seed %d)", id, seed)
					}
					if age > 13*day {
						require.Equal(t, []string{"reduced"}, types, "%s (seed %d)", id, seed)
					}
				case age > 19*day:
					require.Empty(t, types, "%s (seed %d)", id, seed)
				}
			}
		}
		late := 0
		for id := range answered {
			if !reducedAt[id].IsZero() {
				late++
			}
		}
		if span > 10 { // each night has one with even chances, and it takes two more to be reduced
			require.Positive(t, late)
		}
		if span > 20 {
			require.Positive(t, aged)
		}
		require.GreaterOrEqual(t, len(reducedAt), 5*(span-4))
		last, err := w.bus.LastSeq(t.Context(), events.StreamLog)
		require.NoError(t, err)
		info, err := w.bus.JetStream().Stream(t.Context(), events.StreamLog)
		require.NoError(t, err)
		state, err := info.Info(t.Context())
		require.NoError(t, err)
		t.Logf("PROVED TestProveHousekeepingInTrouble: %d days, %d execs reduced once, %d of them with late answers, %d answers aged, %d restarts; %d of %d messages left; seed %d",
			span, len(reducedAt), late, aged, restarts, state.State.Msgs, last, seed)
	})
}

// A day that nobody was there for is made up for at once, and once.
func TestHousekeepingAfterAnAbsence(t *testing.T) {
	long(t)
	synctest.Test(t, func(t *testing.T) {
		w := newShortWorld(t)
		stop := w.run(scheduler.Deps{})
		w.exec("x", catalog.Target{PCs: []string{"pc1"}}, within)
		pass(2 * time.Hour)
		stop()
		w.night(1, 1)
		at(t, "2000-01-06 12:00:00")
		require.NotContains(t, w.types("x"), "reduced")
		stops := []func(){w.run(scheduler.Deps{}), w.run(scheduler.Deps{})}
		pass(time.Minute)
		require.Equal(t, []string{"2000-01-02", "2000-01-06"}, w.days())
		require.Contains(t, w.types("x"), "reduced")
		for _, stop := range stops {
			stop()
		}
		w.night(6, 2)
		require.Equal(t, []string{"2000-01-02", "2000-01-06", "2000-01-07"}, w.days())
	})
}

// Nobody kept house until long after what an endpoint said late had aged: it counts all the same, and then leaves.
func TestReducedLongAfterItWasDue(t *testing.T) {
	long(t)
	synctest.Test(t, func(t *testing.T) {
		w := newShortWorld(t)
		stop := w.run(scheduler.Deps{})
		pc1 := w.agent("pc1", nil)
		pass(time.Second)
		w.exec("x", catalog.Target{PCs: []string{"pc1", "pc2"}}, within)
		pass(2 * time.Hour)
		pc1.sleep()
		w.late("x", "pc2", events.StateSucceeded)
		stop()
		w.night(10, 1)
		x := of[events.ExecReduced](w.facts(events.AggregateExec, "x"))[0]
		require.Equal(t, map[events.TargetState]int{events.StateSucceeded: 2}, x.Totals.Expected)
		require.Empty(t, w.facts(events.AggregateRun, "pc2"))
	})
}

// No exec outlives the history: its plan, and a wave that goes out late, are bounded by it.
func TestExecEndsWithTheHistory(t *testing.T) {
	long(t)
	synctest.Test(t, func(t *testing.T) {
		w := newShortWorld(t)
		stop := w.run(scheduler.Deps{})
		begun := time.Now()
		w.exec("x", catalog.Target{PCs: []string{"pc1"}})
		w.exec("paused", catalog.Target{PCs: []string{"pc1"}}, func(r *events.ExecRequested) {
			plan := catalog.Plan{Target: catalog.Target{PCs: []string{"pc1", "pc2"}}, Rollout: &catalog.Rollout{
				Strategy: "wave", Waves: []catalog.Wave{{PCs: []string{"pc1"}}, {PCs: []string{"pc2"}, Pause: true}},
			}}
			expires := catalog.Duration("12h")
			plan.ExpiresAfter = &expires
			var err error
			r.Plan, err = plan.Document()
			require.NoError(t, err)
		})
		pass(time.Second)
		planned := of[events.ExecPlanned](w.facts(events.AggregateExec, "x"))[0]
		require.WithinDuration(t, begun.Add(2*day), planned.ExpiresAt, time.Second)
		require.Equal(t, planned.ExpiresAt, planned.DeadlineAt)
		pass(23 * time.Hour)
		w.append(events.WaveAdvanced{ExecID: "paused", Wave: 1})
		pass(time.Second)
		released := of[events.WaveReleased](w.facts(events.AggregateExec, "paused"))
		require.Len(t, released, 2)
		require.NotNil(t, released[1].ExpiresAt)
		require.False(t, released[1].ExpiresAt.After(begun.Add(2*day+time.Second)))
		pass(25*time.Hour + 10*time.Minute)
		for _, id := range []string{"x", "paused"} {
			require.Contains(t, w.types(id), "expired")
			require.Empty(t, w.stored())
		}
		stop()
		w.night(3, 1)
		require.Contains(t, w.types("paused"), "reduced")
	})
}

// narrow gives the log so many bytes.
func (w *world) narrow(bytes int64) {
	w.t.Helper()
	limits := bustest.Limits()
	limits.LogBytes = bytes
	require.NoError(w.t, w.bus.Ensure(w.t.Context(), limits))
}

// A log that is full takes no tick of the clock. It is cleaned all the same, and then takes it.
func TestHousekeepingOfAFullLog(t *testing.T) {
	long(t)
	synctest.Test(t, func(t *testing.T) {
		w := newShortWorld(t)
		w.narrow(32 << 10)
		w.append(events.AgentGrouped{PCID: "pc1", Groups: []string{strings.Repeat("a", 4<<10)}})
		w.append(events.AgentGrouped{PCID: "pc1", Groups: []string{"b"}})
		w.night(16, 1)
		until(t, midnight(17).Add(-time.Minute))
		w.run(scheduler.Deps{})
		pass(time.Second)
		var err error
		for i := 0; err == nil; i++ {
			e, newErr := events.New(events.JobDeleted{ID: fmt.Sprint(i)}, events.Meta{ID: fmt.Sprint("fill-", i), Time: time.Now()})
			require.NoError(t, newErr)
			_, err = w.bus.Append(t.Context(), e, bus.Any)
		}
		require.ErrorIs(t, err, bus.ErrLogFull)
		until(t, midnight(17).Add(10*time.Minute))
		require.Equal(t, []string{"2000-01-17"}, w.days())
		require.Equal(t, []string{"b"}, of[events.AgentGrouped](w.facts(events.AggregateAgent, "pc1"))[0].Groups)
		pass(time.Hour)
		require.Equal(t, []string{"2000-01-17", "2000-01-18"}, w.days())
	})
}

// fill appends runs of an endpoint, so many at most, until the log is full.
func (w *world) fill(most int) error {
	for i := range most {
		run := events.Run{PCID: "pc1", ExecID: "x", RequestID: "r", ResultID: fmt.Sprint(time.Now().Unix(), i), JobID: "job", Version: "1"}
		e, err := events.New(events.RunFinished{Run: run, State: events.StateSucceeded}, events.Meta{ID: run.ResultID, Time: time.Now()})
		require.NoError(w.t, err)
		if _, err := w.bus.Append(w.t.Context(), e, bus.Any); err != nil {
			return err
		}
	}
	return nil
}

// Who shortens the history because the log is full need not wait for midnight, and neither does what is old enough.
func TestFullLogIsRelieved(t *testing.T) {
	long(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.narrow(64 << 10)
		share := func() float64 {
			share, err := w.bus.Share(t.Context(), events.StreamLog)
			require.NoError(t, err)
			return share
		}
		require.NoError(t, w.fill(70))
		until(t, midnight(12).Add(8*time.Hour))
		stop := w.run(scheduler.Deps{})
		require.ErrorIs(t, w.fill(1000), bus.ErrLogFull)
		pass(3 * time.Hour)
		require.Greater(t, share(), 0.9, "none is old")
		stop()

		w.limits = short()
		stop = w.run(scheduler.Deps{})
		pass(10 * time.Second)
		left := share()
		require.Less(t, left, 0.7)
		require.Greater(t, left, 0.2, "the young ones are there")
		stop()

		until(t, midnight(21).Add(-30*time.Second))
		w.run(scheduler.Deps{})
		until(t, midnight(21).Add(9*time.Hour+15*time.Minute))
		require.ErrorIs(t, w.fill(1000), bus.ErrLogFull)
		pass(30 * time.Minute)
		require.Greater(t, share(), 0.9)
		pass(time.Hour)
		require.Less(t, share(), 0.9-left/2, "those of the twelfth day have aged")
	})
}

// In a full log in which nothing is old, time goes on: the day that begins takes the room of those that are over.
func TestFullLogTakesTheDay(t *testing.T) {
	long(t)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.narrow(64 << 10)
		for n := 1; n <= 3; n++ {
			w.night(n, 1)
		}
		require.Len(t, w.days(), 3)
		require.ErrorIs(t, w.fill(1000), bus.ErrLogFull)
		w.night(4, 2)
		require.Equal(t, []string{"2000-01-04", "2000-01-05"}, w.days())
	})
}

// A tick that is older than the history makes no exec, should its handler be given it again: the log may have forgotten that
// exec by then.
func TestOldTickMakesNoExec(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newShortWorld(t)
		request := execRequest(t, "x", catalog.Target{PCs: []string{"pc1"}})
		w.append(events.ScheduleTicked{ID: "s", Outcome: events.TickFired, From: time.Now(), To: time.Now(), Count: 1, Exec: &request})
		pass(3 * day)
		w.run(scheduler.Deps{})
		pass(time.Minute)
		require.Empty(t, w.types("x"))
	})
}

// A timer that comes when an exec has been reduced, and when it is forgotten, finds nothing to be done and goes.
func TestTimersOfWhatWasReduced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newShortWorld(t)
		w.run(scheduler.Deps{})
		reduced := w.append(events.ExecReduced{ExecID: "x"})
		require.NotZero(t, reduced)
		for _, kind := range []string{"expiry", "wave", "sweep"} {
			for _, key := range []string{"x", "nobody"} {
				require.NoError(t, w.bus.SetTimer(t.Context(), bus.Timer{Kind: kind, Key: key, Generation: "1", At: time.Now()}))
			}
		}
		pass(time.Minute)
		for _, kind := range []string{"expiry", "wave", "sweep"} {
			for _, key := range []string{"x", "nobody"} {
				set, err := w.bus.TimerSet(t.Context(), kind, key, "1")
				require.NoError(t, err)
				require.False(t, set, "%s of %s", kind, key)
			}
		}
		require.Equal(t, []string{"reduced"}, w.types("x"))
	})
}

// The last fact that the fold has seen, and the last of the log, may be gone: a scheduler goes on from the saved fold, or
// folds what is left, and decides nothing before it has.
func TestFoldGoesOnWhereFactsAreGone(t *testing.T) {
	for name, forget := range map[string]bool{"from the saved fold": false, "from the log": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				stop := w.run(scheduler.Deps{})
				w.agent("pc1", nil)
				w.job("job", "1")
				w.schedule("s", "when: {per_pc: {every: 1h}}\ntarget: {all: true}")
				pass(5 * time.Minute)
				require.Len(t, w.ledger("s"), 1)
				w.append(events.AgentGrouped{PCID: "pc2", Groups: []string{"a"}})
				last := w.append(events.AgentGrouped{PCID: "pc2", Groups: []string{"b"}})
				pass(time.Minute)
				stop()
				for _, seq := range []uint64{last, last - 1} {
					there, err := w.bus.Delete(t.Context(), seq)
					require.NoError(t, err)
					require.True(t, there)
				}
				if forget {
					require.NoError(t, w.bus.DeleteObject(t.Context(), events.StoreSchedulerState, "fold-v7"))
				}
				w.run(scheduler.Deps{})
				pass(10 * time.Minute)
				require.Len(t, w.ledger("s"), 1, "nothing is fired that has been")
				pass(time.Hour)
				require.Len(t, w.ledger("s"), 2)
				w.exec("x", catalog.Target{PCs: []string{"pc1"}})
				pass(time.Minute)
				require.Equal(t, "closed", w.types("x")[4])
			})
		})
	}
}
