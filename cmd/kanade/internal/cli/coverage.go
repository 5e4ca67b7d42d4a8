package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"kanade/cmd/kanade/internal/client"
)

type scheduleStatusCmd struct {
	ID string `arg:"" help:"Schedule." predictor:"schedule"`
}

func (c *scheduleStatusCmd) Run(ctx context.Context, a *app) error {
	var s client.ScheduleStatus
	if done, err := a.get(ctx, client.Path("api", "schedules", c.ID, "status"), nil, &s); done || err != nil {
		return err
	}
	t := newTable(a.out, "schedule", s.ID)
	t.row("job", s.JobID)
	t.row("when", s.When+", "+s.Zone)
	t.row("enabled", yesNo(s.Enabled))
	t.row("held back by", s.HeldBy)
	if s.Overdue != nil {
		t.row("overdue", cell(*s.Overdue)+": nobody has decided what becomes of it; is a scheduler running?")
	}
	t.row("last tick", tickText(s.LastTick))
	if s.LastFired != nil && (s.LastTick == nil || s.LastFired.Sequence != s.LastTick.Sequence) {
		t.row("last fired", tickText(s.LastFired))
	}
	t.row("last success", s.LastSuccess)
	if s.Next != nil {
		t.row("next", strings.Join(append([]string{dueHere(*s.Next)}, s.Next.Notes...), "; "))
	} else {
		t.row("next", nil)
	}
	for _, e := range s.Open {
		t.row("open exec", strings.TrimSuffix(e.ExecID+", "+e.Status+": "+counts(e.Totals.Expected), ": "))
	}
	t.row("failing", plural(s.FailingCount, "endpoint"))
	if err := t.end(); err != nil {
		return err
	}
	if err := a.noteRevokedJob(ctx, s.JobID); err != nil || len(s.Failing) == 0 {
		return err
	}
	fmt.Fprintln(a.out)
	t = newTable(a.out, "FAILING", "IN A ROW", "NOT BEFORE", "LAST SUCCESS")
	for _, f := range s.Failing {
		t.row(wholeTarget(f.PCID), f.Failures, f.NotBefore, f.Succeeded)
	}
	return t.end()
}

// wholeTarget is the name of an endpoint, or of the target that a schedule fires as one.
func wholeTarget(pcID string) string {
	if pcID == "" {
		return "(the target)"
	}
	return pcID
}

func tickText(t *client.Tick) string {
	if t == nil {
		return ""
	}
	text := when(t.Nominal) + " " + t.Outcome
	if t.Count > 1 && t.To != nil {
		text = fmt.Sprintf("%s to %s, %d %s", when(t.Nominal), when(*t.To), t.Count, t.Outcome)
	}
	if t.Reason != "" {
		text += ": " + t.Reason
	}
	if t.ExecID != "" {
		text += ", exec " + t.ExecID
	}
	return text
}

type scheduleCoverageCmd struct {
	ID    string `arg:"" help:"Schedule." predictor:"schedule"`
	State string `enum:"ok,failed,skipped,running,pending,never," default:"" help:"List the endpoints in this state: ok, failed, skipped, running, pending or never."`
	Limit int    `default:"100" help:"How many endpoints."`
}

// Help is shown below the flags.
func (c *scheduleCoverageCmd) Help() string {
	return `Of the endpoints that the schedule targets now: a per_pc schedule by what it remembers of each, any other by the exec
of its newest time. Pending: due again, or the command waits for its return. Never: the schedule has not fired on it.`
}

func (c *scheduleCoverageCmd) Run(ctx context.Context, a *app) error {
	path, q := client.Path("api", "schedules", c.ID, "coverage"), url.Values{}
	if c.State == "" {
		var v client.Coverage
		if done, err := a.get(ctx, path, q, &v); done || err != nil {
			return err
		}
		a.printCoverage(v)
		return nil
	}
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	q.Set("state", c.State)
	q.Set("limit", strconv.Itoa(c.Limit))
	var v client.Coverage
	answer, err := api.Do(ctx, client.Request{Method: http.MethodGet, Path: path, Query: q})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(answer.Body)
	}
	if err := decode("coverage", answer.Body, &v); err != nil {
		return err
	}
	a.printCoverage(v)
	fmt.Fprintln(a.out)
	t := newTable(a.out, "PC", "STATE", "REASON", "FIRED", "SUCCEEDED", "FAILURES", "NOT BEFORE")
	for _, x := range v.PCs {
		t.row(x.PCID, x.State, x.Reason, x.Fired, x.Succeeded, x.Failures, x.NotBefore)
	}
	if err := t.end(); err != nil {
		return err
	}
	if answer.Next != "" {
		a.note("there are more: see --limit")
	}
	return nil
}

func (a *app) printCoverage(v client.Coverage) {
	var parts []string
	for _, state := range []string{"ok", "failed", "skipped", "running", "pending", "never"} {
		if n := v.Counts[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	switch {
	case v.Basis == "agent":
		parts = []string{"agents run it by themselves, and say nothing of it but results"}
	case len(parts) == 0:
		parts = []string{"nobody is in its target"}
	}
	fmt.Fprintf(a.out, "%s of %s: %s\n", v.ScheduleID, plural(v.Total, "endpoint"), strings.Join(parts, ", "))
	if v.Basis == "exec" {
		fmt.Fprintf(a.out, "by exec %s\n", v.ExecID)
	}
	if v.Forgotten {
		a.note("what endpoints did in it is older than the history, and no more")
	}
}

type scheduleRunNowCmd struct {
	ID  string   `arg:"" help:"Schedule." predictor:"schedule"`
	PCs []string `name:"pc" help:"Only on this endpoint of its target; may be repeated." predictor:"pc"`
	Key string   `help:"Idempotency key: repeated with the same one, it is the same exec." placeholder:"TEXT"`
	reasonFlag
	waitFlags
}

// Help is shown below the flags.
func (c *scheduleRunNowCmd) Help() string {
	return `Runs the schedule's job with its plan, as 'kanade exec' would: no gate, no freeze and no disabling holds it back, and the schedule
does not remember what it did. While it runs, a tick finds an earlier run under way.`
}

func (c *scheduleRunNowCmd) Run(ctx context.Context, a *app) error {
	more := map[string]any{}
	if len(c.PCs) > 0 {
		more["pcs"] = c.PCs
	}
	body, err := c.body(more)
	if err != nil {
		return err
	}
	return a.start(ctx, client.Request{
		Method: http.MethodPost, Path: client.Path("api", "schedules", c.ID, "run-now"), Body: body, ContentType: client.JSON, IdempotencyKey: c.Key,
	}, c.waitFlags)
}

type scheduleBackfillCmd struct {
	ID          string    `arg:"" help:"Schedule." predictor:"schedule"`
	From        time.Time `arg:"" help:"After then: 2026-12-24T18:00:00Z."`
	To          time.Time `arg:"" help:"Up to then."`
	DryRun      bool      `help:"Show what would be run; run nothing."`
	IgnoreGates bool      `help:"Also what its window, skip dates and calendars or the freeze hold back."`
	reasonFlag
}

// Help is shown below the flags.
func (c *scheduleBackfillCmd) Help() string {
	return `Runs the schedule's job once for each of its times in the span that has no exec yet: at most 100, all of them at once. Repeated, it
runs none twice.`
}

func (c *scheduleBackfillCmd) Run(ctx context.Context, a *app) error {
	body, err := c.body(map[string]any{"from": c.From, "to": c.To, "dry_run": c.DryRun, "ignore_gates": c.IgnoreGates})
	if err != nil {
		return err
	}
	answer, err := a.do(ctx, client.Request{
		Method: http.MethodPost, Path: client.Path("api", "schedules", c.ID, "backfill"), Body: body, ContentType: client.JSON,
	})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(answer.Body)
	}
	var b client.Backfill
	if err := json.Unmarshal(answer.Body, &b); err != nil {
		return fmt.Errorf("read the answer of backfill: %w", err)
	}
	if len(b.Ticks) > 0 {
		t := newTable(a.out, "NOMINAL", "OUTCOME", "REASON", "EXEC")
		for _, x := range b.Ticks {
			t.row(x.Nominal, x.Outcome, x.Reason, x.ExecID)
		}
		if err := t.end(); err != nil {
			return err
		}
	}
	word := "requested"
	if b.DryRun {
		word = "would be requested"
	}
	fmt.Fprintf(a.out, "%s %s, %d known already, %d held back\n", plural(b.Requested, "exec"), word, b.Known, b.Held)
	return nil
}
