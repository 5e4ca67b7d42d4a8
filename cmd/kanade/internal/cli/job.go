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
	List   jobListCmd   `cmd:"" past:"" help:"List the jobs."`
	Show   jobShowCmd   `cmd:"" past:"" help:"Print a job's manifest as it was written."`
	Delete jobDeleteCmd `cmd:"" help:"Delete a job and revoke it; what it ran stays readable."`
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
	var saved []string
	var last uint64
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
		saved, last = append(saved, d.ID), max(last, answer.Sequence)
		if !a.json {
			fmt.Fprintf(a.out, "%s %s saved (log %d)\n", d.Kind, d.ID, answer.Sequence)
		}
	}
	switch kind {
	case document.Job:
		a.noteRevoked(ctx, c, saved, last)
	case document.Schedule:
		a.noteSilent(ctx, c, saved, last)
	}
	if a.json {
		errs = append(errs, a.printValue(answers))
	}
	return errors.Join(errs...)
}

func post(ctx context.Context, c *client.Client, d document.Document) (client.Answer, error) {
	return c.Do(ctx, request(d))
}

// request is what stores a document.
func request(d document.Document) client.Request {
	r := client.Request{Method: http.MethodPost, Path: client.Path("api", string(d.Kind)+"s"), Body: d.Body, ContentType: client.YAML}
	if d.Kind == document.Calendar {
		r.Method, r.Path = http.MethodPut, client.Path("api", "calendars", d.ID)
	}
	if d.Type == catalog.JSON {
		r.ContentType = client.JSON
	}
	return r
}

type jobListCmd struct{}

func (c *jobListCmd) Run(ctx context.Context, a *app) error {
	var jobs []client.Job
	if done, err := a.get(ctx, "/api/jobs", nil, &jobs); done || err != nil {
		return err
	}
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	revoked, err := revokedJobs(ctx, api, 0)
	if err != nil {
		return err
	}
	t := newTable(a.out, "ID", "VERSION", "SHELL", "TIMEOUT", "LIVE", "REVOKED", "DESCRIPTION")
	for _, j := range jobs {
		t.row(j.ID, j.Version, j.Execute.Shell, j.Execute.Timeout, j.Live.Running+j.Live.Pending, yesNo(revoked[j.ID]), j.Description)
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

// Help is shown below the flags.
func (c *jobDeleteCmd) Help() string {
	return `Deletes a job and revokes its id: endpoints skip what of it has not begun, and whatever is run under that id later, also
when the job is created again, until 'kanade unrevoke JOB'.`
}

func (c *jobDeleteCmd) Run(ctx context.Context, a *app) error {
	return a.delete(ctx, document.Job, c.ID, fmt.Sprintf(
		"job %s deleted and revoked: endpoints skip it, also when it is created again, until `kanade unrevoke %s`", c.ID, c.ID))
}

// delete deletes a document. That there is none is a success, and noted.
func (a *app) delete(ctx context.Context, kind document.Kind, id, sentence string) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	path := client.Path("api", string(kind)+"s", id)
	known, seen, err := has(ctx, api, path, 0)
	if err != nil {
		return err
	}
	answer, err := api.Do(ctx, client.Request{Method: http.MethodDelete, Path: path})
	if err != nil {
		return err
	}
	unknown := !known && answer.Sequence <= seen
	if unknown {
		a.note("no %s %s is known: nothing was deleted", kind, id)
	}
	if a.json {
		return a.printValue(map[string]uint64{"sequence": answer.Sequence})
	}
	if !unknown {
		fmt.Fprintln(a.out, sentence)
	}
	return nil
}

// has reports whether the API knows what is at a path, as of at least a sequence, and how much of the log it had seen.
func has(ctx context.Context, api *client.Client, path string, minSequence uint64) (known bool, seen uint64, err error) {
	answer, err := api.Do(ctx, client.Request{Method: http.MethodGet, Path: path, MinSequence: minSequence})
	if refused, ok := errors.AsType[*client.Refused](err); ok && refused.Status == http.StatusNotFound {
		return false, refused.Sequence, nil
	}
	return err == nil, answer.Sequence, err
}

// noteUnknown notes that there is no such job, as of at least a sequence: what is done to it is done to its id alone.
func (a *app) noteUnknown(ctx context.Context, api *client.Client, job string, minSequence uint64) {
	known, _, err := has(ctx, api, client.Path("api", "jobs", job), minSequence)
	switch {
	case err != nil:
		a.note("whether there is a job %s is not known: %v", job, err)
	case !known:
		a.note("no job %s is known; `kanade job list` shows which there are", job)
	}
}
