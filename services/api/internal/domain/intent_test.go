package domain

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

// TestIntentsAreRepeatable: whatever the exec has been through, an intent that makes a fact is, asked for again, answered
// with that fact; what is refused stays refused; and no intent follows the expiry.
func TestIntentsAreRepeatable(t *testing.T) {
	const id = "e"
	one := 1
	intents := map[string]func(Exec) (Intent, error){
		"kill":    func(x Exec) (Intent, error) { return KillExec(x, id, "r") },
		"cancel":  func(x Exec) (Intent, error) { return CancelExec(x, id, "r") },
		"pause":   func(x Exec) (Intent, error) { return PauseExec(x, id, "r") },
		"resume":  func(x Exec) (Intent, error) { return ResumeExec(x, id, "r") },
		"release": func(x Exec) (Intent, error) { return AdvanceExec(x, id, &one, "r") },
	}
	facts := []events.Payload{
		events.ExecPlanned{ExecID: id, Waves: make([]events.PlannedWave, 3)}, events.WaveReleased{ExecID: id}, events.WaveReleased{ExecID: id, Wave: 7},
		events.WaveAdvanced{ExecID: id, Wave: 1}, events.WaveDispatched{ExecID: id}, events.ExecPaused{ExecID: id}, events.ExecResumed{ExecID: id},
		events.ExecKilled{ExecID: id}, events.ExecCancelled{ExecID: id}, events.ExecHalted{ExecID: id}, events.ExecClosed{ExecID: id}, events.ExecExpired{ExecID: id},
	}
	rapid.Check(t, func(rt *rapid.T) {
		var x Exec
		seq := uint64(5)
		x.Apply(events.ExecRequested{ExecID: id}, seq)
		for _, p := range rapid.SliceOfN(rapid.SampledFrom(facts), 0, 6).Draw(rt, "facts") {
			seq++
			x.Apply(p, seq)
		}
		name := rapid.SampledFrom([]string{"kill", "cancel", "pause", "resume", "release"}).Draw(rt, "intent")
		first, err := intents[name](x)
		if err != nil {
			var refused *Refusal
			require.ErrorAs(rt, err, &refused)
			return
		}
		want := first.Sequence
		if first.Fact != nil {
			require.Zero(rt, x.expired, "something follows the expiry")
			seq++
			x.Apply(first.Fact, seq)
			want = seq
		}
		again, err := intents[name](x)
		require.NoError(rt, err)
		require.Equal(rt, Intent{Sequence: want}, again)
	})
	for name, intent := range intents {
		_, err := intent(Exec{})
		var refused *Refusal
		require.ErrorAs(t, err, &refused, name)
		require.Equal(t, NotFound, refused.Code)
	}
}

func TestRetryTakes(t *testing.T) {
	skipped := func(reason, result string) events.Target {
		return events.Target{State: events.StateSkipped, Reason: reason, ResultID: result}
	}
	for name, x := range map[string]struct {
		target events.Target
		any    bool
	}{
		"failed":            {events.Target{State: events.StateFailed}, true},
		"expired":           {events.Target{State: events.StateExpired}, true},
		"succeeded":         {events.Target{State: events.StateSucceeded}, false},
		"running":           {events.Target{State: events.StateRunning}, false},
		"stopped":           {skipped(events.SkipReasonKilled, ""), true},
		"endpoint's skip":   {skipped(events.SkipReasonVersion, "r"), true},
		"left out":          {skipped(events.SkipReasonShell, ""), false},
		"left out, too old": {skipped(events.SkipReasonAgentTooOld, ""), false},
	} {
		require.Equal(t, x.any, Retry{}.Takes(x.target), name)
		require.Equal(t, x.target.State == events.StateSkipped, Retry{States: []events.TargetState{events.StateSkipped}}.Takes(x.target), name)
	}
	_, err := Retry{}.Plan(events.ExecRequested{ExecID: "e", Plan: []byte(`{"target":{"all":true}}`)}, make([]string, catalog.MaxPlanPCs+1))
	require.Error(t, err)
}
