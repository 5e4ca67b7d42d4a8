package cli

import (
	"context"
	"net/http"

	"kanade/cmd/kanade/internal/client"
)

type revokeCmd struct {
	ID string `arg:"" name:"job" help:"Job." predictor:"job"`
	reasonFlag
}

func (c *revokeCmd) Run(ctx context.Context, a *app) error {
	return a.changeScript(ctx, c.ID, "revoke", c.reasonFlag, "job %s is revoked: endpoints that have not begun it skip it, until `kanade unrevoke %s`", c.ID, c.ID)
}

type unrevokeCmd struct {
	ID string `arg:"" name:"job" help:"Job." predictor:"job"`
	reasonFlag
}

func (c *unrevokeCmd) Run(ctx context.Context, a *app) error {
	return a.changeScript(ctx, c.ID, "unrevoke", c.reasonFlag, "job %s may run again; what was skipped meanwhile stays skipped", c.ID)
}

func (a *app) changeScript(ctx context.Context, id, word string, f reasonFlag, sentence string, args ...any) error {
	body, err := f.body(nil)
	if err != nil {
		return err
	}
	r := client.Request{Method: http.MethodPost, Path: client.Path("api", "scripts", id, word), Body: body, ContentType: client.JSON}
	return a.write(ctx, r, sentence, args...)
}
