package domain_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/events"
	"kanade/services/scheduler/internal/domain"
)

func reduction(t tester, at time.Time, facts ...events.Payload) *domain.Reduction {
	t.Helper()
	r := &domain.Reduction{}
	for i, p := range facts {
		e, err := events.New(p, events.Meta{ID: fmt.Sprint(i), Time: at, Actor: "user:op"})
		require.NoError(t, err)
		r.Apply(&e, p, uint64(i+10), at)
		at = at.Add(time.Minute)
	}
	return r
}

func TestReduce(t *testing.T) {
	due := domain.DueAt(retain, start)
	old := due.History.Add(-time.Second)
	said := func(n int) events.Totals {
		return events.Totals{Expected: map[events.TargetState]int{events.StateSucceeded: n}}
	}
	requested := events.ExecRequested{ExecID: "x", JobID: "j", ScheduleID: "s"}
	planned := events.ExecPlanned{ExecID: "x", Waves: []events.PlannedWave{{Expected: []string{"a", "b"}}, {Waiting: []string{"c"}}}}
	facts := []events.Payload{
		requested, planned, events.ExecClosed{ExecID: "x", Outcome: events.OutcomeSucceeded, Totals: said(1)},
		events.ExecCorrected{ExecID: "x", Totals: said(2)}, events.ExecExpired{ExecID: "x", Outcome: events.OutcomeSucceeded, Totals: said(3)},
	}
	got, ok := reduction(t, old, facts...).Reduce("x", due)
	require.True(t, ok)
	require.Equal(t, said(3), got.Totals)
	require.Equal(t, "x", got.ExecID)
	require.Equal(t, []any{"j", "s", events.Actor("user:op"), uint64(10), 3, 2, events.OutcomeSucceeded, uint64(12)},
		[]any{got.JobID, got.ScheduleID, got.Actor, got.Sequence, got.TargetCount, got.Waves, got.Outcome, got.EndedSequence})
	require.Equal(t, []time.Time{old, old.Add(4 * time.Minute)}, []time.Time{got.InitiatedAt, got.ExpiredAt})

	none := func(at time.Time, facts ...events.Payload) {
		t.Helper()
		_, ok := reduction(t, at, facts...).Reduce("x", due)
		require.False(t, ok)
	}
	none(due.History, facts...)                                               // not older than the history
	none(old, facts[:4]...)                                                   // somebody may still wait for it
	none(old, append(facts, events.ExecReduced{ExecID: "x"})...)              // it has been
	none(old, facts[1:]...)                                                   // nobody knows how old it is
	none(old, events.ExecReduced{ExecID: "x", Totals: said(1)})               // there is nothing else any more
	none(old, events.ExecKilled{ExecID: "x"}, events.ExecHalted{ExecID: "x"}) // nobody asked for it
}

// While the fold counts an exec, a recount from the log comes to the same, whatever came twice and in whatever order.
func TestRecountIsTheFold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, r := newHistory(t), &domain.Recount{}
		pcs := names(6)
		add := func(p events.Payload) {
			h.add(p)
			e, err := events.New(p, events.Meta{ID: "1"})
			require.NoError(t, err)
			if f, ok, err := events.RunFactOf(e); ok {
				require.NoError(t, err)
				r.Run(f, h.seq, h.now)
			} else {
				r.Apply(p, h.seq, h.now)
			}
		}
		add(events.ExecRequested{ExecID: "x"})
		planned := events.ExecPlanned{ExecID: "x", ExpiresAt: start.Add(day), Waves: []events.PlannedWave{
			{Expected: pcs[:2], Waiting: pcs[2:3]}, {Expected: pcs[3:4]},
		}, Skipped: []events.SkippedPC{{PCID: pcs[4], Reason: "r"}}}
		three := 3
		if rapid.Bool().Draw(t, "parts") {
			planned.MaxParallel = &three
		}
		add(planned)
		for range rapid.IntRange(0, 40).Draw(t, "facts") {
			switch rapid.IntRange(0, 9).Draw(t, "kind") {
			case 0:
				add(events.WaveDispatched{ExecID: "x", Wave: rapid.IntRange(0, 1).Draw(t, "wave")})
			case 1:
				add(waveFact(t, "x"))
			case 2:
				add(rapid.SampledFrom([]events.Payload{events.ExecKilled{ExecID: "x"}, events.ExecCancelled{ExecID: "x"}, events.ExecHalted{ExecID: "x"}}).Draw(t, "stop"))
			default:
				add(runFact(t, []string{"x"}, pcs))
			}
			require.Equal(t, clean(h.state.Execs["x"].Totals), clean(r.Totals()))
		}
		expired := domain.Expire(h.state.Execs["x"], h.now)
		add(expired)
		require.Equal(t, clean(expired.Totals), clean(r.Totals()))
		before := r.Totals()
		add(events.RunFinished{Run: events.Run{PCID: "late", ExecID: "x", ResultID: "r"}, State: events.StateSucceeded})
		require.Equal(t, before.Others[events.StateSucceeded]+1, r.Totals().Others[events.StateSucceeded], "what comes after the expiry counts")
	})
}

// clean is totals without the difference between none and nothing.
func clean(t events.Totals) string { return fmt.Sprint(t.Expected, t.Others) }

// The plan may come behind an endpoint's answer, where a log was restored that lacks the first one.
func TestRecountOfAnAnswerBeforeThePlan(t *testing.T) {
	r := &domain.Recount{}
	r.Run(events.RunFact{Run: events.Run{PCID: "a", ResultID: "r"}, Kind: events.RunKindFinished, State: events.StateFailed}, 1, start)
	require.Equal(t, 1, r.Totals().Others[events.StateFailed])
	plan := events.ExecPlanned{ExecID: "x", Waves: []events.PlannedWave{{Expected: []string{"a", "b"}}}}
	r.Apply(plan, 2, start)
	r.Apply(plan, 3, start)
	require.Equal(t, events.Totals{Expected: map[events.TargetState]int{events.StateFailed: 1, events.StateExpected: 1}, Others: map[events.TargetState]int{}}, r.Totals())
}

// What endpoints say of an exec and the fold does not count is noted until the exec is reduced; what agents draw ids for
// themselves is not.
func TestLateAnswersAreNoted(t *testing.T) {
	const drawn, old, ours = "8b86c84d-8db9-4b0a-b0a9-6a5d7563750e", "5f0e1b57-96c1-4b5e-8a0c-1a6d0d7f8f11", "0199b3a0-96c1-7b5e-8a0c-1a6d0d7f8f11"
	h := newHistory(t)
	say := func(exec, pc string) {
		h.add(events.RunFinished{Run: events.Run{PCID: pc, ExecID: exec, ResultID: exec + pc}, State: events.StateSucceeded})
	}
	noted := func(execs ...string) {
		t.Helper()
		require.Len(t, h.state.Late, len(execs))
		for _, x := range execs {
			require.Contains(t, h.state.Late, x)
		}
	}
	say(drawn, "a")
	say("", "a")
	noted()
	for _, x := range []string{old, ours} {
		h.add(events.ExecRequested{ExecID: x}, events.ExecPlanned{ExecID: x, Waves: []events.PlannedWave{{Expected: []string{"a", "b"}}}}, events.WaveDispatched{ExecID: x})
		say(x, "a")
		noted()
		h.add(events.ExecExpired{ExecID: x})
	}
	say(old, "b")
	say(ours, "b")
	noted(old, ours)
	since := h.state.Late[old]
	h.reload()
	say(old, "b")
	require.Equal(t, since, h.state.Late[old])
	h.add(events.ExecReduced{ExecID: old}, events.ExecReduced{ExecID: ours})
	noted()
	require.Empty(t, h.state.Foreign)
	say(old, "c")
	noted()

	// Whoever joins in after everybody has answered is unknown to the fold, which has forgotten who belongs to it.
	h.add(events.ExecRequested{ExecID: "z"}, events.ExecPlanned{ExecID: "z", Waves: []events.PlannedWave{{Expected: []string{"a"}}}}, events.WaveDispatched{ExecID: "z"})
	say("z", "a")
	h.add(events.ExecClosed{ExecID: "z", Outcome: events.OutcomeSucceeded})
	noted()
	say("z", "joined")
	noted("z")

	// One that can't be reduced is dropped when none of its facts had to be in the log any more when a day began before.
	clock := func(after time.Duration) {
		h.now = h.now.Add(after)
		h.add(events.ClockTicked{ID: events.ClockID, Day: domain.DayOf(h.now)})
	}
	clock(retain.History)
	noted("z")
	clock(events.Slack + time.Hour)
	noted("z")
	clock(2 * day)
	clock(day)
	noted()
}

// Of a reduced exec nothing but that may be left in the log, and a fold that begins there knows no such exec.
func TestFoldOfAReducedExec(t *testing.T) {
	h := newHistory(t)
	h.add(events.ExecReduced{ExecID: "x"}, events.ExecKilled{ExecID: "x"})
	require.Empty(t, h.state.Execs)
}
