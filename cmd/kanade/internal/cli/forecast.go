package cli

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"kanade/cmd/kanade/internal/client"
	"kanade/cmd/kanade/internal/document"
	"kanade/libs/catalog"
	"kanade/libs/events"
)

type schedulePreviewCmd struct {
	ID    string `arg:"" help:"Schedule." predictor:"schedule"`
	Count int    `default:"5" help:"How many."`
	From  string `placeholder:"TIME" help:"After then (2026-12-24T18:00:00Z); without it from now on."`
}

// Help is shown below the flags.
func (c *schedulePreviewCmd) Help() string {
	return `Each time with what the schedule's own clock shows then, what a change of that clock does to it, and the gate that would hold it
back: its window, skip dates and calendars, the freeze, or that it is disabled. Whether an earlier run still goes on then nobody knows.

A schedule that counts from what its endpoints do (per_pc, per_target) is shown by the minutes at which they are due by what they have
done so far.`
}

func (c *schedulePreviewCmd) Run(ctx context.Context, a *app) error {
	q := url.Values{"count": {strconv.Itoa(c.Count)}}
	setIf(q, "from", c.From)
	var rows []client.Due
	if done, err := a.get(ctx, client.Path("api", "schedules", c.ID, "preview"), q, &rows); done || err != nil {
		return err
	}
	if len(rows) == 0 {
		if c.Count > 0 {
			fmt.Fprintln(a.out, "nothing comes any more, or nobody in the target is due")
		}
		return nil
	}
	t := newTable(a.out, "AT", "WOULD", "ZONE", "ENDPOINTS", "NOTES")
	for _, d := range rows {
		t.row(dueTime(d), wouldText(d), d.Zone, endpointsText(d), strings.Join(d.Notes, "; "))
	}
	return t.end()
}

// silentAfter is how many times that are all held back make a schedule one to be noted.
const silentAfter = 20

// noteSilent notes which of the schedules fire nothing as they are: no time is to come, or every one is held back. It keeps
// nothing back: that it can't be read is noted, too.
func (a *app) noteSilent(ctx context.Context, api *client.Client, schedules []string, minSequence uint64) {
	for _, id := range schedules {
		var rows []client.Due
		answer, err := api.Do(ctx, client.Request{
			Method: http.MethodGet, Path: client.Path("api", "schedules", id, "preview"), Query: url.Values{"count": {strconv.Itoa(silentAfter)}}, MinSequence: minSequence,
		})
		if err == nil {
			err = decode("preview", answer.Body, &rows)
		}
		fires := func(d client.Due) bool { return d.Reason == "" || d.Reason == events.TickReasonDisabled }
		switch {
		case err != nil:
			a.note("what schedule %s fires next is not known: %v", id, err)
			return
		case len(rows) == 0:
			a.note("schedule %s fires nothing as it is: no time of it is to come, or nobody is in its target", id)
		case len(rows) == silentAfter && !slices.ContainsFunc(rows, fires):
			a.note("schedule %s fires nothing soon: its next %d times are held back, the first: %s", id, len(rows), rows[0].Note)
		}
	}
}

// dueHere is when something is due by this machine's clock, as all times are shown that stand beside it.
func dueHere(d client.Due) string {
	if d.At.IsZero() {
		return dueTime(d)
	}
	return when(d.At)
}

func dueTime(d client.Due) string {
	switch {
	case d.Local != "":
		return d.Local
	case d.At.IsZero():
		return "when they return"
	}
	return when(d.At)
}

func wouldText(d client.Due) string {
	if d.Reason != "" {
		return "skip: " + d.Reason
	}
	return "fire"
}

// endpointsText names whom a cadence fires, as far as the API names them.
func endpointsText(d client.Due) string {
	if d.Endpoints == 0 {
		return ""
	}
	text := strings.Join(d.PCs, ",")
	if more := d.Endpoints - len(d.PCs); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

type scheduleUpcomingCmd struct {
	Days  int `default:"7" help:"How far ahead."`
	Limit int `default:"50" help:"How many."`
}

func (c *scheduleUpcomingCmd) Run(ctx context.Context, a *app) error {
	var rows []client.Due
	q := url.Values{"days": {strconv.Itoa(c.Days)}, "limit": {strconv.Itoa(c.Limit)}}
	if done, err := a.get(ctx, "/api/schedules/upcoming", q, &rows); done || err != nil {
		return err
	}
	t := newTable(a.out, "AT", "SCHEDULE", "JOB", "WOULD", "ZONE", "NOTES")
	for _, d := range rows {
		t.row(dueTime(d), d.ScheduleID, d.JobID, wouldText(d), d.Zone, strings.Join(d.Notes, "; "))
	}
	if err := t.end(); err != nil {
		return err
	}
	if len(rows) == c.Limit {
		a.note("there may be more in %s: see --limit", plural(c.Days, "day"))
	}
	return nil
}

type scheduleSimulateCmd struct {
	What  string `arg:"" name:"file-or-id" help:"File of a schedule that need not be stored, or a stored schedule." predictor:"schedule"`
	From  string `placeholder:"TIME" help:"After then (2026-12-24T18:00:00Z), past or future; without it from now on."`
	To    string `placeholder:"TIME" help:"Up to then; without it for a week."`
	Limit int    `default:"1000" help:"How many times."`
}

// Help is shown below the flags.
func (c *scheduleSimulateCmd) Help() string {
	return `Shows what would fire in a span by a document, with gates, calendars and freeze as they are now, and how that differs from
the schedule of its id as it is stored. Nothing is written.`
}

func (c *scheduleSimulateCmd) Run(ctx context.Context, a *app) error {
	q := url.Values{"limit": {strconv.Itoa(c.Limit)}}
	setIf(q, "from", c.From)
	setIf(q, "to", c.To)
	r := client.Request{Method: http.MethodPost, Path: client.Path("api", "schedules", c.What, "simulate"), Query: q}
	if _, err := os.Stat(c.What); err == nil {
		docs, _, err := document.Load(document.Schedule, []string{c.What})
		if err != nil {
			return err
		}
		if len(docs) != 1 {
			return fmt.Errorf("%s: expected one schedule, there are %d", c.What, len(docs))
		}
		r.Path, r.Body, r.ContentType = "/api/schedules/simulate", docs[0].Body, client.YAML
		if docs[0].Type == catalog.JSON {
			r.ContentType = client.JSON
		}
	}
	answer, err := a.do(ctx, r)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(answer.Body)
	}
	var s client.Simulation
	if err := decode("simulate", answer.Body, &s); err != nil {
		return err
	}
	return a.printSimulation(s)
}

func (a *app) printSimulation(s client.Simulation) error {
	var b bytes.Buffer
	t := newTable(&b, "AT", "WOULD", "NOTES")
	for _, d := range s.Ticks {
		t.row(dueTime(d), wouldText(d), strings.Join(d.Notes, "; "))
	}
	if err := t.end(); err != nil {
		return err
	}
	if len(s.Ticks) > 0 {
		_, _ = b.WriteTo(a.out)
	}
	fmt.Fprintf(a.out, "%s: %d would fire, %d would be skipped\n", s.ScheduleID, s.Fired, s.Skipped)
	if s.More {
		fmt.Fprintln(a.out, "There are more: see --limit, or take a shorter span.")
	}
	for _, note := range s.Notes {
		fmt.Fprintln(a.out, "note: "+note)
	}
	if s.Stored == nil {
		fmt.Fprintln(a.out, "No schedule of that id is stored.")
		return nil
	}
	if len(s.Stored.Added)+len(s.Stored.Removed) == 0 && len(s.Ticks) > 0 {
		fmt.Fprintln(a.out, "The stored schedule fires at the same times.")
	}
	for _, at := range s.Stored.Added {
		fmt.Fprintln(a.out, "+ "+at.Format(time.RFC3339))
	}
	for _, at := range s.Stored.Removed {
		fmt.Fprintln(a.out, "- "+at.Format(time.RFC3339))
	}
	return nil
}
