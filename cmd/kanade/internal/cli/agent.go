package cli

import (
	"context"
	"net/url"

	"kanade/cmd/kanade/internal/client"
)

type agentCmd struct {
	List   agentListCmd   `cmd:"" past:"" help:"List the endpoints."`
	Show   agentShowCmd   `cmd:"" past:"" help:"Show an endpoint."`
	Export agentExportCmd `cmd:"" past:"" help:"Write all endpoints as CSV or lines of JSON."`
}

type agentListCmd struct {
	Query string `short:"q" help:"Only those whose id or host name holds this."`
	Limit int    `help:"How many; 0 is all."`
}

func (c *agentListCmd) Run(ctx context.Context, a *app) error {
	q := url.Values{}
	setIf(q, "q", c.Query)
	var agents []client.Agent
	read := func() (bool, error) { return a.get(ctx, "/api/agents", q, &agents) }
	if c.Limit > 0 {
		read = func() (bool, error) { return a.list(ctx, "/api/agents", q, c.Limit, &agents) }
	}
	if done, err := read(); done || err != nil {
		return err
	}
	t := newTable(a.out, "PC", "HOST", "SYSTEM", "AGENT", "ALIVE", "LAST HEARD", "GROUPS")
	for _, x := range agents {
		t.row(x.PCID, x.Hostname, x.OSFamily, x.AgentVersion, yesNo(x.Alive), x.LastHeartbeat, x.Groups)
	}
	return t.end()
}

type agentExportCmd struct {
	Query string `short:"q" help:"Only those whose id or host name holds this."`
	exportFlags
}

func (c *agentExportCmd) Run(ctx context.Context, a *app) error {
	q := url.Values{}
	setIf(q, "q", c.Query)
	return c.export(ctx, a, "endpoints", "/api/agents", q)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

type agentShowCmd struct {
	PC string `arg:"" name:"pc" help:"Endpoint." predictor:"pc"`
}

func (c *agentShowCmd) Run(ctx context.Context, a *app) error {
	var x client.Agent
	if done, err := a.get(ctx, client.Path("api", "agents", c.PC), nil, &x); done || err != nil {
		return err
	}
	t := newTable(a.out, "pc", x.PCID)
	t.row("host", x.Hostname)
	t.row("system", x.OSFamily)
	t.row("agent", x.AgentVersion)
	t.row("alive", yesNo(x.Alive))
	t.row("last heard", x.LastHeartbeat)
	t.row("groups", x.Groups)
	return t.end()
}
