package readmodel

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

func TestWaves(t *testing.T) {
	dir := t.TempDir()
	w, r := open(t, dir), read(t, dir)
	j := &journal{t: t}
	three, later := 3, begin.Add(3*time.Hour)
	execution := func() Execution {
		t.Helper()
		apply(t, w, j.messages)
		e, err := r.Execution(t.Context(), "e1")
		require.NoError(t, err)
		return e
	}
	states := func(want ...WaveState) []Wave {
		t.Helper()
		e := execution()
		waves, err := r.Waves(t.Context(), "e1")
		require.NoError(t, err)
		have := make([]WaveState, len(waves))
		for i := range waves {
			have[i] = waves[i].State(&e)
		}
		require.Equal(t, want, have)
		return waves
	}
	request := requested("e1", "hello")
	request.RetryOf = "e0"
	j.append(request, "user:op")
	require.Empty(t, states([]WaveState{}...))
	j.append(events.ExecPlanned{ExecID: "e1", MaxParallel: &three, ExpiresAt: begin.Add(time.Hour), Waves: []events.PlannedWave{
		{DueAt: begin, Label: "3 named", Expected: []string{"pc-00", "pc-01", "pc-02"}, Waiting: []string{"pc-03"}},
		{DueAt: begin, After: true, DelaySecs: 60, Expected: []string{"pc-04"}},
		{DueAt: begin.Add(time.Minute), Pause: true, Expected: []string{"pc-05"}},
	}, Skipped: []events.SkippedPC{{PCID: "pc-06", Reason: events.SkipReasonShell}}}, "service:scheduler")
	waves := states(WavePending, WavePending, WavePaused)
	require.Equal(t, Wave{
		ExecID: "e1", Label: "3 named", DueAt: begin, Size: 4,
		Totals: events.Totals{Expected: map[events.TargetState]int{events.StateExpected: 3}, Others: map[events.TargetState]int{events.StateWaiting: 1}},
	}, waves[0], "whom the plan leaves out is in no wave")
	require.True(t, waves[1].After)
	require.EqualValues(t, 60, waves[1].DelaySecs)

	j.append(events.WaveReleased{ExecID: "e1", From: 0, To: 2}, "service:scheduler")
	states(WaveReleasing, WavePending, WavePaused)
	j.append(events.WaveDispatched{ExecID: "e1", From: 0, To: 2}, "service:scheduler")
	waves = states(WaveReleasing, WavePending, WavePaused)
	require.Equal(t, []int{2, 2}, []int{waves[0].Released, waves[0].Dispatched})
	require.Equal(t, map[events.TargetState]int{events.StateSent: 2, events.StateExpected: 1}, waves[0].Totals.Expected, "only the part")
	j.append(events.ExecPaused{ExecID: "e1", Reason: "lunch"}, "user:op")
	states(WavePaused, WavePaused, WavePaused)
	require.True(t, execution().Paused)
	j.append(events.ExecResumed{ExecID: "e1"}, "user:op")
	require.False(t, execution().Paused)
	j.append(events.WaveReleased{ExecID: "e1", From: 2, To: 4, ExpiresAt: &later}, "service:scheduler")
	require.Equal(t, later, execution().ExpiresAt)
	j.append(events.WaveDispatched{ExecID: "e1", From: 2, To: 4}, "service:scheduler")
	states(WaveSent, WavePending, WavePaused)
	for pc := range 3 {
		j.append(finished(run("e1", pc), events.StateSucceeded), "agent:pc")
	}
	j.append(events.WaveAdvanced{ExecID: "e1", Wave: 2, Reason: "looks good"}, "user:op")
	waves = states(WaveDone, WavePending, WavePending)
	require.Equal(t, "looks good", waves[2].Advance.Reason)
	require.EqualValues(t, "user:op", waves[2].Advance.Actor)
	e := execution()
	require.Equal(t, []any{3, 1, "e0"}, []any{e.Waves, e.Released, e.RetryOf})

	j.append(events.ExecHalted{ExecID: "e1", Failed: 1}, "service:scheduler")
	states(WaveDone, WaveStopped, WaveStopped)
	e = execution()
	require.Equal(t, StatusRunning, e.Status)
	require.Zero(t, e.EndedSequence, "what runs goes on")
	require.Equal(t, events.ExecStop{By: events.OutcomeHalted, Actor: "service:scheduler", At: e.Stop.At, Sequence: uint64(len(j.messages))}, e.Stop)
	j.append(events.ExecCancelled{ExecID: "e1"}, "user:op")
	require.Equal(t, events.OutcomeHalted, execution().Stop.By, "the first one counts")
	j.append(events.ExecKilled{ExecID: "e1", Reason: "fills the disk"}, "user:op")
	e = execution()
	require.Equal(t, events.OutcomeKilled, e.Stop.By, "a kill reaches what a halt lets go on")
	require.Equal(t, "fills the disk", e.Stop.Reason)
	require.Equal(t, events.OutcomeHalted, e.Outcome)
	x, err := r.Target(t.Context(), "e1", "pc-04")
	require.NoError(t, err)
	require.Equal(t, []any{events.StateSkipped, events.SkipReasonHalted}, []any{x.State, x.Reason})
	_, err = r.Target(t.Context(), "e1", "pc-99")
	require.ErrorIs(t, err, ErrNotFound)
	j.append(events.ExecClosed{ExecID: "e1", Outcome: events.OutcomeHalted}, "service:scheduler")
	require.EqualValues(t, len(j.messages), execution().EndedSequence)
	j.append(finished(run("e1", 4), events.StateSucceeded), "agent:pc")
	apply(t, w, j.messages)
	x, err = r.Target(t.Context(), "e1", "pc-04")
	require.NoError(t, err)
	require.Equal(t, events.StateSucceeded, x.State, "what the endpoint itself says holds")
}

// The states that the life above does not pass.
func TestWaveState(t *testing.T) {
	sent := Wave{Size: 2, Released: 2, Dispatched: 2, ReleasedAt: begin, DispatchedAt: begin}
	of := func(w Wave, expected, others events.TargetState) Wave {
		for state, into := range map[events.TargetState]*map[events.TargetState]int{expected: &w.Totals.Expected, others: &w.Totals.Others} {
			if state != "" {
				*into = map[events.TargetState]int{state: 1}
			}
		}
		return w
	}
	parts := sent
	parts.Dispatched, parts.Released = 1, 1
	for _, x := range []struct {
		what string
		wave Wave
		exec Execution
		want WaveState
	}{
		{"nobody to wait for, somebody is away", of(sent, "", events.StateWaiting), Execution{}, WaveSent},
		{"nobody to wait for, all have answered", of(sent, "", events.StateSucceeded), Execution{}, WaveDone},
		{"nobody in it", Wave{ReleasedAt: begin, DispatchedAt: begin}, Execution{}, WaveDone},
		{"out before the stop", of(sent, events.StateRunning, ""), Execution{ExecSummary: events.ExecSummary{Stop: events.ExecStop{By: events.OutcomeCancelled}}}, WaveSent},
		{"expired before it went out", Wave{Size: 1}, Execution{ExecSummary: events.ExecSummary{ExpiredAt: begin}}, WaveStopped},
		{"whom it waited for have answered, others were not out", of(parts, events.StateFailed, events.StateWaiting), Execution{ExecSummary: events.ExecSummary{ExpiredAt: begin}}, WaveDone},
		{"whom it waited for have answered, others are still to come", of(parts, events.StateFailed, events.StateWaiting), Execution{ExecSummary: events.ExecSummary{ClosedAt: begin}}, WaveReleasing},
		{"expired in the middle of its parts", Wave{Size: 2, Released: 1, Dispatched: 1, ReleasedAt: begin, DispatchedAt: begin, Totals: events.Totals{
			Expected: map[events.TargetState]int{events.StateExpired: 2}}}, Execution{ExecSummary: events.ExecSummary{ExpiredAt: begin}}, WaveStopped},
		{"a pause does not hold what an operator advanced", Wave{Size: 2, Pause: true, Advance: Advance{At: begin}}, Execution{Paused: true}, WavePending},
		{"halted in the middle of its parts", of(parts, events.StateExpired, ""), Execution{ExecSummary: events.ExecSummary{ClosedAt: begin, Stop: events.ExecStop{By: events.OutcomeHalted}}}, WaveStopped},
		{"a pause does not hold what is being stored", Wave{Size: 2, Released: 2, ReleasedAt: begin}, Execution{Paused: true}, WaveReleasing},
	} {
		require.Equal(t, x.want, x.wave.State(&x.exec), x.what)
	}
}
