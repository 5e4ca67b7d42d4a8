package readmodel

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// Every query finds its rows by an index and in its order: what it costs does not grow with the history. What is looked
// at one by one is named here.
func TestNoQueryScans(t *testing.T) {
	dir := t.TempDir()
	w, r := open(t, dir), read(t, dir)
	apply(t, w, searchable(t, 20))
	ctx, page := t.Context(), Page{Limit: 5}
	words, err := ParseWords("disk")
	require.NoError(t, err)
	var failed []error
	ask := func(errs ...error) { failed = append(failed, errs...) }
	one := regexp.MustCompile("^one$")
	for _, status := range []ResultStatus{"", ResultSuccess, ResultFailure, ResultRunning} {
		for _, since := range []time.Time{{}, begin} {
			for _, f := range []ResultFilter{
				{}, {ExecID: one}, {PCID: one}, {JobID: one}, {ExecID: one, JobID: one, PCID: one}, {Stdout: regexp.MustCompile("a|b")},
				{PCID: regexp.MustCompile("a"), ExecID: one}, {Words: words}, {Words: words, JobID: one, Stderr: regexp.MustCompile("a")},
			} {
				f.Status, f.Since, f.Page = status, since, page
				_, _, err := r.Results(ctx, f)
				ask(err)
			}
			for _, f := range []GroupFilter{{ExecID: "exec-1"}, {JobID: "hello"}} {
				f.Status, f.Since, f.Limit = status, since, All
				_, _, err := r.ResultGroups(ctx, f)
				ask(err)
			}
		}
	}
	for _, status := range []Status{"", StatusPending, StatusRunning, StatusCompleted, StatusExpired, "nonsense"} {
		for _, job := range []string{"", "hello"} {
			_, _, err := r.Executions(ctx, ExecutionFilter{JobID: job, Status: status, Page: page})
			ask(err)
		}
	}
	_, _, err = r.Targets(ctx, TargetFilter{ExecID: "exec-1", State: events.StateFailed, Page: page})
	ask(err)
	_, _, err = r.Agents(ctx, AgentFilter{ByID: true, Page: page})
	ask(err)
	_, _, err = r.Jobs(ctx, page)
	ask(err)
	_, _, err = r.Schedules(ctx, page)
	ask(err)
	_, _, err = r.Ticks(ctx, "nightly", page)
	ask(err)
	for _, f := range []AuditFilter{
		{}, {Actor: "operator"}, {Sub: "op"}, {Action: one}, {Target: one}, {Action: one, Target: one, Sub: "op", Actor: "operator"},
		{Action: regexp.MustCompile("exec"), Payload: regexp.MustCompile("x")}, {Since: begin}, {Until: begin}, {Since: begin, Until: begin, Action: one},
	} {
		f.Page = page
		_, _, err := r.Audit(ctx, f)
		ask(err)
	}
	_, _, err = r.Calendars(ctx, page)
	ask(err)
	if _, err = r.Calendar(ctx, "holidays"); !errors.Is(err, ErrNotFound) {
		ask(err)
	}
	_, err = r.Progress(ctx, "nightly")
	ask(err)
	_, _, err = r.Failing(ctx, "nightly", 5)
	ask(err)
	_, err = r.Succeeded(ctx, "nightly")
	ask(err)
	_, err = r.KnownExecs(ctx, []string{"exec-1"})
	ask(err)
	if _, err = r.NewestFire(ctx, "nightly"); !errors.Is(err, ErrNotFound) {
		ask(err)
	}
	_, err = r.OpenRuns(ctx, "nightly")
	ask(err)
	if _, err = r.LastFired(ctx, "nightly"); !errors.Is(err, ErrNotFound) {
		ask(err)
	}
	for _, live := range []bool{false, true} {
		_, err = r.ScheduleExecutions(ctx, "nightly", live, 5)
		ask(err)
	}
	_, err = r.Waves(ctx, "exec-1")
	ask(err)
	_, err = r.Searched(ctx)
	ask(err)
	for _, err := range failed {
		require.NoError(t, err)
	}
	allowed := regexp.MustCompile(`VIRTUAL TABLE|^SCAN (w|x|searched|sides|counted|CONSTANT ROW)$|` + // what a subquery gives, and one row
		`^USE TEMP B-TREE FOR (GROUP BY|LAST TERM OF ORDER BY)`)
	require.Greater(t, len(r.current.stmts), 80)
	for query := range r.current.stmts {
		plan, err := r.current.db.QueryContext(ctx, "EXPLAIN QUERY PLAN "+query, make([]any, strings.Count(query, "?"))...)
		require.NoError(t, err)
		var steps []string
		for plan.Next() {
			var id, parent, unused int
			var detail string
			require.NoError(t, plan.Scan(&id, &parent, &unused, &detail))
			steps = append(steps, detail)
		}
		require.NoError(t, plan.Err())
		for _, step := range steps {
			bad := strings.HasPrefix(step, "SCAN") || strings.Contains(step, "TEMP B-TREE") || strings.Contains(step, "AUTOMATIC") && !strings.HasPrefix(step, "SEARCH s ")
			if bad && !allowed.MatchString(step) {
				t.Errorf("%s\n\t%s", query, strings.Join(steps, "\n\t"))
				break
			}
		}
	}
}
