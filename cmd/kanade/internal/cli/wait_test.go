package cli

import (
	"bytes"
	"encoding/json"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/client"
	"kanade/libs/events"
)

var nine = time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC)

// tale feeds payloads to a follower as the stream would, a second apart.
func tale(t *testing.T, payloads ...events.Payload) (f *follower, lines string, more bool) {
	t.Helper()
	var out bytes.Buffer
	f = &follower{lines: &out, targets: map[string]events.Target{}}
	more = true
	for i, p := range payloads {
		data, err := json.Marshal(p)
		require.NoError(t, err)
		require.True(t, more, "nothing follows the end")
		more, err = f.apply(client.Event{
			Sequence: uint64(i + 10), Time: nine.Add(time.Duration(i) * time.Second), Type: p.EventType(), Subject: p.AggregateID(), Data: data,
		}, data)
		require.NoError(t, err)
	}
	return f, regexp.MustCompile(`(?m)^\d\d:\d\d:\d\d\.000  `).ReplaceAllString(out.String(), ""), more
}

func planned(expected, waiting []string) events.ExecPlanned {
	return events.ExecPlanned{ExecID: "e1", Waves: []events.PlannedWave{{Expected: expected, Waiting: waiting}}}
}

func run(pc string) events.Run {
	return events.Run{PCID: pc, ExecID: "e1", RequestID: "r1", ResultID: "result-" + pc, JobID: "hello", Version: "1"}
}

func finished(pc string, code int) events.RunFinished {
	state := events.StateSucceeded
	if code != 0 {
		state = events.StateFailed
	}
	return events.RunFinished{Run: run(pc), State: state, ExitCode: &code}
}

func closed(outcome events.Outcome, expected map[events.TargetState]int) events.ExecClosed {
	return events.ExecClosed{ExecID: "e1", Outcome: outcome, Totals: events.Totals{Expected: expected}}
}

func TestFollowerTellsEveryStepOnce(t *testing.T) {
	f, lines, more := tale(t,
		planned([]string{"pc-01", "pc-02"}, []string{"pc-03"}), events.WaveReleased{ExecID: "e1"},
		events.RunReceived{Run: run("pc-01")}, events.RunStarted{Run: run("pc-01")}, events.RunReceived{Run: run("pc-01")},
		finished("pc-01", 0), finished("pc-02", 3), finished("pc-02", 3),
		events.RunSkipped{Run: run("pc-04"), Reason: "revoked\x1b[2J"},
		closed(events.OutcomePartial, map[events.TargetState]int{events.StateSucceeded: 1, events.StateFailed: 1}),
	)
	require.False(t, more)
	require.Equal(t, `planned: 2 expected; others: 1 waiting
pc-01             received
pc-01             running
pc-01             succeeded (exit 0)
pc-02             failed (exit 3)
pc-04             skipped: revoked[2J
`, lines)
	require.Equal(t, uint64(19), f.last)
	require.Equal(t, "partial: 1 succeeded, 1 failed", f.summary(time.Minute))
	require.Equal(t, exitSome, f.exitCode())
}

func TestFollowerExitCode(t *testing.T) {
	one := planned([]string{"pc-01"}, nil)
	two := planned([]string{"pc-01", "pc-02"}, nil)
	tests := []struct {
		name string
		tale []events.Payload
		code int
		says string
	}{
		{"all succeeded", []events.Payload{one, finished("pc-01", 0), closed("succeeded", map[events.TargetState]int{"succeeded": 1})},
			0, "succeeded: 1 succeeded"},
		{"all failed", []events.Payload{one, finished("pc-01", 1), closed("failed", map[events.TargetState]int{"failed": 1})},
			2, "failed: 1 failed"},
		{"skipped by the endpoint", []events.Payload{one, events.RunSkipped{Run: run("pc-01")}, closed("failed", map[events.TargetState]int{"skipped": 1})},
			2, "failed: 1 skipped"},
		{"nobody planned yet", nil, 3, "nobody answered within 1m0s (nobody expected)"},
		{"silence", []events.Payload{one, events.RunStarted{Run: run("pc-01")}}, 3, "nobody answered within 1m0s (1 running)"},
		{"one of two", []events.Payload{two, finished("pc-01", 0)}, 2, "not all answered within 1m0s (1 expected, 1 succeeded)"},
		{"all answered, not closed", []events.Payload{two, finished("pc-01", 0), finished("pc-02", 0)}, 0, "succeeded: 2 succeeded"},
		{"expired in silence", []events.Payload{one, events.ExecExpired{ExecID: "e1", Outcome: "expired", Totals: events.Totals{Expected: map[events.TargetState]int{"expired": 1}}}},
			3, "expired: 1 expired"},
		{"no target", []events.Payload{events.ExecClosed{ExecID: "e1", Outcome: "failed", Reason: events.ReasonNoTarget}},
			3, "failed: the target names no known endpoint; `kanade agent list` shows which there are"},
		{"left out by the plan", []events.Payload{
			events.ExecPlanned{ExecID: "e1", Skipped: []events.SkippedPC{{PCID: "pc-01", Reason: "shell_not_supported"}}},
			events.ExecClosed{ExecID: "e1", Outcome: "failed", Totals: events.Totals{Others: map[events.TargetState]int{"skipped": 1}}},
		}, 3, "failed: nobody expected; others: 1 skipped"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f, _, _ := tale(t, test.tale...)
			require.Equal(t, test.code, f.exitCode())
			require.Equal(t, test.says, f.summary(time.Minute))
		})
	}
}

// A stop is no end: what runs has its say, and the outcome is that of the first stop.
func TestFollowerGoesOnAfterAStop(t *testing.T) {
	two := events.ExecPlanned{ExecID: "e1", Waves: []events.PlannedWave{
		{Label: "1 endpoints", Expected: []string{"pc-01"}}, {Label: "rest", Expected: []string{"pc-02"}, Waiting: []string{"pc-03"}},
	}}
	f, lines, more := tale(t,
		two, events.WaveReleased{ExecID: "e1"}, events.RunStarted{Run: run("pc-01")}, events.ExecPaused{ExecID: "e1", Reason: "lunch"},
		events.ExecHalted{ExecID: "e1", Failed: 2, Allowed: 1}, events.ExecKilled{ExecID: "e1", Reason: "fills\nthe disk"},
	)
	require.True(t, more)
	require.Equal(t, `planned: 2 expected; others: 1 waiting, in 2 waves
wave 0 (1 endpoints) goes out
pc-01             running
paused by (lunch)
halted: 2 endpoints have failed
killed by (fills the disk)
`, lines)
	require.Equal(t, "halted; not all answered within 1m0s (1 running, 1 skipped; others: 1 skipped)", f.summary(time.Minute))
	require.Equal(t, exitSome, f.exitCode())

	f, _, more = tale(t, two, events.RunStarted{Run: run("pc-01")}, events.ExecKilled{ExecID: "e1"}, events.RunFinished{Run: run("pc-01"), State: events.StateKilled},
		closed(events.OutcomeKilled, map[events.TargetState]int{events.StateSkipped: 1, events.StateKilled: 1}))
	require.False(t, more)
	require.Equal(t, "killed: 1 skipped, 1 killed", f.summary(time.Minute))
}

// What can't be read is no endpoint's step, and a fact that nobody knows yet ends nothing.
func TestFollowerPassesOverWhatItDoesNotKnow(t *testing.T) {
	f := &follower{lines: new(bytes.Buffer), targets: map[string]events.Target{}}
	for kind, data := range map[string]string{"kanade.exec.moved.v1": `{"exec_id":"e1"}`, "kanade.run.finished.v1": "{"} {
		more, err := f.apply(client.Event{Sequence: 1, Type: kind, Subject: "e1", Data: []byte(data)}, nil)
		require.NoError(t, err)
		require.True(t, more)
	}
}

// Of an exec that is older than the history one fact may be all there is.
func TestFollowerOfAReducedExec(t *testing.T) {
	totals := events.Totals{Expected: map[events.TargetState]int{events.StateSucceeded: 2, events.StateExpired: 1}}
	f, _, more := tale(t, events.ExecReduced{ExecID: "e1", ExecSummary: events.ExecSummary{Outcome: events.OutcomePartial}, Totals: totals})
	require.False(t, more)
	got, outcome := f.result()
	require.Equal(t, events.OutcomePartial, outcome)
	require.True(t, totals.Equal(got))
}
