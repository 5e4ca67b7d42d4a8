package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"kanade/cmd/kanade/internal/client"
	"kanade/cmd/kanade/internal/document"
	"kanade/libs/catalog"
)

type scheduleCmd struct {
	Create  scheduleCreateCmd  `cmd:"" help:"Create or replace schedules from YAML files."`
	List    scheduleListCmd    `cmd:"" past:"" help:"List the schedules."`
	Show    scheduleShowCmd    `cmd:"" past:"" help:"Print a schedule as it was written."`
	Delete  scheduleDeleteCmd  `cmd:"" help:"Delete a schedule."`
	Enable  scheduleEnableCmd  `cmd:"" help:"Let a schedule fire."`
	Disable scheduleDisableCmd `cmd:"" help:"Keep a schedule, and let it not fire."`
	Ticks   scheduleTicksCmd   `cmd:"" past:"" help:"Show what became of a schedule's ticks, newest first, and when the next ones are."`

	Status   scheduleStatusCmd   `cmd:"" past:"" help:"Show what a schedule is doing: last tick, next one, what is open and what fails."`
	Coverage scheduleCoverageCmd `cmd:"" past:"" help:"Show what a schedule has come to on the endpoints of its target."`
	Preview  schedulePreviewCmd  `cmd:"" past:"" help:"Show when a schedule fires next, and what would hold it back."`
	Upcoming scheduleUpcomingCmd `cmd:"" past:"" help:"Show what all schedules fire next."`
	Simulate scheduleSimulateCmd `cmd:"" help:"Show what a document would fire in a span, stored or not."`
	RunNow   scheduleRunNowCmd   `cmd:"" help:"Run a schedule's job now, with its plan."`
	Backfill scheduleBackfillCmd `cmd:"" help:"Make up for the times of a span that a schedule did not fire."`
}

type scheduleCreateCmd struct {
	Paths []string `arg:"" name:"file-or-dir" help:"Files, or folders of which every *.yaml and *.yml is a schedule."`
}

func (c *scheduleCreateCmd) Run(ctx context.Context, a *app) error {
	return a.create(ctx, document.Schedule, c.Paths)
}

type scheduleListCmd struct{}

func (c *scheduleListCmd) Run(ctx context.Context, a *app) error {
	var docs []json.RawMessage
	if done, err := a.get(ctx, "/api/schedules", nil, &docs); done || err != nil {
		return err
	}
	t := newTable(a.out, "ID", "JOB", "WHEN", "ZONE", "TARGET", "ENABLED")
	for _, doc := range docs {
		s, err := catalog.ParseScheduleDocument(doc)
		if err != nil {
			return err
		}
		t.row(s.ID, s.JobID, s.WhenText(), s.TZ, targetOf(s.Target), yesNo(s.Enabled))
	}
	return t.end()
}

func targetOf(t catalog.Target) []string {
	var names []string
	if t.All {
		names = append(names, "all")
	}
	for _, g := range t.Groups {
		names = append(names, "group:"+g)
	}
	for _, pc := range t.PCs {
		names = append(names, "pc:"+pc)
	}
	return names
}

type scheduleShowCmd struct {
	ID string `arg:"" help:"Schedule." predictor:"schedule"`
}

func (c *scheduleShowCmd) Run(ctx context.Context, a *app) error {
	return a.show(ctx, document.Schedule, c.ID)
}

type scheduleDeleteCmd struct {
	ID string `arg:"" help:"Schedule." predictor:"schedule"`
}

func (c *scheduleDeleteCmd) Run(ctx context.Context, a *app) error {
	return a.delete(ctx, document.Schedule, c.ID, fmt.Sprintf("schedule %s deleted", c.ID))
}

type scheduleEnableCmd struct {
	ID string `arg:"" help:"Schedule." predictor:"schedule"`
}

func (c *scheduleEnableCmd) Run(ctx context.Context, a *app) error {
	r := client.Request{Method: http.MethodPost, Path: client.Path("api", "schedules", c.ID, "enable")}
	return a.write(ctx, r, "schedule %s enabled", c.ID)
}

type scheduleDisableCmd struct {
	ID          string `arg:"" help:"Schedule." predictor:"schedule"`
	Cascade     bool   `help:"Revoke its job as well: what has not begun is skipped. Enabling the schedule does not take that back."`
	CascadeKill bool   `help:"Kill the execs of its job as well."`
}

func (c *scheduleDisableCmd) Run(ctx context.Context, a *app) error {
	q := url.Values{"cascade": {strconv.FormatBool(c.Cascade)}, "cascade_kill": {strconv.FormatBool(c.CascadeKill)}}
	r := client.Request{Method: http.MethodPost, Path: client.Path("api", "schedules", c.ID, "disable"), Query: q}
	sentence := "schedule %s disabled"
	if c.Cascade {
		sentence += ", its job revoked"
	}
	if c.CascadeKill {
		sentence += ", what ran of its job killed"
	}
	return a.write(ctx, r, sentence, c.ID)
}

type scheduleTicksCmd struct {
	ID    string `arg:"" help:"Schedule." predictor:"schedule"`
	Limit int    `default:"20" help:"How many."`
}

func (c *scheduleTicksCmd) Run(ctx context.Context, a *app) error {
	var ticks []client.Tick
	if done, err := a.list(ctx, client.Path("api", "schedules", c.ID, "ticks"), url.Values{}, c.Limit, &ticks); done || err != nil {
		return err
	}
	t := newTable(a.out, "NOMINAL", "TICKS", "OUTCOME", "REASON", "EXEC", "LOG")
	for _, x := range ticks {
		t.row(x.Nominal, x.Count, x.Outcome, x.Reason, x.ExecID, x.Sequence)
	}
	if err := t.end(); err != nil {
		return err
	}
	var due []client.Due
	if _, err := a.get(ctx, client.Path("api", "schedules", c.ID, "preview"), url.Values{"count": {"3"}}, &due); err != nil {
		return err
	}
	for _, d := range due {
		fmt.Fprintf(a.out, "next  %s\n", dueText(d))
	}
	return nil
}

func dueText(d client.Due) string {
	text := dueHere(d)
	if d.Note != "" {
		text += "  (" + d.Note + ")"
	}
	return text
}
