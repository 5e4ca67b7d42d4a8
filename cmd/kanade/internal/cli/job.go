package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"kanade/cmd/kanade/internal/client"
	"kanade/cmd/kanade/internal/document"
	"kanade/libs/catalog"
)

type jobCmd struct {
	Create jobCreateCmd `cmd:"" help:"Create or replace jobs from YAML files."`
	List   jobListCmd   `cmd:"" help:"List the jobs."`
	Show   jobShowCmd   `cmd:"" help:"Print a job's manifest as it was written."`
	Delete jobDeleteCmd `cmd:"" help:"Delete a job; what it ran stays readable."`
	Kill   jobKillCmd   `cmd:"" help:"Kill every exec of a job that is under way."`
}

type jobCreateCmd struct {
	Paths []string `arg:"" name:"file-or-dir" help:"Files, or folders of which every *.yaml and *.yml is a job."`
}

func (c *jobCreateCmd) Run(ctx context.Context, a *app) error {
	return a.create(ctx, document.Job, c.Paths)
}

// create checks all files, then sends them. What the API refuses keeps no other file back.
func (a *app) create(ctx context.Context, kind document.Kind, paths []string) error {
	docs, skipped, err := document.Load(kind, paths)
	if err != nil {
		return fmt.Errorf("%w\nnothing was created", err)
	}
	for _, file := range skipped {
		fmt.Fprintf(a.err, "%s: not a %s, left out\n", file, kind)
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	answers := []json.RawMessage{}
	var errs []error
	for _, d := range docs {
		answer, err := post(ctx, c, d)
		if u, ok := errors.AsType[*client.Unreachable](err); ok {
			errs = append(errs, u)
			break
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d.File, err))
			continue
		}
		answers = append(answers, answer.Body)
		if !a.json {
			fmt.Fprintf(a.out, "%s %s saved (log %d)\n", d.Kind, d.ID, answer.Sequence)
		}
	}
	if a.json {
		errs = append(errs, a.printValue(answers))
	}
	return errors.Join(errs...)
}

func post(ctx context.Context, c *client.Client, d document.Document) (client.Answer, error) {
	r := client.Request{Method: http.MethodPost, Path: client.Path("api", string(d.Kind)+"s"), Body: d.Body, ContentType: client.YAML}
	if d.Type == catalog.JSON {
		r.ContentType = client.JSON
	}
	return c.Do(ctx, r)
}

type jobListCmd struct{}

func (c *jobListCmd) Run(ctx context.Context, a *app) error {
	var jobs []client.Job
	if done, err := a.get(ctx, "/api/jobs", nil, &jobs); done || err != nil {
		return err
	}
	t := newTable(a.out, "ID", "VERSION", "SHELL", "TIMEOUT", "LIVE", "DESCRIPTION")
	for _, j := range jobs {
		t.row(j.ID, j.Version, j.Execute.Shell, j.Execute.Timeout, j.Live.Running+j.Live.Pending, j.Description)
	}
	return t.end()
}

type jobShowCmd struct {
	ID string `arg:"" help:"Job." predictor:"job"`
}

func (c *jobShowCmd) Run(ctx context.Context, a *app) error { return a.show(ctx, document.Job, c.ID) }

// show prints a document: its source, or with --json itself.
func (a *app) show(ctx context.Context, kind document.Kind, id string) error {
	if a.json {
		_, err := a.get(ctx, client.Path("api", string(kind)+"s", id), nil, nil)
		return err
	}
	answer, err := a.do(ctx, client.Request{Method: http.MethodGet, Path: client.Path("api", string(kind)+"s", id, "yaml")})
	if err != nil {
		return err
	}
	_, err = a.out.Write(answer.Body)
	return err
}

type jobDeleteCmd struct {
	ID string `arg:"" help:"Job." predictor:"job"`
}

func (c *jobDeleteCmd) Run(ctx context.Context, a *app) error {
	r := client.Request{Method: http.MethodDelete, Path: client.Path("api", "jobs", c.ID)}
	return a.write(ctx, r, "job %s deleted", c.ID)
}
