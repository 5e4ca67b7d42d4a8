package cli

import (
	"context"
	"net/url"
	"regexp"
	"time"

	"kanade/cmd/kanade/internal/client"
)

type auditCmd struct {
	List   auditListCmd   `cmd:"" past:"" default:"withargs" help:"List what operators did, the last first."`
	Export auditExportCmd `cmd:"" past:"" help:"Write all that operators did as CSV or lines of JSON."`
}

// auditFlags narrow acts.
type auditFlags struct {
	Who    string `help:"Only what this person did." placeholder:"NAME"`
	Actor  string `help:"Only what this kind of actor did: operator, or what an old CLI calls itself."`
	Action string `help:"Only this: job_upsert, exec, kill, …"`
	Target string `help:"Only what was done to this: a job, a schedule, an exec, an endpoint." placeholder:"ID"`
	Match  string `help:"Only what this regular expression finds something in the details of." placeholder:"REGEX"`
	Since  string `help:"Only since: a time like 2026-01-31T08:00:00Z, or how long ago (36h)." placeholder:"TIME"`
	Until  string `help:"Only before: a time, or how long ago." placeholder:"TIME"`
}

func (c *auditFlags) query(now time.Time) (url.Values, error) {
	q := url.Values{}
	for key, text := range map[string]string{"sub": c.Who, "actor": c.Actor, "payload": c.Match} {
		setIf(q, key, text)
	}
	for key, text := range map[string]string{"action": c.Action, "target": c.Target} {
		if text != "" {
			q.Set(key, "^"+regexp.QuoteMeta(text)+"$")
		}
	}
	for key, flag := range map[string]string{"since": c.Since, "until": c.Until} {
		text, err := timeText("--"+key, flag, now)
		if err != nil {
			return nil, err
		}
		setIf(q, key, text)
	}
	return q, nil
}

type auditListCmd struct {
	auditFlags
	Limit int `default:"20" help:"How many."`
}

func (c *auditListCmd) Run(ctx context.Context, a *app) error {
	q, err := c.query(time.Now())
	if err != nil {
		return err
	}
	var acts []client.Act
	if done, err := a.list(ctx, "/api/audit", q, c.Limit, &acts); done || err != nil {
		return err
	}
	t := newTable(a.out, "LOG", "WHEN", "WHO", "ACTION", "TARGET", "DETAILS")
	for _, x := range acts {
		who := x.Sub
		if who == "" {
			who = x.Actor
		}
		t.row(x.Sequence, x.OccurredAt, who, x.Action, x.Target, shortLine(string(x.Payload)))
	}
	return t.end()
}

type auditExportCmd struct {
	auditFlags
	exportFlags
}

func (c *auditExportCmd) Run(ctx context.Context, a *app) error {
	q, err := c.query(time.Now())
	if err != nil {
		return err
	}
	return c.export(ctx, a, "acts", "/api/audit", q)
}
