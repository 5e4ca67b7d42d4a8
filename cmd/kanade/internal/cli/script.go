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
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	answer, err := api.Do(ctx, client.Request{
		Method: http.MethodPost, Path: client.Path("api", "scripts", id, word), Body: body, ContentType: client.JSON,
	})
	if err != nil {
		return err
	}
	a.noteUnknown(ctx, api, id, answer.Sequence)
	return a.written(answer, sentence, args...)
}

// revokedJobs are the ids that are revoked, as of at least a sequence.
func revokedJobs(ctx context.Context, api *client.Client, minSequence uint64) (map[string]bool, error) {
	answer, err := api.Do(ctx, client.Request{Method: http.MethodGet, Path: "/api/scripts/status", MinSequence: minSequence})
	if err != nil {
		return nil, err
	}
	var words map[string]string
	if err := decode("revocations", answer.Body, &words); err != nil {
		return nil, err
	}
	revoked := map[string]bool{}
	for id, word := range words {
		revoked[id] = word == "REVOKED"
	}
	return revoked, nil
}

// noteRevokedJob is noteRevoked for one job.
func (a *app) noteRevokedJob(ctx context.Context, job string) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	a.noteRevoked(ctx, api, []string{job}, 0)
	return nil
}

// noteRevoked notes which of the jobs endpoints skip, as of at least a sequence. It keeps nothing back: that it can't be
// read is noted, too.
func (a *app) noteRevoked(ctx context.Context, api *client.Client, jobs []string, minSequence uint64) {
	if len(jobs) == 0 {
		return
	}
	revoked, err := revokedJobs(ctx, api, minSequence)
	if err != nil {
		a.note("whether it is revoked is not known: %v", err)
	}
	for _, id := range jobs {
		if revoked[id] {
			a.note("job %s is revoked: endpoints skip it until `kanade unrevoke %s`", id, id)
		}
	}
}
