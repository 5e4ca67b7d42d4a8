package events

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func fact(kind RunKind, state TargetState, result string) RunFact {
	return RunFact{Run: Run{ResultID: result}, Kind: kind, State: state}
}

func TestTargetLifecycle(t *testing.T) {
	target := Target{State: StateExpected, Expected: true, Planned: true}
	steps := []struct {
		f    RunFact
		want TargetState
		move bool
	}{
		{fact(RunKindReceived, "", "r1"), StateReceived, true},
		{fact(RunKindReceived, "", "r1"), StateReceived, false},
		{fact(RunKindStarted, "", "r1"), StateRunning, true},
		{fact(RunKindReceived, "", "r1"), StateRunning, false},
		{fact(RunKindFinished, StateUnknown, "r1"), StateUnknown, true},
		{fact(RunKindStarted, "", "r1"), StateUnknown, false},
		{fact(RunKindFinished, StateFailed, "r1"), StateFailed, true},
		{fact(RunKindFinished, StateSucceeded, "r2"), StateFailed, false},
	}
	for i, s := range steps {
		next, moved := target.Apply(s.f, uint64(i+1), sampleTime)
		require.Equal(t, s.want, next.State, "step %d", i)
		require.Equal(t, s.move, moved, "step %d", i)
		target = next
	}
}

func TestTargetLateAnswerOverrulesSilence(t *testing.T) {
	expired, moved := Target{State: StateSent, Expected: true}.Expire(9, sampleTime)
	require.True(t, moved)
	require.Equal(t, StateExpired, expired.State)
	late, moved := expired.Apply(fact(RunKindFinished, StateSucceeded, "r"), 10, sampleTime)
	require.True(t, moved)
	require.Equal(t, StateSucceeded, late.State)
	running, _ := Target{State: StateSent}.Apply(fact(RunKindStarted, "", "r"), 1, sampleTime)
	lost, _ := running.Expire(2, sampleTime)
	require.Equal(t, StateUnknown, lost.State)
}

// However a run's facts are repeated and whatever order they come in, the end is the same as soon as the end is among
// them; and a state never moves backward.
func TestTargetOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		end := rapid.SampledFrom([]TargetState{StateSucceeded, StateFailed, StateTimedOut, StateKilled}).Draw(t, "end")
		facts := []RunFact{fact(RunKindReceived, "", "r"), fact(RunKindStarted, "", "r"), fact(RunKindFinished, end, "r")}
		order := rapid.SliceOfN(rapid.IntRange(0, 2), 1, 12).Draw(t, "order")
		target, finished := Target{State: StateSent, Expected: true, Planned: true}, false
		for i, n := range order {
			before := target.State.rank()
			target, _ = target.Apply(facts[n], uint64(i+1), sampleTime)
			if target.State.rank() < before {
				t.Fatalf("moved back to %s", target.State)
			}
			finished = finished || n == 2
			if finished && target.State != end {
				t.Fatalf("%s after the end %s", target.State, end)
			}
		}
	})
}

func TestOutcome(t *testing.T) {
	var totals Totals
	require.Equal(t, OutcomeFailed, totals.Outcome())
	totals.Add(Target{State: StateSucceeded, Expected: true})
	require.Equal(t, OutcomeSucceeded, totals.Outcome())
	totals.Add(Target{State: StateFailed})
	require.Equal(t, OutcomeSucceeded, totals.Outcome(), "others do not count beside expected ones")
	totals.Add(Target{State: StateSkipped, Expected: true})
	require.Equal(t, OutcomePartial, totals.Outcome())
	totals.Add(Target{State: StateRunning, Expected: true})
	require.Equal(t, 1, totals.Open())
	require.Equal(t, 3, totals.ExpectedCount())
}
