package scheduler_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/scheduler"
)

// ledger is what the log says of a schedule's ticks.
func (w *world) ledger(id string) []events.ScheduleTicked {
	return of[events.ScheduleTicked](w.facts(events.AggregateSchedule, id))
}

// requireLedger checks that nominal times are in the ledger once, in order, and that each fire has its exec.
func requireLedger(t *testing.T, w *world, id string, nominal ...string) {
	t.Helper()
	var got []string
	for _, x := range w.ledger(id) {
		text := fmt.Sprintf("%s %s", x.From.Format("02 15:04"), x.Outcome)
		if x.Reason != "" {
			text += " " + x.Reason
		}
		if x.Count > 1 {
			text += fmt.Sprintf(" to %s, %d", x.To.Format("02 15:04"), x.Count)
		}
		got = append(got, text)
		if x.Exec != nil {
			requested := of[events.ExecRequested](w.facts(events.AggregateExec, x.Exec.ExecID))
			require.Len(t, requested, 1)
			require.Equal(t, *x.Exec, requested[0])
			require.Equal(t, id, requested[0].ScheduleID)
			require.Equal(t, x.To, *requested[0].Nominal)
		}
	}
	require.Equal(t, nominal, got)
}

func TestCalendarOverDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it is Saturday, 2000-01-01, midnight
		w := newWorld(t)
		stop := w.run(scheduler.Deps{})
		w.agent("pc1", nil)
		w.job("job", "1")
		w.schedule("daily", "when: {calendar: {at: '02:00'}}\ntarget: {all: true}\ntz: utc")
		w.schedule("monday", "when: {cron: '0 3 * * MON'}\ntarget: {all: true}\ntz: utc\ncatch_up_window: 2h")
		at(t, "2000-01-02 12:00:00")
		requireLedger(t, w, "daily", "01 02:00 fired", "02 02:00 fired")
		stop()
		at(t, "2000-01-03 02:30:00")
		stop = w.run(scheduler.Deps{})
		pass(10 * time.Second)
		requireLedger(t, w, "daily", "01 02:00 fired", "02 02:00 fired", "03 02:00 caught_up")
		stop()
		at(t, "2000-01-03 04:00:00")
		bustest.Restart(t, w.broker, 10*time.Minute)
		stop = w.run(scheduler.Deps{})
		pass(10 * time.Second)
		requireLedger(t, w, "monday", "03 03:00 caught_up")
		stop()
		at(t, "2000-01-05 12:00:00")
		w.run(scheduler.Deps{})
		pass(10 * time.Second)
		requireLedger(t, w, "daily", "01 02:00 fired", "02 02:00 fired", "03 02:00 caught_up", "04 02:00 missed late to 05 02:00, 2")
		for _, x := range w.ledger("daily") {
			if x.Exec != nil {
				require.Equal(t, []string{"requested", "planned", "wave-released", "wave-dispatched", "closed"}, w.types(x.Exec.ExecID)[:5])
				require.Equal(t, x.To.Add(24*time.Hour), *x.Exec.DeadlineAt, "no command starts after the next tick")
			}
		}
		at(t, "2000-01-06 12:00:00")
		require.Contains(t, w.types(w.ledger("daily")[0].Exec.ExecID), "expired")
		requireLedger(t, w, "monday", "03 03:00 caught_up")
	})
}

func TestCronThroughRestartsOfEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stopA, stopB := w.run(scheduler.Deps{}), w.run(scheduler.Deps{})
		w.agent("pc1", nil)
		w.job("job", "1")
		w.schedule("often", "when: {cron: '*/10 * * * *'}\ntarget: {all: true}\ntz: utc")
		for i := range 12 {
			pass(time.Duration(7+i) * time.Minute)
			switch i % 3 {
			case 0:
				stopA()
				stopA = w.run(scheduler.Deps{})
			case 1:
				bustest.Restart(t, w.broker, time.Duration(i)*20*time.Second)
			case 2:
				stopA()
				stopB()
				stopB = w.run(scheduler.Deps{})
				stopA = w.run(scheduler.Deps{})
			}
		}
		pass(time.Minute)
		last := time.Now().UTC().Truncate(10 * time.Minute)
		next := time.Date(2000, 1, 1, 0, 10, 0, 0, time.UTC)
		for _, x := range w.ledger("often") {
			require.Equal(t, next, x.From)
			next = x.To.Add(10 * time.Minute)
			require.True(t, x.Exec != nil, "an outage of some minutes is caught up: %s of %s", x.Outcome, x.From)
			require.Len(t, of[events.ExecPlanned](w.facts(events.AggregateExec, x.Exec.ExecID)), 1)
			require.Equal(t, []string{x.Exec.ExecID + "/0/commands.all"}, w.ears.of(x.Exec.ExecID))
		}
		require.Equal(t, last.Add(10*time.Minute), next)
	})
}

func TestEditsTakeEffectAtTheNextTick(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		w.run(scheduler.Deps{})
		w.agent("pc1", nil)
		w.job("job", "1")
		const hourly = "when: {cron: '0 * * * *'}\ntarget: {all: true}\ntz: utc"
		w.schedule("s", hourly)
		at(t, "2000-01-01 01:30:00")
		w.schedule("s", hourly+"\nenabled: false")
		at(t, "2000-01-01 05:30:00")
		requireLedger(t, w, "s", "01 01:00 fired", "01 02:00 skipped disabled") // its timer was set
		w.schedule("s", "when: {cron: '15 * * * *'}\ntarget: {all: true}\ntz: utc")
		at(t, "2000-01-01 06:30:00")
		requireLedger(t, w, "s", "01 01:00 fired", "01 02:00 skipped disabled", "01 03:00 skipped disabled to 01 05:00, 3", "01 06:15 fired")
		w.append(events.ScheduleDeleted{ID: "s"})
		at(t, "2000-01-01 09:00:00")
		w.schedule("s", hourly)
		at(t, "2000-01-01 10:30:00")
		w.append(events.JobDeleted{ID: "job"})
		at(t, "2000-01-01 11:30:00")
		requireLedger(t, w, "s", "01 01:00 fired", "01 02:00 skipped disabled", "01 03:00 skipped disabled to 01 05:00, 3", "01 06:15 fired", "01 10:00 fired", "01 11:00 skipped job_gone")
	})
}

func TestOverlapIsSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		w.agent("slow", func(run events.Run) []answer {
			return []answer{{0, events.RunReceived{Run: run}}, {0, events.RunStarted{Run: run}}, {150 * time.Minute, events.RunFinished{Run: run, State: events.StateSucceeded}}}
		})
		w.job("job", "1")
		w.schedule("s", "when: {cron: '0 * * * *'}\ntarget: {all: true}\ntz: utc")
		at(t, "2000-01-01 04:30:00")
		// The first exec expires a minute and a half after 02:00, its run is unknown then; whether it still runs nobody knows.
		requireLedger(t, w, "s", "01 01:00 fired", "01 02:00 skipped overlap", "01 03:00 fired", "01 04:00 skipped overlap")
	})
}

func TestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run(scheduler.Deps{})
		w.job("job", "1")
		w.schedule("s", "when: {per_pc: {every: 1h}}\ntarget: {all: true}")
		pass(time.Hour)
		require.Empty(t, w.ledger("s"), "nobody is due")
		w.agent("good", nil)
		pass(10 * time.Minute)
		w.agent("bad", fail)
		away := w.agent("away", nil)
		pass(5 * time.Minute)
		away.sleep()
		stop()
		pass(3 * time.Hour)
		w.run(scheduler.Deps{})
		w.run(scheduler.Deps{})
		pass(24 * time.Hour)
		away.wake()
		pass(3*time.Hour - 30*time.Second)

		fired := map[string][]time.Time{}
		var before time.Time
		for _, x := range w.ledger("s") {
			require.Equal(t, events.TickFired, x.Outcome)
			require.True(t, x.From.After(before) && x.From.Equal(x.From.Truncate(time.Minute)))
			before = x.From
			p := of[events.ExecPlanned](w.facts(events.AggregateExec, x.Exec.ExecID))
			require.Len(t, p, 1)
			require.Empty(t, p[0].Waves[0].Waiting)
			for _, pc := range p[0].Waves[0].Expected {
				fired[pc] = append(fired[pc], x.From)
			}
			require.Len(t, w.ears.of(x.Exec.ExecID), len(p[0].Waves[0].Expected))
		}
		begin := time.Date(2000, 1, 1, 1, 0, 0, 0, time.UTC)
		var good []time.Duration
		for _, at := range fired["good"] {
			good = append(good, at.Sub(begin))
		}
		require.Equal(t, time.Minute, good[0], "the minute after its first heartbeat")
		outage := 3*time.Hour + 15*time.Minute
		require.True(t, good[1] >= outage && good[1] <= outage+2*time.Minute, "after the outage at once: %s", good[1])
		for i := 2; i < len(good); i++ {
			require.Equal(t, time.Hour, good[i]-good[i-1])
		}
		require.Len(t, good, 1+27)
		require.Len(t, fired["away"], 1+3, "at once when it has come back, then every hour")
		bad := fired["bad"]
		for i := 1; i < len(bad); i++ {
			require.GreaterOrEqual(t, bad[i].Sub(bad[i-1]), min(time.Minute<<(i-1), 6*time.Hour), "it backs off")
		}
		require.Greater(t, len(bad), 8)
		progress := of[events.ScheduleProgressed](w.facts(events.AggregateSchedule, "s"))
		require.LessOrEqual(t, len(progress), len(good)+len(bad)+4+5, "one for each end, about")
	})
}

// A due timer that comes while the clock here is behind by the way of an answer, and one that comes for nothing, are
// followed by the next.
func TestStaleTimers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		w.agent("pc1", nil)
		w.job("job", "1")
		w.schedule("s", "when: {per_pc: {every: 10m}}\ntarget: {all: true}")
		w.schedule("c", "when: {cron: '*/10 * * * *'}\ntarget: {all: true}\ntz: utc")
		for i := range 40 {
			require.NoError(t, w.bus.SetTimer(t.Context(), bus.Timer{
				Kind: "tick", Key: []string{"s", "c", "nobody"}[i%3], Generation: fmt.Sprintf("stale-%d", i), At: time.Now().Add(time.Duration(i) * 91 * time.Second),
			}))
		}
		pass(61*time.Minute + 30*time.Second)
		require.Len(t, w.ledger("s"), 7)
		require.Len(t, w.ledger("c"), 6)
		for i, x := range w.ledger("s")[1:] {
			require.Equal(t, w.ledger("s")[i].From.Add(10*time.Minute), x.From)
		}
	})
}

// A tick carries the whole plan of its schedule: waves, jitter, budgets, retries.
func TestTickCarriesThePlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		w.agent("pc1", nil)
		w.agent("pc2", nil)
		w.job("job", "1")
		pass(time.Second)
		w.schedule("nightly", `when: {calendar: {at: '00:05'}}
target: {pcs: [pc1, pc2]}
tz: utc
jitter: 5s
max_failures: 1
on_failure: {retry: {max: 2, backoff: 10s}}
rollout: {strategy: wave, waves: [{count: 1, delay: 0s}, {percent: 100, after: previous, delay: 30s}]}`)
		pass(10 * time.Minute)
		ticks := w.ledger("nightly")
		require.Len(t, ticks, 1)
		require.Equal(t, &events.Retry{Max: 2, BackoffSecs: 10}, ticks[0].Exec.Retry)
		facts := w.facts(events.AggregateExec, ticks[0].Exec.ExecID)
		plan := of[events.ExecPlanned](facts)[0]
		require.Len(t, plan.Waves, 2)
		require.Equal(t, 1, *plan.MaxFailures)
		released := of[events.WaveReleased](facts)
		require.Len(t, released, 2)
		require.Equal(t, events.OutcomeSucceeded, of[events.ExecClosed](facts)[0].Outcome)
		require.Len(t, of[events.WaveDispatched](facts), 2)
	})
}

// A job whose script object is gone, or that can't be run as the schedule asks, skips the tick with the reason.
func TestTickOfUnfitJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		w.agent("pc1", nil)
		m, err := catalog.ParseManifest([]byte("id: job\nversion: '1'\nexecute: {shell: sh, script_object: a/1, timeout: 30s}\n"), catalog.YAML)
		require.NoError(t, err)
		doc, err := m.Document()
		require.NoError(t, err)
		w.append(events.JobSaved{ID: "job", Version: "1", DocumentRevision: events.DocumentRevision{Document: doc, Hash: catalog.Hash(doc)}})
		w.schedule("often", "when: {cron: '*/5 * * * *'}\ntarget: {all: true}\ntz: utc")
		pass(6 * time.Minute)
		requireLedger(t, w, "often", "01 00:05 skipped script_object")
		require.NoError(t, w.bus.PutObject(t.Context(), events.StoreScripts, "a/1", strings.NewReader("true")))
		pass(5 * time.Minute)
		require.NotEmpty(t, w.ledger("often")[1].Exec.Script.ObjectSHA256)
	})
}

// A timer that never comes, as when it went to a scheduler that died of it, makes no tick late: it is fired within a minute.
func TestTickWhoseTimerIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		w.agent("pc1", nil)
		w.job("job", "1")
		at(t, "2000-01-01 00:10:00") // the hourly sweep is far
		w.schedule("s", "when: {cron: '30 * * * *'}\ntarget: {all: true}\ntz: utc\ncatch_up: none")
		w.schedule("gone", "when: {cron: '30 * * * *'}\ntarget: {all: true}\ntz: utc")
		pass(time.Second)
		timers, err := w.bus.JetStream().Stream(t.Context(), events.StreamTimers)
		require.NoError(t, err)
		require.NoError(t, timers.Purge(t.Context(), jetstream.WithPurgeSubject("timers.set.tick.>")))
		w.append(events.ScheduleDeleted{ID: "gone"})
		at(t, "2000-01-01 00:31:00")
		requireLedger(t, w, "s", "01 00:30 fired")
		require.Empty(t, w.ledger("gone"))
		at(t, "2000-01-01 01:30:05")
		requireLedger(t, w, "s", "01 00:30 fired", "01 01:30 fired")
	})
}

// A schedule that can't be ended holds up none that is due with it, is tried again less and less often, and goes on when it can.
func TestTickThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		w.agent("pc1", nil)
		w.job("job", "1")
		w.append(events.JobSaved{ID: "unreadable", Version: "1", DocumentRevision: events.DocumentRevision{Document: []byte(`{"id": 7}`), SourceType: "json", Hash: "h"}})
		w.schedule("well", "when: {cron: '*/10 * * * *'}\ntarget: {all: true}\ntz: utc")
		w.scheduleOf("unreadable", "ill", "when: {cron: '*/10 * * * *'}\ntarget: {all: true}\ntz: utc")
		at(t, "2000-01-01 00:09:00")
		timers, err := w.bus.JetStream().Stream(t.Context(), events.StreamTimers)
		require.NoError(t, err)
		before, err := timers.Info(t.Context())
		require.NoError(t, err)
		at(t, "2000-01-01 00:50:30")
		after, err := timers.Info(t.Context())
		require.NoError(t, err)
		requireLedger(t, w, "well", "01 00:10 fired", "01 00:20 fired", "01 00:30 fired", "01 00:40 fired", "01 00:50 fired")
		// The newest is tried again, five minutes later by now.
		requireLedger(t, w, "ill", "01 00:10 missed superseded", "01 00:20 missed superseded", "01 00:30 missed superseded")
		require.LessOrEqual(t, after.State.LastSeq-before.State.LastSeq, uint64(120), "timers are set again and again")
		w.job("unreadable", "2")
		at(t, "2000-01-01 00:59:00")
		ticks := w.ledger("ill")
		require.NotEmpty(t, ticks)
		require.Equal(t, events.TickCaughtUp, ticks[len(ticks)-1].Outcome)
	})
}
