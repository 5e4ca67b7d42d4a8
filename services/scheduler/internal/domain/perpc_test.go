package domain_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/scheduler/internal/domain"
)

// interval is a history of a schedule that fires every ten minutes, and a fleet.
type interval struct {
	*history
	t       *testing.T
	version string // of the job that is fired
}

func newInterval(t *testing.T, pcs ...string) *interval {
	h := &interval{history: newHistory(t), t: t}
	h.add(scheduleSaved(t, "when: {per_pc: {every: 10m}}"))
	for _, pc := range pcs {
		h.add(events.AgentSeen{PCID: pc, AgentVersion: "1.0.0"})
	}
	return h
}

func (h *interval) schedule() *domain.Schedule { return h.state.Schedules["s"] }

// hear lets endpoints be alive at an instant.
func (h *interval) hear(at time.Time, pcs ...string) {
	for _, pc := range pcs {
		h.state.Heard(pc, at, at)
	}
}

func (h *interval) due(minute time.Time) []string {
	return domain.DuePCs(h.schedule(), h.state.Fleet, h.state.Jobs, minute, h.state.Present(h.schedule(), minute))
}

// fire stores the tick of a minute and its exec.
func (h *interval) fire(minute time.Time, pcs ...string) string {
	h.t.Helper()
	plan, err := (&catalog.Plan{Target: catalog.Target{PCs: pcs}}).Document()
	require.NoError(h.t, err)
	req := events.ExecRequested{ExecID: events.FireID("s", minute), Version: h.version, Plan: plan, ScheduleID: "s", Nominal: &minute}
	h.now = minute
	h.add(events.ScheduleTicked{ID: "s", Outcome: events.TickFired, From: minute, To: minute, Count: 1, Exec: &req})
	h.add(req, events.ExecPlanned{ExecID: req.ExecID, Waves: []events.PlannedWave{{Expected: pcs}}}, events.WaveDispatched{ExecID: req.ExecID})
	return req.ExecID
}

func (h *interval) finish(exec, pc string, state events.TargetState) {
	h.add(events.RunFinished{Run: events.Run{PCID: pc, ExecID: exec, ResultID: pc + exec}, State: state})
}

// progress stores what is pending.
func (h *interval) progress() {
	p := events.ScheduleProgressed{ID: "s"}
	for _, x := range h.schedule().Pending {
		p.Changes = append(p.Changes, x)
	}
	h.add(p)
}

func TestInterval(t *testing.T) {
	h := newInterval(t, "a", "b")
	first := start.Add(5 * time.Minute)
	_, ok := domain.NextMinute(h.schedule(), h.state.Fleet, h.state.Jobs, h.state.Present(h.schedule(), first))
	require.False(t, ok, "nobody is alive")
	h.hear(first, "a")
	require.Equal(t, []string{"a"}, h.due(first))
	next, ok := domain.NextMinute(h.schedule(), h.state.Fleet, h.state.Jobs, h.state.Present(h.schedule(), first))
	require.True(t, ok)
	require.Equal(t, first.Add(time.Minute), next, "always a later minute")
	next, _ = domain.NextMinute(h.schedule(), h.state.Fleet, h.state.Jobs, h.state.Present(h.schedule(), first.Add(-time.Nanosecond)))
	require.Equal(t, first, next)

	exec := h.fire(first, "a")
	h.reload()
	h.hear(first.Add(time.Minute), "a")
	require.Empty(t, h.due(first), "that minute is in the ledger")
	require.Empty(t, h.due(first.Add(time.Minute)), "a run is open")
	_, ok = domain.NextMinute(h.schedule(), h.state.Fleet, h.state.Jobs, h.state.Present(h.schedule(), first))
	require.False(t, ok)

	h.finish(exec, "a", events.StateSucceeded)
	require.Empty(t, h.due(first.Add(time.Minute)), "not before the log knows")
	require.Len(t, h.schedule().Pending, 1)
	h.progress()
	require.Empty(t, h.schedule().Pending)
	h.reload()
	next, ok = domain.NextMinute(h.schedule(), h.state.Fleet, h.state.Jobs, h.state.Present(h.schedule(), first.Add(time.Minute)))
	require.True(t, ok)
	require.Equal(t, first.Add(10*time.Minute), next, "an interval after the nominal time of the success")
	h.hear(first.Add(10*time.Minute), "a", "b")
	require.Empty(t, h.due(first.Add(9 * time.Minute))[1:], "only b, which was never fired")
	require.Equal(t, []string{"a", "b"}, h.due(first.Add(10*time.Minute)))
}

func TestIntervalBacksOff(t *testing.T) {
	h := newInterval(t, "a")
	minute := start.Add(5 * time.Minute)
	for failures := 1; failures <= 12; failures++ {
		h.hear(minute, "a")
		require.Equal(t, []string{"a"}, h.due(minute))
		exec := h.fire(minute, "a")
		h.finish(exec, "a", []events.TargetState{events.StateFailed, events.StateTimedOut, events.StateUnknown}[failures%3])
		h.progress()
		require.Equal(t, failures, h.schedule().Progress["a"].Failures)
		h.hear(h.now, "a")
		next, ok := domain.NextMinute(h.schedule(), h.state.Fleet, h.state.Jobs, h.state.Present(h.schedule(), h.now))
		require.True(t, ok)
		wait := domain.Backoff(failures)
		require.False(t, next.Before(h.now.Add(wait-2*time.Second)))
		require.True(t, next.Before(h.now.Add(wait+time.Minute)))
		h.hear(next.Add(-time.Minute), "a")
		require.Empty(t, h.due(next.Add(-time.Minute)))
		minute = next
	}
	h.hear(minute, "a")
	exec := h.fire(minute, "a")
	h.finish(exec, "a", events.StateSucceeded)
	h.progress()
	p := h.schedule().Progress["a"]
	require.Zero(t, p.Failures)
	require.Nil(t, p.NotBefore)
	require.Equal(t, minute, *p.Succeeded)
}

func TestBackoff(t *testing.T) {
	require.Equal(t, time.Minute, domain.Backoff(0))
	require.Equal(t, time.Minute, domain.Backoff(1))
	require.Equal(t, 2*time.Minute, domain.Backoff(2))
	require.Equal(t, 256*time.Minute, domain.Backoff(9))
	require.Equal(t, 6*time.Hour, domain.Backoff(10))
	require.Equal(t, 6*time.Hour, domain.Backoff(1<<40))
}

// What was settled for lack of an answer and is answered before the log holds it is what the answer says.
func TestProgressFollowsACorrection(t *testing.T) {
	h := newInterval(t, "a")
	minute := start.Add(5 * time.Minute)
	exec := h.fire(minute, "a")
	h.finish(exec, "a", events.StateUnknown)
	stale := h.schedule().Pending["a"]
	h.finish(exec, "a", events.StateSucceeded)
	h.add(events.ScheduleProgressed{ID: "s", Changes: []events.Progress{stale}}) // decided before the correction
	require.Equal(t, 1, h.schedule().Progress["a"].Failures)
	require.Len(t, h.schedule().Pending, 1, "the correction is still to be told")
	h.progress()
	require.Empty(t, h.schedule().Pending)
	require.Zero(t, h.schedule().Progress["a"].Failures)
}

func TestProgressOfNobodyIsNoPanic(t *testing.T) {
	h := newInterval(t, "a")
	exec := h.fire(start.Add(5*time.Minute), "a")
	h.finish(exec, "a", events.StateFailed)
	h.add(events.ScheduleProgressed{ID: "s", Changes: []events.Progress{{PCID: "a"}, {}}})
	require.Len(t, h.schedule().Pending, 1)
	require.Equal(t, exec, h.schedule().Progress["a"].ExecID, "the fire is later than that")
}

func TestIntervalAndExpiry(t *testing.T) {
	h := newInterval(t, "a", "b")
	minute := start.Add(5 * time.Minute)
	exec := h.fire(minute, "a", "b")
	h.finish(exec, "b", events.StateSucceeded)
	h.add(events.ExecExpired{ExecID: exec})
	require.Len(t, h.schedule().Pending, 2)
	h.progress()
	require.Equal(t, 1, h.schedule().Progress["a"].Failures, "no answer by the expiry is a failure")
	require.Zero(t, h.schedule().Progress["b"].Failures)
}

func TestIntervalForgetsWithItsSchedule(t *testing.T) {
	h := newInterval(t, "a")
	minute := start.Add(5 * time.Minute)
	exec := h.fire(minute, "a")
	h.add(events.ScheduleDeleted{ID: "s"})
	h.finish(exec, "a", events.StateSucceeded)
	require.Empty(t, h.schedule().Pending)
	h.add(scheduleSaved(t, "when: {per_pc: {every: 10m}}"))
	h.hear(h.now, "a")
	require.Empty(t, h.due(h.now.Truncate(time.Minute)), "the minute began before it was saved")
	require.Equal(t, []string{"a"}, h.due(h.now.Truncate(time.Minute).Add(time.Minute)))
}

func TestIntervalGates(t *testing.T) {
	h := newInterval(t, "a", "b")
	minute := start.Add(5 * time.Minute)
	h.hear(minute, "a", "b")
	h.add(scheduleSaved(t, "when: {per_pc: {every: 10m}}\nenabled: false"))
	require.Empty(t, h.due(minute))
	_, ok := domain.NextMinute(h.schedule(), h.state.Fleet, h.state.Jobs, h.state.Present(h.schedule(), minute))
	require.False(t, ok)
	s, err := catalog.ParseSchedule([]byte("id: s\njob_id: job\ntarget: {groups: [g]}\nwhen: {per_pc: {every: 10m}}"), catalog.YAML)
	require.NoError(t, err)
	doc, err := s.Document()
	require.NoError(t, err)
	h.add(events.ScheduleSaved{ID: "s", DocumentRevision: events.DocumentRevision{Document: doc}}, events.AgentGrouped{PCID: "b", Groups: []string{"g"}})
	require.Equal(t, []string{"b"}, h.due(minute))
}

func newCadence(t *testing.T, spec string, pcs ...string) *interval {
	h := &interval{history: newHistory(t), t: t}
	h.add(events.JobSaved{ID: "job", Version: "1"}, scheduleSaved(t, spec))
	for _, pc := range pcs {
		h.add(events.AgentSeen{PCID: pc, AgentVersion: "1.0.0"})
	}
	return h
}

// at lets the endpoints be alive at a minute, and lists who is due.
func (h *interval) at(minute time.Time, pcs ...string) []string {
	h.hear(minute, pcs...)
	return h.due(minute)
}

// look is the next minute after one.
func (h *interval) look(minute time.Time) (time.Time, bool) {
	return domain.NextMinute(h.schedule(), h.state.Fleet, h.state.Jobs, h.state.Present(h.schedule(), minute))
}

// Once is once for the life of the schedule: edits, results that are forgotten and restarts change nothing; a failure is
// tried again after its back-off.
func TestOnce(t *testing.T) {
	h := newCadence(t, "when: {per_pc: once}", "a", "b")
	minute := start.Add(5 * time.Minute)
	require.Equal(t, []string{"a", "b"}, h.at(minute, "a", "b"))
	exec := h.fire(minute, "a", "b")
	h.finish(exec, "a", events.StateSucceeded)
	h.finish(exec, "b", events.StateFailed)
	h.progress()
	h.reload()
	later := minute.Add(10 * time.Minute)
	require.Equal(t, []string{"b"}, h.at(later, "a", "b"))
	exec = h.fire(later, "b")
	h.finish(exec, "b", events.StateSucceeded)
	h.progress()
	h.add(scheduleSaved(t, "when: {per_pc: once}\njitter: 1m"), events.JobSaved{ID: "job", Version: "2"})
	require.Empty(t, h.at(later.AddDate(2, 0, 0), "a", "b"))
	_, ok := h.look(later.AddDate(2, 0, 0))
	require.False(t, ok)
	h.add(events.AgentSeen{PCID: "c", AgentVersion: "1.0.0"})
	require.Equal(t, []string{"c"}, h.at(later.AddDate(2, 0, 1), "a", "b", "c"), "one that joins")
	h.add(events.ScheduleDeleted{ID: "s"}, scheduleSaved(t, "when: {per_pc: once}"))
	require.Equal(t, []string{"a", "b", "c"}, h.at(later.AddDate(2, 0, 2), "a", "b", "c"), "another life")
}

func TestOncePerVersion(t *testing.T) {
	h := newCadence(t, "when: {per_pc: once_per_version}", "a")
	minute := start.Add(5 * time.Minute)
	fire := func(version string) {
		t.Helper()
		require.Equal(t, []string{"a"}, h.at(minute, "a"))
		h.version = version
		h.finish(h.fire(minute, "a"), "a", events.StateSucceeded)
		h.progress()
		h.reload()
		minute = minute.Add(time.Hour)
		require.Empty(t, h.at(minute, "a"), version)
	}
	fire("1")
	h.add(events.JobSaved{ID: "job", Version: "2"})
	require.Contains(t, h.state.Touched.Schedules, "s")
	fire("2")
	h.add(events.JobSaved{ID: "job", Version: "2"})
	require.Empty(t, h.at(minute, "a"), "saved again under the same version")
	h.add(events.JobSaved{ID: "job", Version: "1"})
	fire("1")
	h.add(events.JobDeleted{ID: "job"})
	require.Empty(t, h.at(minute, "a"), "there is nothing to run")
}

// The target fires as one, when somebody in it is alive, and has succeeded when anybody has.
func TestPerTarget(t *testing.T) {
	h := newCadence(t, "when: {per_target: {every: 1h}}", "a", "b")
	minute := start.Add(5 * time.Minute)
	require.Empty(t, h.due(minute), "nobody is alive")
	require.Equal(t, []string{""}, h.at(minute, "b"))
	exec := h.fire(minute, "a", "b")
	h.reload()
	require.Empty(t, h.at(minute.Add(2*time.Hour), "a", "b"), "it has not ended")
	h.finish(exec, "a", events.StateFailed)
	require.Empty(t, h.schedule().Pending)
	h.finish(exec, "b", events.StateSucceeded)
	h.add(events.ExecClosed{ExecID: exec, Outcome: events.OutcomePartial, Totals: events.Totals{Expected: map[events.TargetState]int{events.StateSucceeded: 1, events.StateFailed: 1}}})
	h.progress()
	h.reload()
	require.Empty(t, h.at(minute.Add(59*time.Minute), "a"))
	next, ok := h.look(minute.Add(58 * time.Minute))
	require.True(t, ok)
	require.Equal(t, minute.Add(time.Hour), next)
	minute = minute.Add(time.Hour)
	require.Equal(t, []string{""}, h.at(minute, "a"))
	exec = h.fire(minute, "a", "b")
	h.add(events.ExecExpired{ExecID: exec, Totals: events.Totals{Expected: map[events.TargetState]int{events.StateExpired: 2}}})
	h.progress()
	require.Equal(t, 1, h.schedule().Progress[""].Failures)
	require.Equal(t, []string{""}, h.at(h.now.Add(2*time.Minute).Truncate(time.Minute), "a"), "after its back-off")

	h = newCadence(t, "when: {per_target: once}", "a")
	require.Equal(t, []string{""}, h.at(minute, "a"))
	exec = h.fire(minute, "a")
	h.add(events.ExecClosed{ExecID: exec, Totals: events.Totals{Expected: map[events.TargetState]int{events.StateSucceeded: 1}}})
	h.progress()
	require.Empty(t, h.at(minute.AddDate(1, 0, 0), "a"))
}

// A closed gate makes no tick; the next look is when it opens.
func TestIntervalsWaitForTheirGates(t *testing.T) {
	h := newCadence(t, "when: {per_pc: once}\nconstraints: {window: 22:00-05:00, skip_dates: [2026-03-28]}\ncalendars: [holidays]", "a")
	doc := func(days string) events.DocumentRevision {
		c, err := catalog.ParseDayCalendar([]byte("id: holidays\ndays: ["+days+"]\n"), catalog.YAML)
		require.NoError(t, err)
		d, err := c.Document()
		require.NoError(t, err)
		return events.DocumentRevision{Document: d}
	}
	h.add(events.CalendarSaved{ID: events.CalendarID("holidays"), Calendar: "holidays", DocumentRevision: doc("2026-03-29")})
	minute := start.Add(12 * time.Hour)
	require.Empty(t, h.at(minute, "a"))
	next, ok := h.look(minute)
	require.True(t, ok)
	require.Equal(t, clock(t, "2026-03-30 00:00:00"), next)
	h.reload()
	h.add(events.FreezeSaved{ID: events.FleetID, Until: "2026-03-30T06:00:00Z", TZ: "utc"})
	next, ok = h.look(minute)
	require.True(t, ok)
	require.Equal(t, clock(t, "2026-03-30 22:00:00"), next, "when the freeze ends the window is closed")
	h.add(events.FreezeCleared{ID: events.FleetID}, events.CalendarDeleted{ID: events.CalendarID("holidays"), Calendar: "holidays"})
	require.Contains(t, h.state.Touched.Schedules, "s")
	next, ok = h.look(minute)
	require.True(t, ok)
	require.Equal(t, clock(t, "2026-03-29 00:00:00"), next)
	require.Equal(t, []string{"a"}, h.at(next, "a"))
}

// As many are fired as may run at once, those that have waited longest first; what is dispatched counts, started or not.
func TestMaxConcurrent(t *testing.T) {
	h := newCadence(t, "when: {per_pc: {every: 10m}}\nconstraints: {max_concurrent: 2}", "a", "b", "c")
	minute := start.Add(5 * time.Minute)
	require.Equal(t, []string{"a", "b"}, h.at(minute, "a", "b", "c"))
	exec := h.fire(minute, "a", "b")
	require.Empty(t, h.at(minute.Add(time.Minute), "a", "b", "c"))
	_, ok := h.look(minute.Add(time.Minute))
	require.False(t, ok, "what ends asks again")
	h.finish(exec, "a", events.StateSucceeded)
	h.progress()
	require.Equal(t, []string{"c"}, h.at(minute.Add(20*time.Minute), "a", "b", "c"), "a is due as well, and has waited less")
}

// What can't be fired is not tried every minute.
func TestAnIntervalThatCannotFireBacksOff(t *testing.T) {
	h := newCadence(t, "when: {per_pc: once}", "a")
	minute := start.Add(5 * time.Minute)
	for n, wait := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute} {
		h.hear(minute, "a")
		h.now = minute
		h.add(events.ScheduleTicked{ID: "s", Outcome: events.TickSkipped, Reason: events.TickReasonJobUnfit, From: minute, To: minute, Count: 1})
		h.reload()
		next, ok := h.look(minute)
		require.True(t, ok)
		require.Equal(t, minute.Add(wait), next, n)
		minute = next
	}
	require.Equal(t, []string{"a"}, h.at(minute, "a"))
	h.finish(h.fire(minute, "a"), "a", events.StateSucceeded)
	require.Zero(t, h.schedule().Held)
}

// What waits for its turn is looked at when that comes, under another generation than its own time had.
func TestLookOfAQueue(t *testing.T) {
	h := newHistory(t)
	h.add(scheduleSaved(t, "when: {cron: '0 * * * *'}\noverlap: queue"))
	s := h.state.Schedules["s"]
	look := func(now string, busy bool) (time.Time, string, bool) {
		p := h.state.Present(s, clock(t, now))
		p.Busy = busy
		return s.Look(nil, nil, p)
	}
	at, own, ok := look("2026-03-28 00:30:00", true)
	require.True(t, ok)
	require.Equal(t, clock(t, "2026-03-28 01:00:00"), at)
	_, _, ok = look("2026-03-28 01:00:00", true)
	require.False(t, ok)
	at, generation, ok := look("2026-03-28 01:20:00", false)
	require.True(t, ok)
	require.Equal(t, clock(t, "2026-03-28 01:00:00"), at)
	require.NotEqual(t, own, generation)
}

func TestDeadline(t *testing.T) {
	const keep = 7 * 24 * time.Hour
	at := clock(t, "2026-03-28 02:00:00")
	for spec, want := range map[string]string{
		"when: {cron: '0 * * * *'}":                                                         "2026-03-28 03:00:00",
		"when: {cron: '0 * * * *'}\nstarting_deadline: 10m":                                 "2026-03-28 02:10:00",
		"when: {cron: '0 * * * *'}\nstarting_deadline: 2h":                                  "2026-03-28 03:00:00",
		"when: {per_pc: {every: 6h}}":                                                       "2026-03-28 08:00:00",
		"when: {per_target: {every: 6h}}\nstarting_deadline: 1h":                            "2026-03-28 03:00:00",
		"when: {per_pc: once}":                                                              "2026-04-04 02:00:00",
		"when: {calendar: {at: '2026-03-28 02:00'}}":                                        "2026-04-04 02:00:00",
		"when: {cron: '0 * * * *'}\nactive: {until: '2026-03-28T03:00:00Z'}":                "2026-04-04 02:00:00",
		"when: {calendar: {at: '02:00'}}\ntz: utc\nconstraints: {skip_dates: [2026-03-29]}": "2026-03-29 02:00:00",
	} {
		s, err := catalog.ParseScheduleDocument(document(t, spec))
		require.NoError(t, err)
		require.Equal(t, clock(t, want), domain.Deadline(s, domain.Tick{Outcome: events.TickFired, To: at}, at.Add(time.Minute), time.UTC, keep), spec)
	}
	s, err := catalog.ParseScheduleDocument(document(t, "when: {cron: '0 * * * *'}"))
	require.NoError(t, err)
	late := domain.Tick{Outcome: events.TickCaughtUp, To: at}
	require.Equal(t, at.Add(3*time.Hour), domain.Deadline(s, late, at.Add(150*time.Minute), time.UTC, keep), "one that is late can still start")
}

// What an operator runs in the place of a schedule is none of its fires: it remembers nothing of it.
func TestExecByHandLeavesProgressAlone(t *testing.T) {
	h := newInterval(t, "a")
	first := start.Add(5 * time.Minute)
	h.hear(first, "a")
	exec := h.fire(first, "a")
	before := h.schedule().Progress["a"]
	require.Equal(t, exec, before.ExecID)

	plan, err := (&catalog.Plan{Target: catalog.Target{PCs: []string{"a"}}}).Document()
	require.NoError(t, err)
	h.add(
		events.ExecRequested{ExecID: "by-hand", Plan: plan, ScheduleID: "s"},
		events.ExecPlanned{ExecID: "by-hand", Waves: []events.PlannedWave{{Expected: []string{"a"}}}}, events.WaveDispatched{ExecID: "by-hand"},
	)
	h.add(events.RunStarted{Run: events.Run{PCID: "a", ExecID: "by-hand", ResultID: "r"}})
	require.True(t, h.state.Present(h.schedule(), first).Busy, "overlap asks for whatever runs")
	h.finish("by-hand", "a", events.StateFailed)
	require.Equal(t, before, h.schedule().Progress["a"])
	require.Empty(t, h.schedule().Pending)

	h.finish(exec, "a", events.StateSucceeded)
	require.Equal(t, first, *h.schedule().Pending["a"].Succeeded)
	require.Zero(t, h.schedule().Pending["a"].Failures)
}
