package domain_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/events"
	"kanade/services/api/internal/domain"
)

func moment(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

var (
	dawn    = time.Date(2026, 11, 23, 2, 30, 0, 0, time.UTC)
	two     = 2
	request = events.ExecRequested{ExecID: "x", JobID: "hello", Version: "1.0.0", Script: events.Script{TimeoutSecs: 30}}
	run     = events.Run{PCID: "pc", ExecID: "x", RequestID: "q", ResultID: "r"}
)

// planned is a plan of two waves; "pc" is expected in the second one, which change makes what the case needs.
func planned(change func(*events.PlannedWave)) events.ExecPlanned {
	w := events.PlannedWave{DueAt: dawn.Add(time.Hour), Label: "10%", Expected: []string{"b", "pc", "c"}}
	if change != nil {
		change(&w)
	}
	return events.ExecPlanned{
		ExecID: "x", Waves: []events.PlannedWave{{DueAt: dawn, Expected: []string{"a"}}, w},
		DeadlineAt: dawn.Add(24 * time.Hour), ExpiresAt: dawn.Add(25 * time.Hour),
	}
}

func plain() events.ExecPlanned { return planned(nil) }

func away() events.ExecPlanned {
	return planned(func(w *events.PlannedWave) { w.Expected, w.Waiting = []string{"b"}, []string{"pc"} })
}

func budget(p events.ExecPlanned) events.ExecPlanned { p.MaxParallel = &two; return p }

func leftOut(reason string) events.ExecPlanned {
	return events.ExecPlanned{ExecID: "x", Waves: []events.PlannedWave{}, Skipped: []events.SkippedPC{{PCID: "pc", Reason: reason}}}
}

// caseOf makes a case of facts in the order of the log: those of the exec, and those of the endpoint, which become its
// row and its report.
func caseOf(facts ...events.Payload) domain.Case {
	c := domain.Case{ExecID: "x", PCID: "pc"}
	for i, p := range facts {
		add(&c, uint64(i+1), p)
	}
	c.Now = dawn.Add(time.Duration(len(facts)) * time.Minute)
	return c
}

func add(c *domain.Case, seq uint64, p events.Payload) {
	at := dawn.Add(time.Duration(seq) * time.Minute)
	e, err := events.New(p, events.Meta{ID: "1"})
	if err != nil {
		panic(err)
	}
	f, ok, err := events.RunFactOf(e)
	if err != nil {
		panic(err)
	}
	if !ok {
		c.Facts = append(c.Facts, domain.ExecFact{seq, at, "user:op", p})
		return
	}
	c.Target = domain.Explain(*c).Target
	if next, changed := c.Target.Apply(f, seq, at); changed {
		c.Target = next
	}
	if f.Kind != events.RunKindReceived {
		c.Run = &domain.RunReport{StartedAt: f.StartedAt, FinishedAt: f.FinishedAt, Detail: f.Detail, Seq: seq, At: at}
	}
}

func finished(state events.TargetState, code *int, reason string) events.RunFinished {
	return events.RunFinished{Run: run, StartedAt: dawn, FinishedAt: dawn.Add(time.Second), State: state, ExitCode: code, Reason: reason}
}

func skipped(reason, detail string) events.RunSkipped {
	return events.RunSkipped{Run: run, SkippedAt: dawn, Reason: reason, Detail: detail}
}

var (
	released   = events.WaveReleased{ExecID: "x", Wave: 1}
	dispatched = events.WaveDispatched{ExecID: "x", Wave: 1}
	received   = events.RunReceived{Run: run, ReceivedAt: dawn}
	started    = events.RunStarted{Run: run, StartedAt: dawn}
	kill       = events.ExecKilled{ExecID: "x", Reason: "fills the disk"}
	cancel     = events.ExecCancelled{ExecID: "x", Reason: "wrong group"}
	halt       = events.ExecHalted{ExecID: "x", Failed: 3, Allowed: 2}
	closed     = events.ExecClosed{ExecID: "x", Outcome: events.OutcomePartial}
	expired    = events.ExecExpired{ExecID: "x", Outcome: events.OutcomeExpired}
)

type explained struct {
	name    string
	facts   []events.Payload
	state   events.TargetState
	reason  string
	summary string
}

func l(p ...events.Payload) []events.Payload { return p }

func explainedCases() []explained {
	out := func(p ...events.Payload) []events.Payload {
		return append(l(request, plain(), released, dispatched), p...)
	}
	has := func(p ...events.Payload) []events.Payload { return append(out(received), p...) }
	runs := func(p ...events.Payload) []events.Payload { return append(has(started), p...) }
	pause := func(w *events.PlannedWave) { w.Pause = true }
	after := func(w *events.PlannedWave) { w.After = true }
	soak := func(w *events.PlannedWave) { w.After, w.DelaySecs = true, 600 }
	due := func(w *events.PlannedWave) { w.DueAt = dawn }
	zero, three := 0, 3
	notStarted := finished(events.StateFailed, nil, events.ReasonNotStarted)
	notStarted.Detail = "the script could not be started: there is no working directory /data"
	at := func(minute int) string { return moment(dawn.Add(time.Duration(minute) * time.Minute)) }
	clock := "(by its own clock)"
	ran := fmt.Sprintf("from %s to 2026-11-23 02:30:01 UTC %s", at(0), clock)
	return []explained{
		{"nothing is known", nil, "", domain.WhyNotKnown, "The log holds no fact of this exec any more, and the endpoint has said nothing of it."},
		{"requested", l(request), "", domain.WhyNotPlanned, "It is not decided yet who runs it: the exec is not planned."},
		{"stopped before the plan", l(request, cancel), "", domain.WhyNotPlanned, "user:op cancelled the exec at " + at(2) + " (wrong group). It had not been decided who runs it."},
		{"not in the plan", l(request, events.ExecPlanned{ExecID: "x"}), "", domain.WhyNotInPlan, "The plan does not name it: it was not in the target when the exec was planned at " + at(2) + "."},
		{"left out: shell", l(request, leftOut(events.SkipReasonShell)), events.StateSkipped, events.SkipReasonShell, "The plan leaves it out: its agent does not know the shell of the script."},
		{"left out: identity", l(request, leftOut(events.SkipReasonRunAs)), events.StateSkipped, events.SkipReasonRunAs, "The plan leaves it out: its agent can't run a script as the user that the job asks for."},
		{"left out: too old", l(request, leftOut(events.SkipReasonAgentTooOld)), events.StateSkipped, events.SkipReasonAgentTooOld, "The plan leaves it out: its agent is too old for the environment, arguments, input or success codes that the job gives its script."},

		{"due later", l(request, plain()), events.StateExpected, domain.WhyTime, "Wave 1 (10%) goes out at " + at(60) + "."},
		{"due, not released", l(request, planned(due)), events.StateExpected, domain.WhyDispatcher, "Wave 1 (10%) may go out, and is about to be released."},
		{"after the wave before", l(request, planned(after)), events.StateExpected, domain.WhyBefore, "Wave 1 (10%) goes out at the end of wave 0."},
		{"some time after the wave before", l(request, planned(soak)), events.StateExpected, domain.WhyBefore, "Wave 1 (10%) goes out 10m0s after the end of wave 0."},
		{"waits for a person", l(request, planned(pause)), events.StateExpected, domain.WhyRelease, "Wave 1 (10%) waits for an operator to release it."},
		{"advanced", l(request, planned(pause), events.WaveAdvanced{ExecID: "x", Wave: 1}), events.StateExpected, domain.WhyDispatcher, "Wave 1 (10%) may go out, and is about to be released."},
		{"another wave advanced", l(request, planned(pause), events.WaveAdvanced{ExecID: "x", Wave: 0}), events.StateExpected, domain.WhyRelease, "Wave 1 (10%) waits for an operator to release it."},
		{"paused", l(request, plain(), events.ExecPaused{ExecID: "x", Reason: "lunch"}), events.StateExpected, domain.WhyPaused, "Wave 1 (10%) does not go out: user:op paused the exec at " + at(3) + " (lunch)."},
		{"advanced while paused", l(request, plain(), events.ExecPaused{ExecID: "x"}, events.WaveAdvanced{ExecID: "x", Wave: 1}), events.StateExpected, domain.WhyDispatcher, "Wave 1 (10%) may go out, and is about to be released."},
		{"resumed", l(request, plain(), events.ExecPaused{ExecID: "x"}, events.ExecResumed{ExecID: "x"}), events.StateExpected, domain.WhyTime, "Wave 1 (10%) goes out at " + at(60) + "."},
		{"another part is out", l(request, budget(plain()), events.WaveReleased{ExecID: "x", Wave: 1, To: 1}, events.WaveDispatched{ExecID: "x", Wave: 1, To: 1}), events.StateExpected, domain.WhyBudget,
			"At most 2 endpoints may have their command and not have answered, or have failed: of wave 1 (10%) 1 of 3 is out, and it has place 2."},
		{"the budget is used by the wave before", l(request, budget(planned(due))), events.StateExpected, domain.WhyBudget,
			"At most 2 endpoints may have their command and not have answered, or have failed: of wave 1 (10%) 0 of 3 are out, and it has place 2."},
		{"away, and those that are get theirs last", l(request, budget(away()), events.WaveReleased{ExecID: "x", Wave: 1, To: 1}, closed), events.StateWaiting, domain.WhyLast,
			"At most 2 endpoints may have their command at once, so those that were away get theirs when all the others have answered. The endpoint was away when the exec was planned. The exec has ended without it."},
		{"away, due later", l(request, away()), events.StateWaiting, domain.WhyTime, "Wave 1 (10%) goes out at " + at(60) + ". The endpoint was away when the exec was planned."},
		{"released", l(request, plain(), released), events.StateExpected, domain.WhyDispatched, "Wave 1 (10%) was released at " + at(3) + ", and its commands are being stored."},
		{"its part is released", l(request, budget(plain()), events.WaveReleased{ExecID: "x", Wave: 1, From: 1, To: 3}), events.StateExpected, domain.WhyDispatched, "Wave 1 (10%) was released at " + at(3) + ", and its commands are being stored."},
		{"away, its command is out", l(request, away(), released, dispatched), events.StateWaiting, domain.WhyAway, "It was away when the exec was planned. Its command is stored since " + at(4) + ": it runs if it is back before 2026-11-24 02:30:00 UTC."},
		{"sent", out(), events.StateSent, domain.WhySilent, "Its command is stored since " + at(4) + "; the endpoint has not said that it has it. It may begin until 2026-11-24 02:30:00 UTC."},
		{"its part is sent", l(request, budget(plain()), events.WaveReleased{ExecID: "x", Wave: 1, From: 1, To: 3}, events.WaveDispatched{ExecID: "x", Wave: 1, From: 1, To: 3}), events.StateSent, domain.WhySilent,
			"Its command is stored since " + at(4) + "; the endpoint has not said that it has it. It may begin until 2026-11-24 02:30:00 UTC."},

		{"received", has(), events.StateReceived, domain.WhyQueued, "It has the command since " + at(5) + " and has not begun: it waits for its jitter, for a run before it, or for its next attempt."},
		{"received, killed", has(kill), events.StateReceived, domain.WhyStopping, "It has the command since " + at(5) + ". user:op killed the exec at " + at(6) + " (fills the disk). It has not said yet that it does not begin."},
		{"running", runs(), events.StateRunning, domain.WhyRunning, "It runs since " + at(0) + " " + clock + "."},
		{"running, halted", runs(halt), events.StateRunning, domain.WhyRunning, "It runs since " + at(0) + " " + clock + ". The exec was halted at " + at(7) + ": 3 endpoints had failed, 2 were allowed to. What runs goes on."},
		{"running, killed", runs(kill), events.StateRunning, domain.WhyStopping, "It runs since " + at(0) + " " + clock + ". user:op killed the exec at " + at(7) + " (fills the disk). It has not said yet that its script has ended."},

		{"succeeded", runs(finished(events.StateSucceeded, &zero, "")), events.StateSucceeded, "", "It ran " + ran + " and succeeded with exit code 0."},
		{"failed", runs(finished(events.StateFailed, &three, "")), events.StateFailed, "", "It ran " + ran + " and failed with exit code 3."},
		{"not started", runs(notStarted), events.StateFailed, events.ReasonNotStarted,
			"It did not run (the script could not be started: there is no working directory /data). That counts as a failure."},
		{"failed without a code", runs(finished(events.StateFailed, nil, "no such shell")), events.StateFailed, "no such shell", "It ran " + ran + " and failed: no such shell."},
		{"timed out", runs(finished(events.StateTimedOut, nil, "timeout after 30s")), events.StateTimedOut, "timeout after 30s", "It ran " + ran + " and was ended at its time limit of 30s."},
		{"killed", runs(kill, finished(events.StateKilled, nil, "killed")), events.StateKilled, "killed", "It ran " + ran + " and was killed: killed. user:op killed the exec at " + at(7) + " (fills the disk)."},
		{"killed by itself", runs(finished(events.StateKilled, nil, "the agent stopped")), events.StateKilled, "the agent stopped", "It ran " + ran + " and was killed: the agent stopped."},
		{"lost by the agent", runs(finished(events.StateUnknown, nil, "the agent died while it ran")), events.StateUnknown, "the agent died while it ran", "It began " + ran + ", and how it ended is not known: the agent died while it ran. It is not run again."},
		{"began and never ended", runs(expired), events.StateUnknown, domain.WhyNoEnd, "It began since " + at(0) + " " + clock + " and had not said how it ended when the exec expired at " + at(7) + "."},
		{"late", runs(expired, finished(events.StateSucceeded, &zero, "")), events.StateSucceeded, "", "It ran " + ran + " and succeeded with exit code 0. It said so after the exec had ended at " + at(7) + "."},
		{"not in the plan, but ran", l(request, events.ExecPlanned{ExecID: "x"}, finished(events.StateSucceeded, &zero, "")), events.StateSucceeded, "", "It ran " + ran + " and succeeded with exit code 0. The plan does not name it: it is counted apart."},

		{"version", has(skipped(events.SkipReasonVersion, "1.0.1 is current")), events.StateSkipped, events.SkipReasonVersion, "The endpoint did not run it: another version of the job is the current one (1.0.1 is current)."},
		{"deadline", has(skipped(events.SkipReasonDeadline, "")), events.StateSkipped, events.SkipReasonDeadline, "The endpoint did not run it: the time until which it may begin had passed."},
		{"revoked", has(skipped(events.SkipReasonRevoked, "")), events.StateSkipped, events.SkipReasonRevoked, "The endpoint did not run it: the job is revoked."},
		{"stale", has(skipped(events.SkipReasonStale, "")), events.StateSkipped, events.SkipReasonStale, "The endpoint did not run it: it could not make sure that the job is the current one, and what it knows is older than the job allows."},
		{"stopped at the endpoint", has(skipped(events.SkipReasonStopped, "killed")), events.StateSkipped, events.SkipReasonStopped, "The endpoint did not run it: the exec had been stopped, or had expired, before it began (killed)."},
		{"script object", has(skipped(events.SkipReasonScriptObject, "")), events.StateSkipped, events.SkipReasonScriptObject, "The endpoint did not run it: the script object is missing, or is not the one that the command names."},
		{"shell, by the endpoint", has(skipped(events.SkipReasonShell, "")), events.StateSkipped, events.SkipReasonShell, "The endpoint did not run it: its agent does not know the shell of the script."},
		{"a reason of a later version", has(skipped("too_hot", "")), events.StateSkipped, "too_hot", "The endpoint did not run it: too_hot."},
		{"killed before it was out", l(request, plain(), kill), events.StateSkipped, events.SkipReasonKilled, "user:op killed the exec at " + at(3) + " (fills the disk). Its command had not gone out."},
		{"killed in dispatch", l(request, plain(), released, kill, dispatched), events.StateSkipped, events.SkipReasonKilled, "user:op killed the exec at " + at(4) + " (fills the disk). Its command was being stored at that moment, and is taken back."},
		{"cancelled when it was out", out(cancel), events.StateSkipped, events.SkipReasonCancelled, "user:op cancelled the exec at " + at(5) + " (wrong group). Its command was out, and it had not said that it had it; should it have begun, it will say so."},
		{"halted", l(request, away(), halt), events.StateSkipped, events.SkipReasonHalted, "The exec was halted at " + at(3) + ": 3 endpoints had failed, 2 were allowed to. Its command had not gone out."},

		{"never heard", out(expired), events.StateExpired, domain.WhySilent, "Its command was stored at " + at(4) + ", and it had said nothing of it when the exec expired at " + at(5) + "."},
		{"never back", l(request, away(), released, dispatched, closed, expired), events.StateExpired, domain.WhyAway, "It was away when the exec was planned, and had said nothing of its command when the exec expired at " + at(6) + "."},
		{"never begun", has(expired), events.StateExpired, domain.WhyNotBegun, "It had the command and had not said that it began when the exec expired at " + at(6) + "."},
		{"never released", l(request, planned(pause), expired), events.StateExpired, domain.WhyRelease, "The exec expired at " + at(3) + " before its command went out. What held it back: Wave 1 (10%) waits for an operator to release it."},
	}
}

func TestExplain(t *testing.T) {
	for _, x := range explainedCases() {
		t.Run(x.name, func(t *testing.T) {
			e := domain.Explain(caseOf(x.facts...))
			require.Equal(t, x.state, e.Target.State)
			require.Equal(t, x.reason, e.Reason)
			require.Equal(t, x.summary, e.Summary)
			require.True(t, slices.IsSortedFunc(e.Steps, func(a, b domain.Step) int { return int(a.Sequence) - int(b.Sequence) }))
		})
	}
}

// What is known of the endpoint itself says why it is silent, and why a plan does not name it.
func TestExplainPresence(t *testing.T) {
	asked := func(plan string) events.ExecRequested { r := request; r.Plan = []byte(plan); return r }
	sales, all := asked(`{"target":{"groups":["sales"]}}`), asked(`{"target":{"all":true}}`)
	wave := asked(`{"rollout":{"waves":[{"group":"sales"}]}}`)
	nobody := events.ExecPlanned{ExecID: "x"}
	never, away1 := domain.Presence{Groups: []string{"a", "sales"}}, domain.Presence{HeardAt: dawn, Groups: []string{"sales"}}
	there := domain.Presence{HeardAt: dawn, Alive: true}
	for _, x := range []struct {
		facts    []events.Payload
		presence domain.Presence
		says     string
	}{
		{l(request, plain(), released, dispatched), away1, " It may begin until 2026-11-24 02:30:00 UTC. It is away: it was last heard at 2026-11-23 02:30:00 UTC."},
		{l(request, plain(), released, dispatched), there, " It is there: it was last heard at 2026-11-23 02:30:00 UTC."},
		{l(request, away(), released, dispatched), never, ": it runs if it is back before 2026-11-24 02:30:00 UTC. It was never heard."},
		{l(sales, nobody), never, "The plan does not name it: it is in the target by its group 'sales', but it was never heard, and who was never heard runs what names it alone."},
		{l(wave, nobody), never, "by its group 'sales', but it was never heard"},
		{l(all, nobody), never, "by 'all', but it was never heard"},
		{l(sales, nobody), away1, "it is in the target by its group 'sales' now; when the exec was planned at 2026-11-23 02:32:00 UTC it was not, or had not been heard yet."},
		{l(sales, nobody), there, "it was not in the target when"},
		{l(request, nobody), never, "it was not in the target when"},
	} {
		c := caseOf(x.facts...)
		c.Presence = &x.presence
		require.Contains(t, domain.Explain(c).Summary, x.says)
	}
	one := events.ExecHalted{ExecID: "x", Failed: 2, Allowed: 1}
	require.Contains(t, domain.Explain(caseOf(request, plain(), one)).Summary, "2 endpoints had failed, 1 was allowed to.")
}

// What has only a row: the log has let go of the exec's facts.
func TestExplainWithoutFacts(t *testing.T) {
	for _, state := range events.TargetStates() {
		e := domain.Explain(domain.Case{ExecID: "x", PCID: "pc", Target: events.Target{State: state, Planned: true, ResultID: "r", Sequence: 9, At: dawn}})
		require.Equal(t, state, e.Target.State)
		require.NotEmpty(t, e.Summary, state)
	}
}

// Every state, every Why and every reason for a skip has a case, and no two states or reasons share a sentence.
func TestExplainKnowsEverything(t *testing.T) {
	states, reasons, sentences := map[events.TargetState]bool{}, map[string]bool{}, map[string]string{}
	for _, x := range explainedCases() {
		states[x.state], reasons[x.reason] = true, true
		key := string(x.state) + "/" + x.reason
		if other, ok := sentences[x.summary]; ok {
			require.Equal(t, other, key, x.summary)
		}
		sentences[x.summary] = key
	}
	for _, state := range events.TargetStates() {
		require.True(t, states[state], state)
	}
	for _, reason := range append(stringConstants(t, "explain.go", "Why"), stringConstants(t, "../../../../libs/events/run.go", "SkipReason")...) {
		require.True(t, reasons[reason], reason)
	}
	for _, reason := range stringConstants(t, "../../../../libs/events/exec.go", "SkipReason") {
		require.True(t, reasons[reason], reason)
	}
}

// stringConstants are the values of a file's string constants whose names begin with prefix.
func stringConstants(t *testing.T, path, prefix string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	require.NoError(t, err)
	var values []string
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, prefix) {
			return true
		}
		if text, ok := spec.Values[0].(*ast.BasicLit); ok && text.Kind == token.STRING {
			value, err := strconv.Unquote(text.Value)
			require.NoError(t, err)
			values = append(values, value)
		}
		return true
	})
	require.NotEmpty(t, values, path)
	return values
}

// Who asked stands in the first sentence: the schedule at its tick, or an operator in its place.
func TestExplainWhoAskedForSchedules(t *testing.T) {
	nominal := dawn.Add(-time.Minute)
	tick := request
	tick.ScheduleID, tick.Nominal = "nightly", &nominal
	c := caseOf(tick)
	c.Facts[0].Actor = "schedule:nightly"
	require.Equal(t, "Schedule nightly asked for job hello 1.0.0 to be run at its tick of 2026-11-23 02:29:00 UTC.", domain.Explain(c).Steps[0].Text)
	tick.Nominal = nil
	require.Equal(t, "user:op asked for job hello 1.0.0 to be run as schedule nightly runs it.", domain.Explain(caseOf(tick)).Steps[0].Text)
}

func TestExplainSteps(t *testing.T) {
	nominal := dawn.Add(-time.Minute)
	tick := request
	tick.ScheduleID, tick.Nominal, tick.RetryOf = "nightly", &nominal, "w"
	e := domain.Explain(caseOf(
		tick, budget(planned(func(w *events.PlannedWave) { w.Pause = true })), events.WaveReleased{ExecID: "x"}, events.WaveDispatched{ExecID: "x"},
		events.ExecPaused{ExecID: "x"}, events.ExecResumed{ExecID: "x", Reason: "back"}, events.WaveAdvanced{ExecID: "x", Wave: 1, Reason: "looks good"},
		events.WaveReleased{ExecID: "x", Wave: 1, To: 1}, events.WaveDispatched{ExecID: "x", Wave: 1, To: 1},
		events.WaveReleased{ExecID: "x", Wave: 1, From: 1, To: 3}, events.WaveDispatched{ExecID: "x", Wave: 1, From: 1, To: 3},
		received, started, closed, expired,
	))
	var told []string
	for _, s := range e.Steps {
		told = append(told, fmt.Sprintf("%d %s %s", s.Sequence, s.Fact, s.Text))
	}
	require.Equal(t, []string{
		"1 exec.requested.v1 user:op asked for job hello 1.0.0 to be run as schedule nightly runs it, in the place of its tick of 2026-11-23 02:29:00 UTC. It tries endpoints of exec w again.",
		"2 exec.planned.v1 The plan has the endpoint in wave 1 (10%) and waits for it.",
		"5 exec.paused.v1 user:op paused the exec: no further wave goes out.",
		"6 exec.resumed.v1 user:op resumed the exec (back).",
		"7 exec.wave-advanced.v1 user:op let wave 1 (10%) go out at once (looks good).",
		"10 exec.wave-released.v1 Release of places 2 to 3 of wave 1 (10%): its commands may go out.",
		"11 exec.wave-dispatched.v1 The commands of places 2 to 3 of wave 1 (10%) are stored: the endpoint gets its own as soon as it is connected.",
		"13 run.started.v1 The endpoint began.",
		"14 exec.closed.v1 Nobody is waited for any more: the exec has ended as partial.",
		"15 exec.expired.v1 The time of the exec was up: nobody who is still silent is waited for any more.",
	}, told)
}

// Whether the row is ahead of the facts or behind them, the state is that of all facts in the order of the log.
func TestExplainOverlaysTheRow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := []events.Payload{request, rapid.SampledFrom([]events.ExecPlanned{plain(), away(), leftOut(events.SkipReasonShell), {ExecID: "x"}}).Draw(t, "plan")}
		all = append(all, rapid.SliceOfN(rapid.SampledFrom([]events.Payload{
			released, dispatched, received, started, finished(events.StateFailed, nil, "bad"), skipped(events.SkipReasonRevoked, ""),
			kill, cancel, halt, closed, expired, events.ExecPaused{ExecID: "x"},
		}), 0, 8).Draw(t, "facts")...)
		whole, rows := caseOf(all...), []events.Target{{}}
		for n := range all { // the row after each fact
			c := caseOf(all[:n+1]...)
			rows = append(rows, domain.Explain(c).Target)
		}
		last := rows[len(rows)-1]
		require.Equal(t, last, domain.Explain(whole).Target)
		// A row that is behind lacks facts of the exec at the end, none of the endpoint.
		for n := len(all); n > 0; n-- {
			whole.Target = rows[n]
			require.Equal(t, last, domain.Explain(whole).Target, "row as of %d", n)
			if e, err := events.New(all[n-1], events.Meta{ID: "1"}); err != nil || e.Aggregate() == events.AggregateRun {
				break
			}
		}
	})
}
