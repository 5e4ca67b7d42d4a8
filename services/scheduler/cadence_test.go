package scheduler_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/scheduler"
)

// slowly is an endpoint whose script runs for a time.
func slowly(d time.Duration) func(events.Run) []answer {
	return func(run events.Run) []answer {
		return []answer{
			{0, events.RunReceived{Run: run}}, {time.Second, events.RunStarted{Run: run}},
			{d, events.RunFinished{Run: run, State: events.StateSucceeded}},
		}
	}
}

// Once is once, whatever restarts and edits; once_per_version follows the job; a target that fires as one is due an interval
// after anybody in it has succeeded, and after its back-off where nobody has.
func TestCadences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it is Saturday, 2000-01-01, midnight
		w := newWorld(t)
		stop := w.run(scheduler.Deps{})
		w.agent("pc1", nil)
		failures := 2
		w.agent("pc2", func(run events.Run) []answer {
			if failures--; failures >= 0 {
				return fail(run)
			}
			return succeed(run)
		})
		w.job("job", "1")
		w.schedule("once", "when: {per_pc: once}\ntarget: {all: true}")
		at(t, "2000-01-01 00:30:00")
		requireLedger(t, w, "once", "01 00:01 fired", "01 00:03 fired", "01 00:06 fired")
		w.schedule("version", "when: {per_pc: once_per_version}\ntarget: {pcs: [pc1]}")
		w.schedule("target", "when: {per_target: {every: 6h}}\ntarget: {pcs: [pc1, pc2]}")
		pass(time.Second) // their timers are set, and come due while nobody is there: they are looked at in the next full minute
		stop()
		at(t, "2000-01-01 01:00:20")
		w.schedule("once", "when: {per_pc: once}\ntarget: {all: true}\njitter: 1s")
		w.run(scheduler.Deps{})
		at(t, "2000-01-01 02:00:30")
		w.job("job", "2")
		at(t, "2000-01-01 08:00:00")
		requireLedger(t, w, "once", "01 00:01 fired", "01 00:03 fired", "01 00:06 fired")
		requireLedger(t, w, "version", "01 01:01 fired", "01 02:01 fired")
		requireLedger(t, w, "target", "01 01:01 fired", "01 07:01 fired")
		for _, tick := range w.ledger("target") {
			plan, err := catalog.ParsePlanDocument(tick.Exec.Plan)
			require.NoError(t, err)
			require.Equal(t, []string{"pc1", "pc2"}, plan.Target.PCs)
		}
	})
}

// With overlap: queue a tick fires as soon as the earlier one has ended, and the newest that waits takes the place of those
// before it. With replace the earlier one is killed.
func TestOverlapPolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		w.agent("slow", slowly(98*time.Second))
		w.agent("slower", slowly(time.Hour))
		w.job("job", "1")
		w.schedule("queue", "when: {cron: '* * * * *'}\ntarget: {pcs: [slow]}\noverlap: queue\nactive: {until: '2000-01-01T00:06:00Z'}")
		w.schedule("skip", "when: {cron: '* * * * *'}\ntarget: {pcs: [slow]}\nactive: {until: '2000-01-01T00:06:00Z'}")
		w.schedule("replace", "when: {cron: '*/5 * * * *'}\ntarget: {pcs: [slower]}\noverlap: replace\nactive: {until: '2000-01-01T00:13:00Z'}")
		at(t, "2000-01-01 00:20:00")
		// A run lasts from second 1 to second 100.
		requireLedger(t, w, "queue", "01 00:01 fired", "01 00:02 fired", "01 00:03 missed superseded", "01 00:04 fired", "01 00:05 fired")
		requireLedger(t, w, "skip", "01 00:01 fired", "01 00:02 skipped overlap", "01 00:03 fired", "01 00:04 skipped overlap", "01 00:05 fired")
		requireLedger(t, w, "replace", "01 00:05 fired", "01 00:10 fired")
		ticks := w.ledger("replace")
		killed := of[events.ExecKilled](w.facts(events.AggregateExec, ticks[0].Exec.ExecID))
		require.Len(t, killed, 1)
		require.True(t, strings.HasPrefix(killed[0].Reason, "replaced by the tick of 2000-01-01T00:10:00Z"), killed[0].Reason)
		require.Empty(t, of[events.ExecKilled](w.facts(events.AggregateExec, ticks[1].Exec.ExecID)))
	})
}

// Gates hold ticks back and say why; an interval waits for them. A named calendar that changes counts from the next tick.
func TestGatesOfSchedules(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		w.agent("pc1", nil)
		w.job("job", "1")
		calendar := func(days string) {
			c, err := catalog.ParseDayCalendar([]byte("id: holidays\ndays: ["+days+"]\n"), catalog.YAML)
			require.NoError(t, err)
			doc, err := c.Document()
			require.NoError(t, err)
			w.append(events.CalendarSaved{ID: events.CalendarID("holidays"), Calendar: "holidays", DocumentRevision: events.DocumentRevision{Document: doc}})
		}
		calendar("2000-01-01, 2000-01-02")
		w.schedule("cron", "when: {cron: '0 */6 * * *'}\ntarget: {all: true}\ntz: utc\ncalendars: [holidays]\nconstraints: {window: 06:00-18:00, skip_dates: [2000-01-03]}")
		w.schedule("interval", "when: {per_pc: {every: 1h}}\ntarget: {all: true}\ntz: utc\nconstraints: {window: 22:00-02:00}")
		at(t, "2000-01-02 07:00:00")
		calendar("2000-01-01")
		at(t, "2000-01-04 06:30:00")
		requireLedger(t, w, "cron", "01 06:00 skipped calendar", "01 12:00 skipped calendar", "01 18:00 skipped calendar to 02 06:00, 3",
			"02 12:00 fired", "02 18:00 skipped outside_window", "03 00:00 skipped skip_date to 03 18:00, 4",
			"04 00:00 skipped outside_window", "04 06:00 fired")
		requireLedger(t, w, "interval", "01 00:01 fired", "01 01:01 fired", "01 22:00 fired", "01 23:00 fired", "02 00:00 fired", "02 01:00 fired",
			"02 22:00 fired", "02 23:00 fired", "03 00:00 fired", "03 01:00 fired", "03 22:00 fired", "03 23:00 fired", "04 00:00 fired", "04 01:00 fired")
	})
}

// What is missed while nobody is there to fire it.
func TestCatchUpPolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run(scheduler.Deps{})
		w.agent("pc1", nil)
		w.job("job", "1")
		hourly := "when: {cron: '0 * * * *'}\ntarget: {all: true}\ntz: utc\noverlap: allow\n"
		w.schedule("none", hourly+"catch_up: none")
		w.schedule("last", hourly+"catch_up: last\ncatch_up_window: 3h")
		w.schedule("all", hourly+"catch_up: all\ncatch_up_window: 3h")
		w.schedule("deadline", hourly+"catch_up: all\ncatch_up_window: 3h\nstarting_deadline: 90m")
		at(t, "2000-01-01 01:30:00")
		stop()
		at(t, "2000-01-01 07:30:00")
		w.run(scheduler.Deps{})
		at(t, "2000-01-01 08:30:00")
		requireLedger(t, w, "none", "01 01:00 fired", "01 02:00 missed late to 01 07:00, 6", "01 08:00 fired")
		requireLedger(t, w, "last", "01 01:00 fired", "01 02:00 missed late to 01 04:00, 3", "01 05:00 missed superseded to 01 06:00, 2", "01 07:00 caught_up", "01 08:00 fired")
		requireLedger(t, w, "all", "01 01:00 fired", "01 02:00 missed late to 01 04:00, 3", "01 05:00 caught_up", "01 06:00 caught_up", "01 07:00 caught_up", "01 08:00 fired")
		requireLedger(t, w, "deadline", "01 01:00 fired", "01 02:00 missed late to 01 06:00, 5", "01 07:00 caught_up", "01 08:00 fired")
	})
}

// A tick that waits for its turn is ended when its schedule is deleted, or does not queue any more, although its own timer
// has gone.
func TestQueuedTickOfAScheduleThatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(scheduler.Deps{})
		w.agent("slow", slowly(98*time.Second))
		w.job("job", "1")
		const queue = "when: {cron: '* * * * *'}\ntarget: {pcs: [slow]}\noverlap: queue"
		w.schedule("deleted", queue)
		w.schedule("edited", queue)
		at(t, "2000-01-01 00:02:10")
		w.append(events.ScheduleDeleted{ID: "deleted"})
		w.schedule("edited", "when: {cron: '0 * * * *'}\ntarget: {pcs: [slow]}")
		pass(10 * time.Second)
		requireLedger(t, w, "deleted", "01 00:01 fired", "01 00:02 missed superseded")
		requireLedger(t, w, "edited", "01 00:01 fired", "01 00:02 skipped overlap")
	})
}
