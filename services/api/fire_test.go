package api

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

func TestRunScheduleNow(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	for _, pc := range []string{"pc-1", "pc-2"} {
		s.endpoint(pc)
	}
	s.schedule("nightly", "when: {calendar: {at: \"02:30\"}}\njitter: 5m\non_failure: {retry: {max: 2, backoff: 1s}}\nstarting_deadline: 1h\nenabled: false\n")
	s.write(http.MethodPut, "/api/freeze", `{}`)
	const path = "/api/schedules/nightly/run-now"
	var e execAnswer
	s.write(http.MethodPost, path, `{"reason":"why not"}`, "Idempotency-Key", "k").into(t, &e)
	require.Equal(t, 2, e.TargetCount)
	require.Equal(t, []string{"commands.all"}, e.Subjects)
	p := s.requested(e.Sequence)
	require.Equal(t, "nightly", p.ScheduleID)
	require.Nil(t, p.Nominal)
	require.Nil(t, p.DeadlineAt)
	require.Equal(t, "why not", p.Reason)
	require.Equal(t, &events.Retry{Max: 2, BackoffSecs: 1}, p.Retry)
	plan, err := catalog.ParsePlanDocument(p.Plan)
	require.NoError(t, err)
	require.Equal(t, "5m", string(*plan.Jitter))

	var again execAnswer
	s.write(http.MethodPost, path, `{"reason":"why not"}`, "Idempotency-Key", "k").into(t, &again)
	require.Equal(t, e, again)
	require.Equal(t, http.StatusUnprocessableEntity, s.do(http.MethodPost, path, `{"reason":"other"}`, "Idempotency-Key", "k").status)

	var x struct{ Execution map[string]any }
	s.read("/api/executions/"+e.ExecID).into(t, &x)
	require.Equal(t, "operator", x.Execution["initiated_by"])
	require.Equal(t, "nightly", x.Execution["schedule_id"])

	var one execAnswer
	s.write(http.MethodPost, path, `{"pcs":["pc-2","pc-2"]}`).into(t, &one)
	require.Equal(t, 1, one.TargetCount)
	require.Equal(t, []string{"commands.pc.pc-2"}, one.Subjects)
	before := s.lastSeq()
	for body, says := range map[string]string{
		`{"pcs":["pc-1","pc-9"]}`: "pcs[1]: 'pc-9' is not in the target of the schedule", `{"pcs":["*"]}`: "pcs[0]:", `{"pc":["pc-1"]}`: "pc: unknown key",
	} {
		a := s.do(http.MethodPost, path, body)
		require.Contains(t, []int{400, 422}, a.status)
		require.Contains(t, a.text(), says)
	}
	require.Equal(t, http.StatusNotFound, s.do(http.MethodPost, "/api/schedules/none/run-now", "").status)
	require.Equal(t, before, s.lastSeq())
	s.write(http.MethodPost, path, "")

	s.write(http.MethodDelete, "/api/schedules/nightly", "")
	s.write(http.MethodPost, path, `{"reason":"why not"}`, "Idempotency-Key", "k").into(t, &again)
	require.Equal(t, e, again, "what was answered once is answered again")
	require.Equal(t, http.StatusNotFound, s.do(http.MethodPost, path, "").status)
}

type backfilledAnswer struct {
	DryRun                 bool `json:"dry_run"`
	Requested, Known, Held int
	Ticks                  []struct {
		Nominal  time.Time
		Outcome  string
		Reason   string
		ExecID   string `json:"exec_id"`
		Sequence uint64
	}
}

func TestBackfill(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	s.endpoint("pc-1")
	now := time.Now().UTC()
	day := func(n int) time.Time { return now.AddDate(0, 0, -n).Truncate(24 * time.Hour) }
	at := func(n int) time.Time { return day(n).Add(3 * time.Hour) }
	s.write(http.MethodPut, "/api/calendars/off", fmt.Sprintf(`{"id":"off","days":[%q]}`, day(4).Format(time.DateOnly)))
	s.schedule("nightly", "when: {calendar: {at: \"03:00\"}}\ntz: utc\ncalendars: [off]\nenabled: false\n")
	fired := events.ExecRequested{
		ExecID: events.FireID("nightly", at(3)), JobID: "hello", Version: "1.0.0", Plan: []byte(`{"target":{"all":true}}`), ScheduleID: "nightly",
	}
	nominal := at(3)
	fired.Nominal = &nominal
	s.append(events.ScheduleTicked{ID: "nightly", Outcome: events.TickFired, From: nominal, To: nominal, Count: 1, Exec: &fired})
	s.append(fired)

	const path = "/api/schedules/nightly/backfill"
	body := func(more string) string {
		return fmt.Sprintf(`{"from":%q,"to":%q%s}`, day(5).Format(time.RFC3339), day(1).Format(time.RFC3339), more)
	}
	before := s.lastSeq()
	var dry, done, again, forced backfilledAnswer
	s.do(http.MethodPost, path, body(`,"dry_run":true`)).into(t, &dry)
	require.Equal(t, before, s.lastSeq())
	require.True(t, dry.DryRun)
	outcomes := func(b backfilledAnswer) (list []string) {
		for _, x := range b.Ticks {
			list = append(list, x.Outcome)
		}
		return list
	}
	require.Equal(t, []string{"requested", "held", "known", "requested"}, outcomes(dry))
	require.Equal(t, "calendar", dry.Ticks[1].Reason)

	s.write(http.MethodPost, path, body(`,"reason":"outage"`)).into(t, &done)
	require.Equal(t, outcomes(dry), outcomes(done))
	require.Equal(t, []int{2, 1, 1}, []int{done.Requested, done.Known, done.Held})
	p := s.requested(done.Ticks[0].Sequence)
	require.Equal(t, events.FireID("nightly", at(5)), p.ExecID)
	require.Equal(t, at(5), *p.Nominal)
	require.Equal(t, "outage", p.Reason)
	require.Equal(t, "nightly", p.ScheduleID)

	before = s.lastSeq()
	s.do(http.MethodPost, path, body("")).into(t, &again)
	require.Equal(t, []string{"known", "held", "known", "known"}, outcomes(again))
	require.Equal(t, before, s.lastSeq(), "none is made twice")
	s.do(http.MethodPost, path, body(`,"ignore_gates":true`)).into(t, &forced)
	require.Equal(t, []string{"known", "requested", "known", "known"}, outcomes(forced))
	require.Equal(t, before+1, s.lastSeq())

	before = s.lastSeq()
	s.schedule("minutely", "when: {cron: \"* * * * *\"}\n")
	s.schedule("every", "when: {per_pc: once}\n")
	before += 2
	for _, x := range []struct{ schedule, body, says string }{
		{"nightly", `{}`, "from: is missing"},
		{"nightly", `{"from":"2026-01-01T00:00:00Z"}`, "to: is missing"},
		{"nightly", `{"from":"2026-01-01T00:00:00Z","to":"2025-01-01T00:00:00Z"}`, "to: must be later than from"},
		{"nightly", `{"from":"2026-01-01T00:00:00Z","to":"2099-01-01T00:00:00Z"}`, "has not come yet"},
		{"nightly", `{"from":"yesterday"}`, "from: has the wrong type"},
		{"minutely", body(""), "5760 ticks would be made up for, more than the limit of 100 at once"},
		{"minutely", `{"from":"2026-01-01T00:00:00Z","to":"2026-02-01T00:00:00Z"}`, "more than 10000 nominal times in that span: take a shorter one"},
		{"minutely", fmt.Sprintf(`{"from":%q,"to":%q}`, now.Add(-3*time.Hour).Format(time.RFC3339), now.Format(time.RFC3339)), "ticks would be made up for, more than the limit of 100 at once"},
		{"every", body(""), "it has no nominal times to make up for"},
		{"none", body(""), "schedule 'none' not found"},
	} {
		a := s.do(http.MethodPost, "/api/schedules/"+x.schedule+"/backfill", x.body)
		require.Contains(t, []int{400, 404, 422}, a.status)
		require.Contains(t, a.text(), x.says, x.body)
	}
	require.Equal(t, before, s.lastSeq())
}

type coverageAnswer struct {
	Basis, ExecID string
	Total         int
	Counts        map[string]int
	PCs           []struct {
		PCID      string `json:"pc_id"`
		State     string
		Reason    string
		Failures  int
		NotBefore *time.Time `json:"not_before"`
	}
}

// covers gives the state of each endpoint.
func (s *system) covers(path string) (c coverageAnswer, states map[string]string) {
	s.t.Helper()
	s.read(path+"?limit=1000").into(s.t, &c)
	states = map[string]string{}
	for _, x := range c.PCs {
		states[x.PCID] = x.State + " " + x.Reason
	}
	return c, states
}

func TestCoverageOfCadence(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	for i := range 6 {
		s.append(events.AgentSeen{PCID: fmt.Sprintf("pc-%d", i), AgentVersion: "1"})
	}
	s.schedule("v", "when: {per_pc: once_per_version}\n")
	nominal := time.Now().UTC().Truncate(time.Minute)
	later := nominal.Add(time.Hour)
	exec := events.ExecRequested{
		ExecID: events.FireID("v", nominal), JobID: "hello", Version: "1.0.0", Plan: []byte(`{"target":{"all":true}}`), ScheduleID: "v", Nominal: &nominal,
	}
	s.append(events.ScheduleTicked{ID: "v", Outcome: events.TickFired, From: nominal, To: nominal, Count: 1, Exec: &exec})
	s.append(exec)
	s.append(events.ExecPlanned{
		ExecID: exec.ExecID, DeadlineAt: later, ExpiresAt: later,
		Waves: []events.PlannedWave{{DueAt: nominal, Expected: []string{"pc-3"}, Waiting: []string{"pc-4"}}},
	})
	s.append(events.ScheduleProgressed{ID: "v", Changes: []events.Progress{
		{PCID: "pc-0", Fired: &nominal, Succeeded: &nominal, Version: "1.0.0"},
		{PCID: "pc-1", Fired: &nominal, Succeeded: &nominal, Version: "0.9.0"},
		{PCID: "pc-2", Fired: &nominal, Failures: 4, NotBefore: &later},
		{PCID: "pc-gone", Fired: &nominal, Succeeded: &nominal, Version: "1.0.0"},
	}})
	c, states := s.covers("/api/schedules/v/coverage")
	require.Equal(t, "memory", c.Basis)
	require.Equal(t, map[string]string{
		"pc-0": "ok ", "pc-1": "pending due", "pc-2": "failed backing_off", "pc-3": "running expected", "pc-4": "pending waiting", "pc-5": "never ",
	}, states)
	require.Equal(t, 6, c.Total)
	require.Equal(t, map[string]int{"ok": 1, "pending": 2, "failed": 1, "running": 1, "never": 1}, c.Counts)

	counts := s.read("/api/schedules/v/coverage")
	require.NotContains(t, counts.text(), "pcs")
	page := s.read("/api/schedules/v/coverage?state=pending&limit=1")
	require.Contains(t, page.text(), `"pcs":[{"pc_id":"pc-1"`)
	require.Regexp(t, `^</api/schedules/v/coverage\?cursor=.*state=pending>; rel="next"$`, page.header.Get("Link"))
	next := page.header.Get("Link")
	second := s.read(next[1 : len(next)-len(`>; rel="next"`)])
	require.Contains(t, second.text(), `"pcs":[{"pc_id":"pc-4"`)
	require.Empty(t, second.header.Get("Link"))
	require.Equal(t, http.StatusBadRequest, s.read("/api/schedules/v/coverage?state=odd").status)
	require.Equal(t, http.StatusBadRequest, s.read("/api/schedules/v/coverage?cursor=odd").status)

	var status struct {
		Enabled  bool
		LastTick struct{ Outcome string } `json:"last_tick"`
		Open     []struct {
			ExecID string `json:"exec_id"`
		}
		FailingCount int `json:"failing_count"`
		Failing      []struct {
			PCID      string `json:"pc_id"`
			Failures  int
			NotBefore time.Time `json:"not_before"`
		}
		LastSuccess time.Time `json:"last_success"`
		Next        *dueAnswer
	}
	s.read("/api/schedules/v/status").into(t, &status)
	require.True(t, status.Enabled)
	require.Equal(t, "fired", status.LastTick.Outcome)
	require.Len(t, status.Open, 1)
	require.Equal(t, 1, status.FailingCount)
	require.Equal(t, "pc-2", status.Failing[0].PCID)
	require.Equal(t, later, status.Failing[0].NotBefore)
	require.Equal(t, nominal, status.LastSuccess)
	require.Equal(t, []string{"pc-1", "pc-2", "pc-5"}, status.Next.PCs, "all of them are away")
	require.Equal(t, http.StatusNotFound, s.read("/api/schedules/none/status").status)
	require.Equal(t, http.StatusNotFound, s.read("/api/schedules/none/coverage").status)

	s.schedule("own", "when: {per_pc: once}\nruns_on: agent\n")
	c, states = s.covers("/api/schedules/own/coverage")
	require.Equal(t, "agent", c.Basis)
	require.Equal(t, 6, c.Total)
	require.Empty(t, states)
}

func TestCoverageOfTicks(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	for i := range 5 {
		s.append(events.AgentSeen{PCID: fmt.Sprintf("pc-%d", i), AgentVersion: "1"})
	}
	s.schedule("nightly", "when: {calendar: {at: \"03:00\"}}\ntz: utc\n")
	c, _ := s.covers("/api/schedules/nightly/coverage")
	require.Equal(t, "none", c.Basis)
	require.Equal(t, map[string]int{"never": 5}, c.Counts)

	fire := func(nominal time.Time) execAnswer {
		exec := events.ExecRequested{
			ExecID: events.FireID("nightly", nominal), JobID: "hello", Version: "1.0.0", Plan: []byte(`{"target":{"all":true}}`), ScheduleID: "nightly", Nominal: &nominal,
		}
		s.append(events.ScheduleTicked{ID: "nightly", Outcome: events.TickFired, From: nominal, To: nominal, Count: 1, Exec: &exec})
		s.append(exec)
		s.plan(exec.ExecID, "pc-0", "pc-1", "pc-2", "pc-3")
		return execAnswer{ExecID: exec.ExecID, JobID: "hello", Version: "1.0.0"}
	}
	zero, one := 0, 1
	day := time.Now().UTC().Truncate(24 * time.Hour)
	first := fire(day.AddDate(0, 0, -1))
	for _, pc := range []string{"pc-0", "pc-1", "pc-2", "pc-3"} {
		s.run(runOf(first, pc), events.StateSucceeded, &zero, events.Output{})
	}
	s.append(events.ExecClosed{ExecID: first.ExecID, Outcome: events.OutcomeSucceeded})
	second := fire(day)
	s.run(runOf(second, "pc-0"), events.StateSucceeded, &zero, events.Output{})
	s.run(runOf(second, "pc-1"), events.StateFailed, &one, events.Output{})
	s.run(runOf(second, "pc-2"), "", nil, events.Output{})
	s.append(events.ScheduleTicked{ID: "nightly", Outcome: events.TickSkipped, Reason: events.TickReasonFrozen, From: day, To: day, Count: 1})
	c, states := s.covers("/api/schedules/nightly/coverage")
	require.Equal(t, "exec", c.Basis)
	require.Equal(t, map[string]string{
		"pc-0": "ok ", "pc-1": "failed ", "pc-2": "running running", "pc-3": "running expected", "pc-4": "never ",
	}, states)

	var status map[string]any
	s.read("/api/schedules/nightly/status").into(t, &status)
	require.Equal(t, "skipped", status["last_tick"].(map[string]any)["outcome"])
	require.Equal(t, second.ExecID, status["last_fired"].(map[string]any)["exec_id"])
	require.Equal(t, day.AddDate(0, 0, -1).Format(time.RFC3339), status["last_success"])
	require.Len(t, status["open"], 1)
	require.NotNil(t, status["next"])

	backfilled := fire(day.AddDate(0, 0, -2))
	s.append(events.ExecClosed{ExecID: backfilled.ExecID, Outcome: events.OutcomeSucceeded})
	s.read("/api/schedules/nightly/status").into(t, &status)
	require.Equal(t, day.AddDate(0, 0, -1).Format(time.RFC3339), status["last_success"], "what is made up for later is no later success")
	var x struct{ Execution map[string]any }
	s.read("/api/executions/"+backfilled.ExecID).into(t, &x)
	require.Equal(t, day.AddDate(0, 0, -2).Format(time.RFC3339), x.Execution["nominal"])
}

// Backfills of one span at once make each exec once, and both are answered with it.
func TestBackfillsAtOnce(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	s.schedule("hourly", "when: {cron: \"0 * * * *\"}\ntz: utc\n")
	to := time.Now().UTC().Truncate(time.Hour)
	body := fmt.Sprintf(`{"from":%q,"to":%q}`, to.Add(-20*time.Hour).Format(time.RFC3339), to.Format(time.RFC3339))
	before := s.lastSeq()
	var all sync.WaitGroup
	answers := make([]answer, 4)
	for i := range answers {
		all.Go(func() {
			var err error
			if answers[i], err = s.try(t.Context(), http.MethodPost, "/api/schedules/hourly/backfill", body); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.Equal(t, before+20, s.lastSeq())
	for _, a := range answers {
		var b backfilledAnswer
		a.into(t, &b)
		require.Equal(t, 20, b.Requested+b.Known)
		for _, x := range b.Ticks {
			require.Equal(t, events.FireID("hourly", x.Nominal), x.ExecID)
			if x.Outcome == "requested" {
				require.Equal(t, x.ExecID, s.requested(x.Sequence).ExecID)
			}
		}
	}
}
