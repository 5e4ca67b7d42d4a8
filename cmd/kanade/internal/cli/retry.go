package cli

import (
	"context"
	"net/http"

	"kanade/cmd/kanade/internal/client"
)

type retryCmd struct {
	intent
	State  []string `help:"Only endpoints in this state, one in which they have ended (failed, skipped, …); may be given again." placeholder:"STATE"`
	Pinned bool     `help:"Run the script of that exec again, not the job as it is now."`
	Key    string   `name:"key" aliases:"idempotency-key" placeholder:"KEY" help:"The same key makes one exec, however often it is asked for."`
	waitFlags
}

// Help is shown below the flags.
func (c *retryCmd) Help() string {
	return `A new exec of the job as it is now, on the endpoints that did not succeed: those that failed, timed out, were killed, expired,
were skipped by themselves or by a stop, or of whom it is not known. It goes out at once, without the waves of the first one.
With --pinned, when the job has been deleted, and for what 'kanade run' ran, it is the script of the first one that runs again.`
}

func (c *retryCmd) Run(ctx context.Context, a *app) error {
	more := map[string]any{}
	if len(c.State) > 0 {
		more["states"] = c.State
	}
	if c.Pinned {
		more["pinned"] = true
	}
	body, err := c.body(more)
	if err != nil {
		return err
	}
	r := client.Request{
		Method: http.MethodPost, Path: client.Path("api", "executions", c.ID, "retry"), Body: body, ContentType: client.JSON, IdempotencyKey: c.Key,
	}
	return withHint(a.start(ctx, r, c.waitFlags), knownExecs)
}
