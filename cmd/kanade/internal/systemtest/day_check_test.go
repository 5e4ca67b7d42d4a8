package systemtest

import (
	"fmt"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// onTime is how late an undisturbed tick may be: a worker that dies with it costs a second or two.
const onTime = 3 * time.Second

// check compares what the system says of the day with what was to be.
func (d *day) check() string {
	d.t.Helper()
	h := d.fold()
	ticks, fired := 0, 0
	for id := range d.forms {
		if d.forms[id].every > 0 {
			d.checkInterval(h, id)
		} else {
			ticks += d.checkTicks(h, id)
		}
		fired += d.checkLedger(h, id)
	}
	require.Len(d.t, h.execs, fired+len(d.manual), "every exec is of one tick, or by hand")
	runs := d.checkRuns(h)
	return fmt.Sprintf("%d nominal ticks of calendars and crons and all intervals once in the ledger, %d execs ended, %d runs once in the read model",
		ticks, len(h.execs), runs)
}

// checkLedger compares the ledger that the API shows with the log's, and asks for the exec of every tick that fired.
func (d *day) checkLedger(h history, id string) (fired int) {
	d.t.Helper()
	var rows []struct {
		Nominal time.Time          `json:"nominal"`
		To      time.Time          `json:"to"`
		Count   int                `json:"count"`
		Outcome events.TickOutcome `json:"outcome"`
		Reason  string             `json:"reason"`
		ExecID  string             `json:"exec_id"`
	}
	d.read("/api/schedules/"+id+"/ticks?limit=100000", &rows)
	require.Len(d.t, rows, len(h.ticks[id]), id)
	slices.Reverse(rows) // the newest is first
	for i, t := range h.ticks[id] {
		row := rows[i]
		require.Equal(d.t, []any{t.From.UTC(), t.To.UTC(), t.Count, t.Outcome, t.Reason}, []any{row.Nominal.UTC(), row.To.UTC(), row.Count, row.Outcome, row.Reason}, id)
		is := t.Outcome == events.TickFired || t.Outcome == events.TickCaughtUp
		require.Equal(d.t, is, t.Exec != nil, id)
		if !is {
			continue
		}
		fired++
		require.Equal(d.t, t.Exec.ExecID, row.ExecID, id)
		require.Equal(d.t, *t.Exec, h.execs[row.ExecID].requested, id)
		d.checkEnded(row.ExecID)
	}
	return fired
}

func (d *day) checkEnded(exec string) {
	d.t.Helper()
	var answer struct {
		Execution struct {
			Outcome *string `json:"outcome"`
			Status  string  `json:"status"`
		} `json:"execution"`
	}
	d.read("/api/executions/"+exec, &answer)
	require.NotNil(d.t, answer.Execution.Outcome, exec)
	require.Contains(d.t, []string{"completed", "expired"}, answer.Execution.Status, exec)
}

// checkTicks holds the ledger of a calendar or cron against all nominal times of all its versions.
func (d *day) checkTicks(h history, id string) int {
	d.t.Helper()
	seen := map[time.Time]tickFact{}
	var all []time.Time
	for i, v := range d.versions[id] {
		until := time.Now()
		if i+1 < len(d.versions[id]) {
			until = d.versions[id][i+1].from
		}
		if v.form.when == "" {
			continue
		}
		due := v.form.nominal(d.t, v.from, until)
		require.Equal(d.t, fmt.Sprint(due), fmt.Sprint(v.form.between(d.t, v.from, until)), id)
		all = append(all, due...)
	}
	for _, t := range h.ticks[id] {
		from, to := slices.IndexFunc(all, t.From.Equal), slices.IndexFunc(all, t.To.Equal)
		require.GreaterOrEqual(d.t, from, 0, "%s: %s is no nominal time", id, t.From)
		require.Equal(d.t, t.Count, to-from+1, "%s: from %s to %s", id, t.From, t.To)
		for _, at := range all[from : to+1] {
			require.NotContains(d.t, seen, at, "%s: twice in the ledger", id)
			seen[at] = t
		}
	}
	for i, at := range all {
		t, ok := seen[at]
		require.True(d.t, ok, "%s: %s is not in the ledger", id, at)
		next := at
		if i+1 < len(all) {
			next = all[i+1]
		}
		outcome, reason, decided := d.wanted(h, id, at, next)
		require.Equal(d.t, []any{outcome, reason}, []any{t.Outcome, t.Reason}, "%s: %s", id, at)
		if reason != events.TickReasonDisabled { // those are told with the first tick after them
			require.WithinRange(d.t, t.at, at, decided.Add(onTime), "%s: %s", id, at)
		}
	}
	return len(all)
}

// wanted is how a tick has to end, and when that is decided; next is the one after it.
func (d *day) wanted(h history, id string, at, next time.Time) (events.TickOutcome, string, time.Time) {
	for i, v := range d.versions[id] {
		if at.After(v.from) && (i+1 == len(d.versions[id]) || !at.After(d.versions[id][i+1].from)) && !v.enabled {
			return events.TickSkipped, events.TickReasonDisabled, at
		}
	}
	decided := at
	for _, s := range d.idle {
		if at.After(s.from) && !at.After(s.to) {
			decided = s.to
		}
	}
	late := decided.Sub(at)
	switch {
	case late > time.Hour:
		return events.TickMissed, events.TickReasonLate, decided
	case next.After(at) && !next.After(decided):
		return events.TickMissed, events.TickReasonSuperseded, decided
	case h.busy(id, decided):
		return events.TickSkipped, events.TickReasonOverlap, decided
	case late > time.Minute:
		return events.TickCaughtUp, "", decided
	}
	return events.TickFired, "", decided
}

// checkInterval holds the fires of a per_pc schedule against its rule, endpoint by endpoint: due at the first minute of
// being alive, then an interval after each success, and after a failure when the back-off is over.
func (d *day) checkInterval(h history, id string) {
	d.t.Helper()
	f := d.forms[id]
	fires := map[string][]tickFact{}
	for _, t := range h.ticks[id] {
		require.Equal(d.t, events.TickFired, t.Outcome, "%s: %s", id, t.From)
		for pc := range h.execs[t.Exec.ExecID].named() {
			fires[pc] = append(fires[pc], t)
		}
	}
	require.Len(d.t, fires, len(f.members), id)
	for _, pc := range f.members {
		due, failures := ceil(d.versions[id][0].from), 0
		for _, t := range fires[pc] {
			at, until := t.From, d.reachable(pc, due)
			if until.Equal(due) {
				require.Equal(d.t, due.UTC(), at.UTC(), "%s on %s", id, pc)
			}
			require.WithinRange(d.t, at, due, until, "%s on %s", id, pc)
			ended, state := h.execs[t.Exec.ExecID].end(pc)
			if due = at.Add(f.every); state == events.StateSucceeded {
				failures = 0
			} else {
				failures++
				due = ended.Add(min(time.Minute<<(failures-1), 6*time.Hour))
			}
			if due = ceil(due); due.Before(ceil(ended)) {
				due = ceil(ended)
			}
		}
		require.True(d.t, d.reachable(pc, due).After(time.Now().Add(-time.Minute)), "%s on %s: was due at %s", id, pc, due)
	}
}

// named are the endpoints that the exec is for.
func (x *execFact) named() map[string]bool {
	names := map[string]bool{}
	for _, w := range x.planned.Waves {
		for _, pc := range append(slices.Clone(w.Expected), w.Waiting...) {
			names[pc] = true
		}
	}
	return names
}

// reachable is the latest minute at which an endpoint that is due at a minute has to be fired: that minute, or two after
// what hinders it is over. An endpoint that has just left still counts as alive for two minutes.
func (d *day) reachable(pc string, due time.Time) time.Time {
	latest := due
	for range 2 { // one hindrance may end in another
		for _, s := range append(slices.Clone(d.idle), d.offline[pc]...) {
			if !latest.Before(s.from) && !latest.After(s.to.Add(2*time.Minute)) {
				latest = ceil(s.to.Add(2 * time.Minute))
			}
		}
	}
	return latest
}

func ceil(at time.Time) time.Time { return at.Add(time.Minute - 1).Truncate(time.Minute) }

// checkRuns compares what executors were asked for with the results that the API shows, and with the targets of execs.
func (d *day) checkRuns(h history) int {
	d.t.Helper()
	var rows []struct {
		ResultID string `json:"result_id"`
		ExecID   string `json:"exec_id"`
		PCID     string `json:"pc_id"`
		JobID    string `json:"job_id"`
		ExitCode *int   `json:"exit_code"`
		State    string `json:"state"`
		Stdout   string `json:"stdout"`
	}
	d.read("/api/results?limit=1000000", &rows)
	d.asked.mu.Lock()
	defer d.asked.mu.Unlock()
	shown := map[string]bool{}
	for _, row := range rows {
		require.False(d.t, shown[row.ResultID], "result %s twice", row.ResultID)
		shown[row.ResultID] = true
		r := d.asked.runs[row.ResultID]
		if row.State == string(events.StateSkipped) {
			require.Nil(d.t, r, "result %s was skipped and run", row.ResultID)
			continue
		}
		require.NotNil(d.t, r, "result %s that nobody ran", row.ResultID)
		require.Equal(d.t, []any{r.exec, r.pc, r.job, r.state, r.job + " on " + r.pc + "\n"}, []any{row.ExecID, row.PCID, row.JobID, row.State, row.Stdout})
		if r.state != string(events.StateKilled) {
			require.Equal(d.t, r.code, *row.ExitCode)
		}
	}
	for id, r := range d.asked.runs {
		require.True(d.t, shown[id], "run %s is not in the read model", id)
		require.Equal(d.t, 1, r.times, "run %s was started again", id)
	}
	for id, x := range h.execs {
		d.checkTargets(id, x)
	}
	return len(d.asked.runs)
}

// checkTargets: whoever was expected and could be reached has run it, and its end is the target's state.
func (d *day) checkTargets(id string, x *execFact) {
	d.t.Helper()
	var targets []struct {
		PCID     string `json:"pc_id"`
		State    string `json:"state"`
		Expected bool   `json:"expected"`
		ResultID string `json:"result_id"`
	}
	d.read("/api/executions/"+id+"/targets", &targets)
	require.Len(d.t, targets, len(x.named()), id)
	for _, t := range targets {
		if r := d.asked.runs[t.ResultID]; r != nil {
			require.Equal(d.t, []string{r.exec, r.pc, r.state}, []string{id, t.PCID, t.State})
			continue
		}
		asked := x.planned.Waves[0].DueAt
		require.True(d.t, !t.Expected || d.reachable(t.PCID, asked).After(asked), "%s was alive and has not run %s", t.PCID, id)
	}
}
