package domain_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/scheduler/internal/domain"
)

func clock(t testing.TB, s string) time.Time {
	t.Helper()
	at, err := time.Parse(time.DateTime, s)
	require.NoError(t, err)
	return at
}

// end ends what is due at now, as the ledger does, and gives it.
func (h *history) end(now time.Time, busy bool) []domain.Tick {
	h.t.Helper()
	s := h.state.Schedules["s"]
	p := h.state.Present(s, now)
	p.Busy, p.Open = busy, h.open
	ticks := domain.Ticks(s, p)
	for _, x := range ticks {
		h.now = now
		h.add(events.ScheduleTicked{ID: "s", ScheduleSequence: x.Version.Seq, Outcome: x.Outcome, Reason: x.Reason, From: x.From, To: x.To, Count: x.Count})
	}
	return ticks
}

func TestTicks(t *testing.T) {
	const daily, hourly = "when: {calendar: {at: '02:00'}}", "when: {cron: '0 * * * *'}"
	type tick struct {
		outcome  events.TickOutcome
		reason   string
		from, to string
		count    int
	}
	type edit struct{ at, spec string } // spec "" deletes
	for name, c := range map[string]struct {
		edits []edit
		now   string
		busy  bool
		open  int
		want  []tick
		next  string // the next tick before the look
	}{
		"on time": {
			edits: []edit{{"2026-03-28 01:00:00", daily}}, now: "2026-03-28 02:00:00", next: "2026-03-28 02:00:00",
			want: []tick{{events.TickFired, "", "2026-03-28 02:00:00", "", 1}},
		},
		"before its time": {edits: []edit{{"2026-03-28 01:00:00", daily}}, now: "2026-03-28 01:59:59", next: "2026-03-28 02:00:00"},
		"saved at the very time": {
			edits: []edit{{"2026-03-28 02:00:00", daily}}, now: "2026-03-28 03:00:00", next: "2026-03-29 02:00:00",
		},
		"a minute late is on time": {
			edits: []edit{{"2026-03-28 01:00:00", daily}}, now: "2026-03-28 02:01:00", next: "2026-03-28 02:00:00",
			want: []tick{{events.TickFired, "", "2026-03-28 02:00:00", "", 1}},
		},
		"caught up": {
			edits: []edit{{"2026-03-28 01:00:00", daily}}, now: "2026-03-28 03:00:00", next: "2026-03-28 02:00:00",
			want: []tick{{events.TickCaughtUp, "", "2026-03-28 02:00:00", "", 1}},
		},
		"beyond the window": {
			edits: []edit{{"2026-03-28 01:00:00", daily}}, now: "2026-03-28 03:00:01", next: "2026-03-28 02:00:00",
			want: []tick{{events.TickMissed, events.TickReasonLate, "2026-03-28 02:00:00", "", 1}},
		},
		"a window of its own": {
			edits: []edit{{"2026-03-28 01:00:00", daily + "\ncatch_up_window: 3h"}}, now: "2026-03-28 05:00:00", next: "2026-03-28 02:00:00",
			want: []tick{{events.TickCaughtUp, "", "2026-03-28 02:00:00", "", 1}},
		},
		"an outage of hours": {
			edits: []edit{{"2026-03-28 01:00:00", hourly}}, now: "2026-03-28 06:30:00", next: "2026-03-28 02:00:00",
			want: []tick{
				{events.TickMissed, events.TickReasonLate, "2026-03-28 02:00:00", "2026-03-28 05:00:00", 4},
				{events.TickCaughtUp, "", "2026-03-28 06:00:00", "", 1},
			},
		},
		"superseded within the window": {
			edits: []edit{{"2026-03-28 01:00:00", "when: {cron: '*/30 * * * *'}"}}, now: "2026-03-28 03:01:30", next: "2026-03-28 01:30:00",
			want: []tick{
				{events.TickMissed, events.TickReasonLate, "2026-03-28 01:30:00", "2026-03-28 02:00:00", 2},
				{events.TickMissed, events.TickReasonSuperseded, "2026-03-28 02:30:00", "", 1},
				{events.TickCaughtUp, "", "2026-03-28 03:00:00", "", 1},
			},
		},
		"overlap": {
			edits: []edit{{"2026-03-28 01:00:00", hourly}}, now: "2026-03-28 02:00:00", busy: true, next: "2026-03-28 02:00:00",
			want: []tick{{events.TickSkipped, events.TickReasonOverlap, "2026-03-28 02:00:00", "", 1}},
		},
		"a late one is late, busy or not": {
			edits: []edit{{"2026-03-28 01:00:00", daily}}, now: "2026-03-28 09:00:00", busy: true, next: "2026-03-28 02:00:00",
			want: []tick{{events.TickMissed, events.TickReasonLate, "2026-03-28 02:00:00", "", 1}},
		},
		"disabled": {edits: []edit{{"2026-03-28 01:00:00", hourly}, {"2026-03-28 01:30:00", hourly + "\nenabled: false"}}, now: "2026-03-28 01:40:00"},
		"disabled for hours, enabled again": {
			edits: []edit{
				{"2026-03-28 01:00:00", hourly}, {"2026-03-28 01:30:00", hourly + "\nenabled: false"}, {"2026-03-28 05:30:00", hourly},
			}, now: "2026-03-28 06:00:00", next: "2026-03-28 02:00:00",
			want: []tick{
				{events.TickSkipped, events.TickReasonDisabled, "2026-03-28 02:00:00", "2026-03-28 05:00:00", 4},
				{events.TickFired, "", "2026-03-28 06:00:00", "", 1},
			},
		},
		"enabled again, looked at before the next tick": {
			edits: []edit{{"2026-03-28 01:00:00", hourly + "\nenabled: false"}, {"2026-03-28 02:30:00", hourly}}, now: "2026-03-28 02:30:00", next: "2026-03-28 02:00:00",
			want: []tick{{events.TickSkipped, events.TickReasonDisabled, "2026-03-28 02:00:00", "", 1}},
		},
		"edited during an outage": {
			edits: []edit{{"2026-03-28 01:00:00", daily}, {"2026-03-28 02:10:00", "when: {calendar: {at: '04:00'}}"}}, now: "2026-03-28 02:20:00", next: "2026-03-28 02:00:00",
			want: []tick{{events.TickCaughtUp, "", "2026-03-28 02:00:00", "", 1}},
		},
		"edited and disabled during an outage": {
			edits: []edit{{"2026-03-28 01:00:00", daily}, {"2026-03-28 02:10:00", daily + "\nenabled: false"}}, now: "2026-03-28 02:20:00", next: "2026-03-28 02:00:00",
			want: []tick{{events.TickMissed, events.TickReasonSuperseded, "2026-03-28 02:00:00", "", 1}},
		},
		"deleted during an outage": {
			edits: []edit{{"2026-03-28 01:00:00", hourly}, {"2026-03-28 03:10:00", ""}}, now: "2026-03-28 03:20:00", next: "2026-03-28 02:00:00",
			want: []tick{
				{events.TickMissed, events.TickReasonLate, "2026-03-28 02:00:00", "", 1},
				{events.TickMissed, events.TickReasonSuperseded, "2026-03-28 03:00:00", "", 1},
			},
		},
		"deleted between ticks": {edits: []edit{{"2026-03-28 01:00:00", hourly}, {"2026-03-28 01:10:00", ""}}, now: "2026-03-28 09:20:00"},
		"deleted and made again": {
			edits: []edit{{"2026-03-28 01:00:00", hourly}, {"2026-03-28 01:10:00", ""}, {"2026-03-28 04:10:00", hourly}}, now: "2026-03-28 05:00:00", next: "2026-03-28 05:00:00",
			want: []tick{{events.TickFired, "", "2026-03-28 05:00:00", "", 1}},
		},
		"an interval": {edits: []edit{{"2026-03-28 01:00:00", "when: {per_pc: {every: 1h}}"}}, now: "2026-03-29 02:00:00"},
		"a calendar that became an interval": {
			edits: []edit{{"2026-03-28 01:00:00", hourly}, {"2026-03-28 02:10:00", "when: {per_pc: {every: 1h}}"}}, now: "2026-03-28 02:20:00", next: "2026-03-28 02:00:00",
			want: []tick{{events.TickCaughtUp, "", "2026-03-28 02:00:00", "", 1}},
		},
		"caught up never": {
			edits: []edit{{"2026-03-28 01:00:00", hourly + "\ncatch_up: none"}}, now: "2026-03-28 03:01:01", next: "2026-03-28 02:00:00",
			want: []tick{{events.TickMissed, events.TickReasonLate, "2026-03-28 02:00:00", "2026-03-28 03:00:00", 2}},
		},
		"caught up never, but on time": {
			edits: []edit{{"2026-03-28 01:00:00", hourly + "\ncatch_up: none"}}, now: "2026-03-28 03:01:00", next: "2026-03-28 02:00:00",
			want: []tick{
				{events.TickMissed, events.TickReasonLate, "2026-03-28 02:00:00", "", 1}, {events.TickFired, "", "2026-03-28 03:00:00", "", 1},
			},
		},
		"all of them caught up": {
			edits: []edit{{"2026-03-28 01:00:00", hourly + "\ncatch_up: all\ncatch_up_window: 2h\noverlap: allow"}}, now: "2026-03-28 05:00:30", busy: true, next: "2026-03-28 02:00:00",
			want: []tick{
				{events.TickMissed, events.TickReasonLate, "2026-03-28 02:00:00", "2026-03-28 03:00:00", 2},
				{events.TickCaughtUp, "", "2026-03-28 04:00:00", "", 1}, {events.TickFired, "", "2026-03-28 05:00:00", "", 1},
			},
		},
		"all of them, but one at a time": {
			edits: []edit{{"2026-03-28 01:00:00", hourly + "\ncatch_up: all\ncatch_up_window: 9h"}}, now: "2026-03-28 04:00:30", next: "2026-03-28 02:00:00",
			want: []tick{
				{events.TickCaughtUp, "", "2026-03-28 02:00:00", "", 1},
				{events.TickSkipped, events.TickReasonOverlap, "2026-03-28 03:00:00", "2026-03-28 04:00:00", 2},
			},
		},
		"a starting deadline": {
			edits: []edit{{"2026-03-28 01:00:00", daily + "\nstarting_deadline: 10m"}}, now: "2026-03-28 02:10:01", next: "2026-03-28 02:00:00",
			want: []tick{{events.TickMissed, events.TickReasonLate, "2026-03-28 02:00:00", "", 1}},
		},
		"overlap allowed": {
			edits: []edit{{"2026-03-28 01:00:00", hourly + "\noverlap: allow"}}, now: "2026-03-28 02:00:00", busy: true, next: "2026-03-28 02:00:00",
			want: []tick{{events.TickFired, "", "2026-03-28 02:00:00", "", 1}},
		},
		"the earlier one is replaced": {
			edits: []edit{{"2026-03-28 01:00:00", hourly + "\noverlap: replace\ncatch_up: all\ncatch_up_window: 9h"}}, now: "2026-03-28 03:00:00", busy: true, next: "2026-03-28 02:00:00",
			want: []tick{
				{events.TickMissed, events.TickReasonSuperseded, "2026-03-28 02:00:00", "", 1}, {events.TickFired, "", "2026-03-28 03:00:00", "", 1},
			},
		},
		"its turn has not come": {
			edits: []edit{{"2026-03-28 01:00:00", hourly + "\noverlap: queue\ncatch_up_window: 9h"}}, now: "2026-03-28 03:00:00", busy: true, next: "2026-03-28 02:00:00",
			want: []tick{{events.TickMissed, events.TickReasonSuperseded, "2026-03-28 02:00:00", "", 1}},
		},
		"its turn has come": {
			edits: []edit{{"2026-03-28 01:00:00", hourly + "\noverlap: queue"}}, now: "2026-03-28 02:40:00", next: "2026-03-28 02:00:00",
			want: []tick{{events.TickCaughtUp, "", "2026-03-28 02:00:00", "", 1}},
		},
		"outside of the window": {
			edits: []edit{{"2026-03-28 01:00:00", hourly + "\nconstraints: {window: 05:00-06:00, skip_dates: [2026-03-29]}"}}, now: "2026-03-28 05:00:00", next: "2026-03-28 05:00:00",
			want: []tick{
				{events.TickSkipped, events.TickReasonWindow, "2026-03-28 02:00:00", "2026-03-28 04:00:00", 3}, {events.TickFired, "", "2026-03-28 05:00:00", "", 1},
			},
		},
		"a day that is skipped": {
			edits: []edit{{"2026-03-28 05:30:00", hourly + "\nconstraints: {window: 05:00-06:00, skip_dates: [2026-03-29]}"}}, now: "2026-03-30 06:30:00", next: "2026-03-30 05:00:00",
			want: []tick{
				{events.TickSkipped, events.TickReasonWindow, "2026-03-28 06:00:00", "2026-03-28 23:00:00", 18},
				{events.TickSkipped, events.TickReasonSkipDate, "2026-03-29 00:00:00", "2026-03-29 23:00:00", 24},
				{events.TickSkipped, events.TickReasonWindow, "2026-03-30 00:00:00", "2026-03-30 04:00:00", 5},
				{events.TickMissed, events.TickReasonLate, "2026-03-30 05:00:00", "", 1},
				{events.TickSkipped, events.TickReasonWindow, "2026-03-30 06:00:00", "", 1},
			},
		},
		"nothing is caught up while the window is closed": {
			edits: []edit{{"2026-03-28 01:00:00", hourly + "\nconstraints: {window: 02:00-03:00}\ncatch_up_window: 9h"}}, now: "2026-03-28 03:30:00", next: "2026-03-28 02:00:00",
			want: []tick{
				{events.TickMissed, events.TickReasonWindow, "2026-03-28 02:00:00", "", 1}, {events.TickSkipped, events.TickReasonWindow, "2026-03-28 03:00:00", "", 1},
			},
		},
		"as many run as may": {
			edits: []edit{{"2026-03-28 01:00:00", hourly + "\noverlap: allow\nconstraints: {max_concurrent: 2}"}}, now: "2026-03-28 02:00:00", open: 2, next: "2026-03-28 02:00:00",
			want: []tick{{events.TickSkipped, events.TickReasonLimit, "2026-03-28 02:00:00", "", 1}},
		},
		"one more may run": {
			edits: []edit{{"2026-03-28 01:00:00", hourly + "\noverlap: allow\nconstraints: {max_concurrent: 2}"}}, now: "2026-03-28 02:00:00", open: 1, next: "2026-03-28 02:00:00",
			want: []tick{{events.TickFired, "", "2026-03-28 02:00:00", "", 1}},
		},
		"once, on a date": {
			edits: []edit{{"2026-03-28 01:00:00", "when: {calendar: {at: '2026-03-29 02:30'}}\ntz: Europe/Berlin"}}, now: "2026-03-29 01:00:00", next: "2026-03-29 01:00:00",
			want: []tick{{events.TickFired, "", "2026-03-29 01:00:00", "", 1}}, // 02:30 does not exist that day: 03:00 of summer
		},
		"a date that has passed": {edits: []edit{{"2026-03-28 01:00:00", "when: {calendar: {at: '2026-03-28 00:30'}}"}}, now: "2026-03-29 01:00:00"},
		"not active yet":         {edits: []edit{{"2026-03-28 01:00:00", hourly + "\nactive: {from: 2026-03-29}"}}, now: "2026-03-28 23:59:59", next: "2026-03-29 00:00:00"},
		"the agents' own":        {edits: []edit{{"2026-03-28 01:00:00", hourly + "\nruns_on: agent"}}, now: "2026-03-28 09:00:00"},
		"not active any more": {
			edits: []edit{{"2026-03-28 01:00:00", hourly + "\nactive: {until: '2026-03-28T03:00:00Z'}"}}, now: "2026-03-28 09:00:00", next: "2026-03-28 02:00:00",
			want: []tick{{events.TickMissed, events.TickReasonLate, "2026-03-28 02:00:00", "", 1}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory(t)
			h.open = c.open
			for _, e := range c.edits {
				h.now = clock(t, e.at).Add(-time.Second)
				if e.spec == "" {
					h.add(events.ScheduleDeleted{ID: "s"})
				} else {
					h.add(scheduleSaved(t, e.spec))
				}
			}
			h.reload()
			next, _, ok := domain.NextTick(h.state.Schedules["s"], h.state.Local())
			require.Equal(t, c.next != "", ok)
			if ok {
				require.Equal(t, clock(t, c.next), next)
			}
			var got []tick
			for _, x := range h.end(clock(t, c.now), c.busy) {
				k := tick{x.Outcome, x.Reason, x.From.Format(time.DateTime), "", x.Count}
				if x.To != x.From {
					k.to = x.To.Format(time.DateTime)
				}
				got = append(got, k)
			}
			require.Equal(t, c.want, got)
			require.Empty(t, h.end(clock(t, c.now), c.busy), "each ends once")
			require.LessOrEqual(t, len(h.state.Schedules["s"].Versions), 2)
		})
	}
}

// Whatever is edited and whenever somebody looks: every nominal time of every version, asked of the catalog version by
// version, is in the ledger once, as the rules say of the first look after it.
func TestTicksAgainstBruteForce(t *testing.T) {
	specs := []string{
		"when: {cron: '*/20 * * * *'}", "when: {cron: '0 * * * *'}\ncatch_up_window: 10m", "when: {calendar: {at: '02:30'}}\ntz: Europe/Berlin",
		"when: {calendar: {at: '02:30'}}\ntz: local\ncatch_up_window: 2h", "when: {per_pc: {every: 1h}}", "when: {cron: '30 */2 * * *'}\nenabled: false",
		"when: {cron: '*/20 * * * *'}\nenabled: false", "", // the last one deletes
	}
	rapid.Check(t, func(t *rapid.T) {
		h := newHistory(t)
		h.add(events.InstallationSaved{ID: events.InstallationID, Zone: "Europe/Berlin"})
		berlin := h.state.Local()
		type version struct {
			at, until time.Time
			spec      *catalog.Schedule
		}
		var versions []version
		current := func() *catalog.Schedule {
			if n := len(versions); n > 0 && versions[n-1].until.IsZero() {
				return versions[n-1].spec
			}
			return nil
		}
		type ended struct {
			outcome events.TickOutcome
			reason  string
		}
		ledger, want := map[time.Time]ended{}, map[time.Time]ended{}
		now, mark := start.Add(time.Hour), start
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 36_000).Draw(t, "seconds")) * time.Second)
			if rapid.Bool().Draw(t, "edit") {
				h.now = now.Add(-time.Second)
				if n := len(versions); n > 0 && versions[n-1].until.IsZero() {
					versions[n-1].until = now
				}
				if text := rapid.SampledFrom(specs).Draw(t, "spec"); text == "" {
					h.add(events.ScheduleDeleted{ID: "s"})
				} else {
					h.add(scheduleSaved(t, text))
					spec, err := catalog.ParseScheduleDocument(document(t, text))
					require.NoError(t, err)
					versions = append(versions, version{at: now, spec: spec})
				}
				continue
			}
			if h.state.Schedules["s"] == nil {
				continue
			}
			if rapid.Bool().Draw(t, "reload") {
				h.reload()
			}
			busy := rapid.IntRange(0, 3).Draw(t, "busy") == 0
			// What the rules say.
			var newest, open time.Time // open: the newest that its own version does not call too late
			for _, v := range versions {
				for _, at := range v.spec.Between(v.at, now, berlin, 10_000) {
					if !at.After(mark) || !v.until.IsZero() && at.After(v.until) {
						continue
					}
					switch {
					case !v.spec.Enabled:
						want[at] = ended{events.TickSkipped, events.TickReasonDisabled}
					case now.Sub(at) > v.spec.CatchUpLimit():
						want[at] = ended{events.TickMissed, events.TickReasonLate}
					default:
						want[at], open = ended{events.TickMissed, events.TickReasonSuperseded}, at
					}
					newest = at
				}
			}
			if c := current(); !open.IsZero() && c != nil && c.Enabled {
				switch {
				case busy:
					want[open] = ended{events.TickSkipped, events.TickReasonOverlap}
				case now.Sub(open) > domain.OnTime:
					want[open] = ended{events.TickCaughtUp, ""}
				default:
					want[open] = ended{events.TickFired, ""}
				}
			}
			next, _, pending := domain.NextTick(h.state.Schedules["s"], berlin)
			if pending && !next.After(now) {
				require.Contains(t, want, next)
			}
			for at := range want {
				if _, done := ledger[at]; !done && (current() == nil || current().Enabled) {
					require.True(t, pending && !next.After(at), "somebody is woken for %s, not at %s", at, next)
				}
			}
			for _, x := range h.end(now, busy) {
				n := 0
				for _, at := range x.Version.Spec().Between(x.From.Add(-1), x.To, berlin, 10_000) {
					require.NotContains(t, ledger, at)
					ledger[at] = ended{x.Outcome, x.Reason}
					n++
				}
				require.Equal(t, n, x.Count)
				require.True(t, x.Count == 1 || !x.Fires())
			}
			require.Equal(t, want, ledger)
			if !newest.IsZero() {
				mark = newest
			}
			for _, v := range h.state.Schedules["s"].Versions[:max(0, len(h.state.Schedules["s"].Versions)-1)] {
				require.False(t, v.Until.Before(mark), "forgotten when it has no tick left")
			}
		}
	})
}

func TestTicksInPortions(t *testing.T) {
	h := newHistory(t)
	h.add(scheduleSaved(t, "when: {cron: '* * * * * *'}\nenabled: false"))
	begin := h.now
	h.now = h.now.Add(24 * time.Hour)
	h.add(scheduleSaved(t, "when: {cron: '* * * * * *'}"))
	now := h.now.Add(time.Second)
	var facts, count, fired int
	for {
		ticks := h.end(now, false)
		if len(ticks) == 0 {
			break
		}
		for _, x := range ticks {
			require.Equal(t, begin.Add(time.Duration(count+1)*time.Second), x.From)
			facts, count = facts+1, count+x.Count
			if x.Fires() {
				fired++
			}
		}
	}
	require.Equal(t, int(now.Sub(begin)/time.Second), count)
	require.Equal(t, 1, fired)
	require.Equal(t, 3, facts, "two runs of disabled ones, one that fires")
}

func TestFireID(t *testing.T) {
	at := clock(t, "2026-03-28 02:00:00")
	require.Equal(t, events.FireID("s", at), events.FireID("s", at.In(time.FixedZone("x", 3600))))
	require.NotEqual(t, events.FireID("s", at), events.FireID("s", at.Add(1)))
	require.NotEqual(t, events.FireID("s", at), events.FireID("s2", at))
}

// Of ticks that are caught up together no more go out than the limit allows, each counted with the whole of its target.
func TestLimitAmongThoseCaughtUp(t *testing.T) {
	for limit, want := range map[int][]events.TickOutcome{
		3: {events.TickCaughtUp, events.TickCaughtUp, events.TickSkipped},
		1: {events.TickCaughtUp, events.TickSkipped},
		9: {events.TickCaughtUp, events.TickCaughtUp, events.TickCaughtUp},
	} {
		h := newHistory(t)
		for _, pc := range names(2) {
			h.add(events.AgentSeen{PCID: pc})
		}
		h.now = clock(t, "2026-03-28 00:30:00")
		h.add(scheduleSaved(t, fmt.Sprintf("when: {cron: '0 * * * *'}\ncatch_up: all\ncatch_up_window: 6h\noverlap: allow\nconstraints: {max_concurrent: %d}", limit)))
		var got []events.TickOutcome
		for _, x := range h.end(clock(t, "2026-03-28 03:30:00"), false) {
			got = append(got, x.Outcome)
		}
		require.Equal(t, want, got, limit)
	}
}
