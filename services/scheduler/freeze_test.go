package scheduler_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/scheduler"
)

func TestFreezeHoldsSchedulesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it is Saturday, 2000-01-01, midnight
		w := newWorld(t)
		stop := w.run(scheduler.Deps{})
		w.run(scheduler.Deps{})
		w.agent("pc1", nil)
		w.job("job", "1")
		pass(time.Second)
		w.schedule("hourly", "when: {cron: '0 * * * *'}\ntarget: {all: true}\ntz: utc\ncatch_up_window: 3h")
		w.schedule("each", "when: {per_pc: {every: 30m}}\ntarget: {all: true}\ntz: utc")
		w.append(events.FreezeSaved{ID: events.FleetID, From: "2000-01-01T01:10:00Z", Until: "2000-01-01T03:10:30Z", TZ: "Asia/Tokyo"})
		at(t, "2000-01-01 02:30:00")
		w.exec("x", catalog.Target{All: true})
		pass(time.Minute)
		require.Contains(t, w.types("x"), "closed", "manual execs pass")
		stop()
		at(t, "2000-01-01 03:20:30")
		requireLedger(t, w, "hourly", "01 01:00 fired", "01 02:00 skipped frozen", "01 03:00 skipped frozen")
		requireLedger(t, w, "each", "01 00:01 fired", "01 00:31 fired", "01 01:01 fired", "01 03:11 fired")
		w.append(events.FreezeSaved{ID: events.FleetID, TZ: "local"})
		at(t, "2000-01-01 05:30:30")
		w.append(events.FreezeCleared{ID: events.FleetID})
		at(t, "2000-01-01 06:10:30")
		requireLedger(t, w, "hourly", "01 01:00 fired", "01 02:00 skipped frozen", "01 03:00 skipped frozen", "01 04:00 skipped frozen", "01 05:00 skipped frozen", "01 06:00 fired")
		requireLedger(t, w, "each", "01 00:01 fired", "01 00:31 fired", "01 01:01 fired", "01 03:11 fired", "01 05:31 fired", "01 06:01 fired")
	})
}

// Ticks that fell into a freeze while no scheduler ran are not caught up after it, those from before it are.
func TestFreezeIsRememberedAcrossAnAbsence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		stop := w.run(scheduler.Deps{})
		w.agent("pc1", nil)
		w.job("job", "1")
		pass(time.Second)
		w.schedule("hourly", "when: {cron: '0 * * * *'}\ntarget: {all: true}\ntz: utc\ncatch_up_window: 9h")
		pass(time.Second)
		stop()
		at(t, "2000-01-01 01:30:00")
		w.append(events.FreezeSaved{ID: events.FleetID, Until: "2000-01-01T04:00:00Z", TZ: "utc"})
		at(t, "2000-01-01 03:30:00")
		stop = w.run(scheduler.Deps{})
		pass(time.Minute)
		requireLedger(t, w, "hourly", "01 01:00 missed frozen", "01 02:00 skipped frozen to 01 03:00, 2")
		stop()
		at(t, "2000-01-01 04:30:00")
		w.run(scheduler.Deps{})
		pass(time.Minute)
		requireLedger(t, w, "hourly", "01 01:00 missed frozen", "01 02:00 skipped frozen to 01 03:00, 2", "01 04:00 caught_up")
	})
}
