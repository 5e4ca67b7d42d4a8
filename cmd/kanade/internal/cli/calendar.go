package cli

import (
	"context"
	"fmt"

	"kanade/cmd/kanade/internal/client"
	"kanade/cmd/kanade/internal/document"
)

type calendarCmd struct {
	Create calendarCreateCmd `cmd:"" help:"Create or replace calendars from YAML files."`
	List   calendarListCmd   `cmd:"" past:"" help:"List the calendars."`
	Show   calendarShowCmd   `cmd:"" past:"" help:"Print a calendar as it was written."`
	Delete calendarDeleteCmd `cmd:"" help:"Delete a calendar that no schedule names."`
}

type calendarCreateCmd struct {
	Paths []string `arg:"" name:"file-or-dir" help:"Files, or folders of which every *.yaml and *.yml is a calendar."`
}

func (c *calendarCreateCmd) Run(ctx context.Context, a *app) error {
	return a.create(ctx, document.Calendar, c.Paths)
}

type calendarListCmd struct{}

func (c *calendarListCmd) Run(ctx context.Context, a *app) error {
	var rows []client.Calendar
	if done, err := a.get(ctx, "/api/calendars", nil, &rows); done || err != nil {
		return err
	}
	t := newTable(a.out, "ID", "KIND", "DAYS", "DESCRIPTION")
	for _, c := range rows {
		t.row(c.ID, c.Kind, daysText(c.Days), c.Description)
	}
	return t.end()
}

// daysText is the first days of a calendar, and how many more it has.
func daysText(days []string) []string {
	const most = 3
	if len(days) <= most {
		return days
	}
	return append(days[:most:most], fmt.Sprintf("and %d more", len(days)-most))
}

type calendarShowCmd struct {
	ID string `arg:"" help:"Calendar." predictor:"calendar"`
}

func (c *calendarShowCmd) Run(ctx context.Context, a *app) error {
	return a.show(ctx, document.Calendar, c.ID)
}

type calendarDeleteCmd struct {
	ID string `arg:"" help:"Calendar." predictor:"calendar"`
}

func (c *calendarDeleteCmd) Run(ctx context.Context, a *app) error {
	return a.delete(ctx, document.Calendar, c.ID, fmt.Sprintf("calendar %s deleted", c.ID))
}
