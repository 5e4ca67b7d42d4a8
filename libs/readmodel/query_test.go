package readmodel

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/events"
)

var everything = Page{Limit: All}

// recorded reads messages that a kanade 0.43.45 left.
func recorded(t *testing.T, file string) []struct {
	Subject string
	JSON    json.RawMessage
} {
	t.Helper()
	body, err := os.ReadFile(filepath.Join("testdata", "recorded", file))
	require.NoError(t, err)
	var items []struct {
		Subject string
		JSON    json.RawMessage
	}
	require.NoError(t, json.Unmarshal(body, &items))
	return items
}

func TestResultsOfOldAgents(t *testing.T) {
	dir := t.TempDir()
	w, r := open(t, dir), read(t, dir)
	j := &journal{t: t}
	for _, file := range []string{"results.json", "started.json"} { // in an order that happens: two outboxes
		for _, m := range recorded(t, file) {
			j.store(m.Subject, nil, m.JSON)
		}
	}
	poison, err := w.Apply(t.Context(), events.StreamLog, j.messages)
	require.NoError(t, err)
	require.Empty(t, poison)

	first, err := r.Result(t.Context(), "c5662cd4-eb5d-4f21-99b3-bfc75d57d30c")
	require.NoError(t, err)
	require.Equal(t, "1.0.0", first.Version, "only the start tells")
	require.Equal(t, "hello from vm\n", first.Stdout.Text)
	require.Equal(t, events.StateSucceeded, first.State)
	require.Zero(t, *first.ExitCode)
	require.Equal(t, time.Date(2026, 11, 23, 17, 40, 57, 88549309, time.UTC), first.StartedAt)

	all, _, err := r.Results(t.Context(), ResultFilter{Page: everything})
	require.NoError(t, err)
	require.NotEmpty(t, all)
	for i := range all[1:] {
		require.False(t, all[i].StartedAt.Before(all[i+1].StartedAt), "the last started first")
	}
	count := func(f ResultFilter) int {
		t.Helper()
		f.Limit = All
		found, _, err := r.Results(t.Context(), f)
		require.NoError(t, err)
		return len(found)
	}
	skipped := 0
	for i := range all {
		if all[i].State == events.StateSkipped {
			skipped++
		}
	}
	require.Equal(t, len(all), skipped+count(ResultFilter{Status: ResultSuccess})+count(ResultFilter{Status: ResultFailure})+count(ResultFilter{Status: ResultRunning}))
	require.Equal(t, 2, count(ResultFilter{ExecID: regexp.MustCompile("^ed70b3bc"), Stdout: regexp.MustCompile("from vm\n$")}))
	require.Equal(t, len(all), count(ResultFilter{PCID: regexp.MustCompile("01$")})+count(ResultFilter{PCID: regexp.MustCompile("^pc-02")}))
	require.Equal(t, len(all), count(ResultFilter{Since: all[len(all)-1].StartedAt}))
	require.Equal(t, len(all)-1, count(ResultFilter{Since: all[len(all)-1].StartedAt.Add(1)}))
	none, _, err := r.Results(t.Context(), ResultFilter{})
	require.NoError(t, err)
	require.Empty(t, none, "limit 0 is none")
	one, _, err := r.Results(t.Context(), ResultFilter{Page: Page{Limit: 1}})
	require.NoError(t, err)
	require.Equal(t, all[:1], one)

	targets, _, err := r.Targets(t.Context(), TargetFilter{ExecID: first.ExecID, Page: everything})
	require.NoError(t, err)
	require.Empty(t, targets, "of an exec that the log holds no request of")
}

func TestAgents(t *testing.T) {
	dir := t.TempDir()
	w, r := open(t, dir), read(t, dir)
	for i, m := range recorded(t, "heartbeat.json") {
		_, err := w.Apply(t.Context(), events.StreamPresence, []Message{
			{Stream: events.StreamPresence, Subject: m.Subject, Seq: uint64(i + 1), Time: begin.Add(time.Duration(i) * time.Second), Data: m.JSON},
		})
		require.NoError(t, err)
	}
	j := &journal{t: t}
	j.append(events.AgentSeen{PCID: "pc-01", AgentVersion: "0.43.45", Hostname: "Host-01", OSFamily: "linux"}, "service:scheduler")
	j.append(events.AgentSeen{PCID: "pc-99", AgentVersion: "1"}, "service:scheduler")
	j.append(events.AgentGrouped{PCID: "pc-01", Groups: []string{"tokyo", "canary"}}, "user:op")
	j.append(events.AgentGrouped{PCID: "pc-02", Groups: []string{"tokyo"}}, "user:op")
	apply(t, w, j.messages)

	all, _, err := r.Agents(t.Context(), AgentFilter{Page: everything})
	require.NoError(t, err)
	require.Len(t, all, 3, "also the one that only its heartbeat tells of, and the one that was never heard")
	require.Equal(t, "pc-99", all[2].PCID)
	require.True(t, all[2].HeardAt.IsZero())
	require.Nil(t, all[2].RSSBytes)
	require.NotNil(t, all[0].RSSBytes)
	found, _, err := r.Agents(t.Context(), AgentFilter{Query: " HOST-01 ", Page: everything})
	require.NoError(t, err)
	require.Len(t, found, 1)
	require.Equal(t, "pc-01", found[0].PCID)
	none, _, err := r.Agents(t.Context(), AgentFilter{Query: "%", Page: everything})
	require.NoError(t, err)
	require.Empty(t, none)
	_, err = r.Agent(t.Context(), "ghost")
	require.ErrorIs(t, err, ErrNotFound)

	groups, err := r.Groups(t.Context())
	require.NoError(t, err)
	require.Equal(t, []Group{{"canary", []string{"pc-01"}}, {"tokyo", []string{"pc-01", "pc-02"}}}, groups)
	member, err := r.Memberships(t.Context(), "pc-01")
	require.NoError(t, err)
	require.Equal(t, []string{"canary", "tokyo"}, member)
}

func TestLifeOfAnExecution(t *testing.T) {
	dir := t.TempDir()
	w, r := open(t, dir), read(t, dir)
	j := &journal{t: t}
	check := func(status Status, target, success, failure, skip int) Execution {
		t.Helper()
		apply(t, w, j.messages)
		e, err := r.Execution(t.Context(), "e1")
		require.NoError(t, err)
		require.Equal(t, status, e.Status)
		require.Equal(t, []int{target, success, failure, skip}, []int{e.TargetCount, e.SuccessCount, e.FailureCount, e.SkipCount})
		listed, _, err := r.Executions(t.Context(), ExecutionFilter{JobID: "hello", Status: status, Page: Page{Limit: 50}})
		require.NoError(t, err)
		require.Equal(t, []Execution{e}, listed)
		return e
	}
	document := events.DocumentRevision{Document: json.RawMessage(`{}`), SourceType: "yaml"}
	j.append(events.JobSaved{ID: "hello", Version: "1.0.0", DocumentRevision: document}, "user:op")
	j.append(requested("e1", "hello"), "schedule:nightly")
	require.Equal(t, "scheduler", check(StatusPending, 0, 0, 0, 0).InitiatedBy())
	j.append(events.ExecPlanned{
		ExecID: "e1", Waves: []events.PlannedWave{{Expected: []string{"pc-00", "pc-01"}, Waiting: []string{"pc-02"}}},
		Skipped: []events.SkippedPC{{PCID: "pc-03", Reason: events.SkipReasonShell}},
	}, "service:scheduler")
	check(StatusPending, 3, 0, 0, 1)
	job, err := r.Job(t.Context(), "hello")
	require.NoError(t, err)
	require.Equal(t, Live{Pending: 1}, job.Live)
	j.append(events.WaveDispatched{ExecID: "e1"}, "service:scheduler")
	j.append(events.RunReceived{Run: run("e1", 0), ReceivedAt: begin}, "agent:pc-00")
	check(StatusRunning, 3, 0, 0, 1)
	job, err = r.Job(t.Context(), "hello")
	require.NoError(t, err)
	require.Equal(t, Live{Running: 1}, job.Live)
	j.append(finished(run("e1", 0), events.StateSucceeded), "agent:pc-00")
	j.append(finished(run("e1", 1), events.StateTimedOut), "agent:pc-01")
	j.append(finished(run("e1", 7), events.StateSucceeded), "agent:pc-07")
	j.append(events.ExecClosed{ExecID: "e1", Outcome: events.OutcomePartial}, "service:scheduler")
	done := check(StatusCompleted, 3, 2, 1, 1)
	require.Equal(t, events.OutcomePartial, done.Outcome)
	j.append(events.ExecExpired{ExecID: "e1", Outcome: events.OutcomeExpired}, "service:scheduler")
	done = check(StatusCompleted, 3, 2, 1, 1)
	require.Equal(t, events.OutcomePartial, done.Outcome, "the first one stands")

	var states []events.TargetState
	for p := (Page{Limit: 2}); ; {
		page, next, err := r.Targets(t.Context(), TargetFilter{ExecID: "e1", Page: p})
		require.NoError(t, err)
		for _, x := range page {
			states = append(states, x.State)
		}
		if p.After = next; next == "" {
			break
		}
	}
	require.Equal(t, []events.TargetState{
		events.StateSucceeded, events.StateTimedOut, events.StateExpired, events.StateSkipped, events.StateSucceeded,
	}, states)
	results, err := r.ResultsOf(t.Context(), "e1")
	require.NoError(t, err)
	require.Equal(t, []string{"pc-07", "pc-01", "pc-00"}, []string{results[0].PCID, results[1].PCID, results[2].PCID}, "the last recorded first")
	require.Equal(t, Result{
		ResultID: results[0].ResultID, RequestID: results[0].RequestID, ExecID: "e1", PCID: "pc-07", State: events.StateSucceeded,
		ExitCode: results[0].ExitCode, StartedAt: begin.Add(time.Second), FinishedAt: begin.Add(2 * time.Second),
	}, results[0], "without its output")
}

func TestSchedulesAndTicks(t *testing.T) {
	dir := t.TempDir()
	w, r := open(t, dir), read(t, dir)
	j := &journal{t: t}
	for i, id := range []string{"b", "a", "b"} {
		j.append(events.ScheduleSaved{ID: id, JobID: "hello", Enabled: i > 0, DocumentRevision: events.DocumentRevision{Document: json.RawMessage(`{}`)}}, "user:op")
	}
	for h := range 3 {
		at := begin.Add(time.Duration(h) * time.Hour)
		j.append(events.ScheduleTicked{ID: "b", Outcome: events.TickFired, From: at, To: at, Count: 1, Exec: &events.ExecRequested{ExecID: "e"}}, "service:scheduler")
	}
	apply(t, w, j.messages)
	all, _, err := r.Schedules(t.Context(), everything)
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b"}, []string{all[0].ID, all[1].ID}, "the last written last")
	require.True(t, all[1].Enabled)
	ticks, _, err := r.Ticks(t.Context(), "b", Page{Limit: 2})
	require.NoError(t, err)
	require.Len(t, ticks, 2)
	require.Equal(t, begin.Add(2*time.Hour), ticks[0].From, "the newest first")
	require.Equal(t, "e", ticks[0].ExecID)
}

// A run's facts may come in any order and any number: what the row says of the run is the same, once all have come.
func TestResultOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := run("e1", 1)
		start := events.RunFact{Run: r, Kind: events.RunKindStarted, StartedAt: begin}
		end := events.RunFact{
			Run: r, Kind: events.RunKindFinished, State: events.StateFailed, StartedAt: begin, FinishedAt: begin.Add(1), Stderr: events.Output{Text: "x"},
		}
		end.Version = rapid.SampledFrom([]string{"", "1.0.0"}).Draw(t, "an old agent's end has no version")
		lost := end
		lost.State, lost.Stderr = events.StateUnknown, events.Output{}
		facts := []events.RunFact{start, end, lost}
		order := append(rapid.SliceOfN(rapid.IntRange(0, 2), 0, 6).Draw(t, "before"), rapid.Permutation([]int{0, 1, 2}).Draw(t, "all")...)
		var row Result
		for n, i := range order {
			row.apply(&facts[i], uint64(n+1), begin)
		}
		require.Len(t, row.Digest, 32)
		row.Sequence, row.RecordedAt, row.Digest = 0, time.Time{}, ""
		require.Equal(t, Result{
			ResultID: r.ResultID, RequestID: r.RequestID, ExecID: r.ExecID, PCID: r.PCID, JobID: r.JobID, Version: r.Version,
			State: events.StateFailed, StartedAt: begin, FinishedAt: begin.Add(1), Stderr: events.Output{Text: "x"},
		}, row)
	})
}
