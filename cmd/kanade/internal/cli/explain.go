package cli

import (
	"context"
	"fmt"
	"strings"

	"kanade/cmd/kanade/internal/client"
)

type explainCmd struct {
	ID string `arg:"" name:"exec" help:"Exec." predictor:"exec"`
	PC string `arg:"" name:"pc" help:"Endpoint." predictor:"pc"`
}

func (c *explainCmd) Run(ctx context.Context, a *app) error {
	var x client.Explanation
	path := client.Path("api", "executions", c.ID, "targets", c.PC, "explain")
	if done, err := a.get(ctx, path, nil, &x); done || err != nil {
		return withHint(err, knownExecs)
	}
	state := x.State
	if state == "" {
		state = "not a target"
	}
	if x.Reason != "" {
		state += " (" + x.Reason + ")"
	}
	fmt.Fprintf(a.out, "%s in exec %s: %s\n%s\n\n", c.PC, c.ID, printable(state), strings.TrimSpace(printable(x.Summary)))
	t := newTable(a.out, "LOG", "AT", "FACT", "WHAT IT SAYS")
	for _, s := range x.Steps {
		t.row(s.Sequence, s.At, s.Fact, s.Text)
	}
	return t.end()
}
