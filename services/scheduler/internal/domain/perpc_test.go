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
	t *testing.T
}

func newInterval(t *testing.T, pcs ...string) *interval {
	h := &interval{newHistory(t), t}
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
	req := events.ExecRequested{ExecID: domain.FireID("s", minute), Plan: plan, ScheduleID: "s", Nominal: &minute}
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
	require.Empty(t, h.due(first.Add(9*time.Minute))[1:], "only b, which was never fired")
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
