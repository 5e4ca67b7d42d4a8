package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"kanade/cmd/kanade/internal/client"
	"kanade/libs/catalog"
)

type freezeCmd struct {
	Status freezeStatusCmd `cmd:"" past:"" help:"Show whether schedules are held back."`
	Set    freezeSetCmd    `cmd:"" help:"Hold back the schedules of the whole fleet; execs by hand pass."`
	Clear  freezeClearCmd  `cmd:"" help:"Let schedules fire again."`
}

type freezeStatusCmd struct{}

func (c *freezeStatusCmd) Run(ctx context.Context, a *app) error {
	var f *client.Freeze
	if done, err := a.get(ctx, "/api/freeze", nil, &f); done || err != nil {
		return err
	}
	fmt.Fprintln(a.out, freezeText(f, time.Now()))
	if f == nil {
		return nil
	}
	t := newTable(a.out, "from", f.From)
	t.row("until", f.Until)
	t.row("dates in", f.TZ)
	t.row("reason", f.Reason)
	return t.end()
}

// freezeText judges a freeze by a clock, for dates in its zone. What can't be read counts as frozen.
func freezeText(f *client.Freeze, now time.Time) string {
	if f == nil {
		return "not frozen"
	}
	zone := now.Location()
	if f.TZ == "utc" {
		zone = time.UTC
	}
	from, fromErr := catalog.Bound(f.From, zone)
	until, untilErr := catalog.Bound(f.Until, zone)
	switch {
	case errors.Join(fromErr, untilErr) != nil:
		return "frozen: its bounds can't be read"
	case f.From != "" && now.Before(from):
		return "not frozen yet, from " + when(from) + " on"
	case f.Until != "" && !now.Before(until):
		return "not frozen any more, since " + when(until)
	case f.Until != "":
		return "frozen until " + when(until)
	}
	return "frozen until it is cleared"
}

type freezeSetCmd struct {
	From  string `placeholder:"WHEN" help:"From then on, 2026-12-24 or 2026-12-24T18:00:00Z; without it from now on."`
	Until string `placeholder:"WHEN" help:"Until then; without it until it is cleared."`
	UTC   bool   `name:"utc" help:"Dates are days in UTC, not of the installation."`
	reasonFlag
}

func (c *freezeSetCmd) Run(ctx context.Context, a *app) error {
	f := client.Freeze{From: c.From, Until: c.Until, Reason: c.Reason, TZ: "local"}
	if c.UTC {
		f.TZ = "utc"
	}
	body, err := json.Marshal(f)
	if err != nil {
		return err
	}
	r := client.Request{Method: http.MethodPut, Path: "/api/freeze", Body: body, ContentType: client.JSON}
	return a.write(ctx, r, "schedules: %s", freezeText(&f, time.Now()))
}

type freezeClearCmd struct{ reasonFlag }

func (c *freezeClearCmd) Run(ctx context.Context, a *app) error {
	body, err := c.body(nil)
	if err != nil {
		return err
	}
	r := client.Request{Method: http.MethodDelete, Path: "/api/freeze", Body: body, ContentType: client.JSON}
	return a.write(ctx, r, "schedules fire again")
}
