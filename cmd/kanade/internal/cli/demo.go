package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"runtime"
	"strings"
	"time"

	"kanade/cmd/kanade/internal/client"
	"kanade/cmd/kanade/internal/document"
	"kanade/cmd/kanade/internal/up"
	"kanade/examples"
)

// What the demo registers and runs, by file and id.
const (
	demoJob      = "hello"
	demoSchedule = "disk-free-every-5-minutes"
)

// demoTimeout bounds each wait of the demo.
const demoTimeout = time.Minute

// demo shows the whole way on this machine: jobs and a schedule are registered, a job runs, and what came of it is read
// back. It uses the API as anybody would. The error is not nil unless the job succeeded.
func (a *app) demo(ctx context.Context, s *up.System) error {
	api, err := client.New(s.URL, s.Home.APIToken, s.Home.Path("api-token"))
	if err != nil {
		return err
	}
	defer api.Close()
	fmt.Fprintln(a.out, "\nThe demo: from a manifest to a result on this machine.")
	if err := a.demoRegister(ctx, api); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if err := demoAgent(ctx, api, s.PC); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if err := a.demoExec(ctx, api, s.PC); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if err := a.demoTicks(ctx, api); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return nil
}

// demoRegister saves the examples; on a later run they are there already and nothing changes.
func (a *app) demoRegister(ctx context.Context, api *client.Client) error {
	folder := "jobs/sh"
	if runtime.GOOS == "windows" {
		folder = "jobs/powershell"
	}
	files, err := fs.Glob(examples.FS(), folder+"/*.yaml")
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := a.demoSave(ctx, api, document.Job, file); err != nil {
			return err
		}
	}
	return a.demoSave(ctx, api, document.Schedule, "schedules/"+demoSchedule+".yaml")
}

func (a *app) demoSave(ctx context.Context, api *client.Client, kind document.Kind, file string) error {
	text, err := fs.ReadFile(examples.FS(), file)
	if err != nil {
		return err
	}
	doc, err := document.Parse(kind, "examples/"+file, text, func(name string) ([]byte, error) {
		return fs.ReadFile(examples.FS(), path.Join(path.Dir(file), name))
	})
	if err != nil {
		return err
	}
	answer, err := post(ctx, api, doc)
	if err != nil {
		return fmt.Errorf("%s: %w", doc.File, err)
	}
	fmt.Fprintf(a.out, "  %-8s  %s, from %s (log %d)\n", kind, doc.ID, doc.File, answer.Sequence)
	return nil
}

// demoAgent waits until the endpoint is known.
func demoAgent(ctx context.Context, api *client.Client, pc string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, demoTimeout, errors.New("this machine's agent was not heard; kanade.log may say why"))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := api.Do(ctx, client.Request{Method: http.MethodGet, Path: client.Path("api", "agents", pc)})
		if refused, ok := errors.AsType[*client.Refused](err); !ok || refused.Status != http.StatusNotFound {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (a *app) demoExec(ctx context.Context, api *client.Client, pc string) error {
	body, err := json.Marshal(map[string]any{"target": map[string]any{"pcs": []string{pc}}})
	if err != nil {
		return err
	}
	answer, err := api.Do(ctx, client.Request{
		Method: http.MethodPost, Path: client.Path("api", "exec", demoJob), Body: body, ContentType: client.JSON,
	})
	if err != nil {
		return err
	}
	var exec client.Requested
	if err := decode("exec", answer.Body, &exec); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "  %-8s  %s\n\n", "exec", strings.TrimPrefix(sentenceOf(exec), "exec "))
	f, err := follow(ctx, api, exec, demoTimeout, a.out)
	if err != nil {
		return err
	}
	if err := a.report(ctx, api, exec, f); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "\n%s\nWhat the exec left in the log:\n", f.summary(demoTimeout))
	for _, x := range f.facts {
		fmt.Fprintf(a.out, "  %6d  %s\n", x.sequence, shortType(x.eventType))
	}
	if f.exitCode() != 0 {
		return fmt.Errorf("the job did not succeed: %s", f.summary(demoTimeout))
	}
	return nil
}

func (a *app) demoTicks(ctx context.Context, api *client.Client) error {
	answer, err := api.Do(ctx, client.Request{
		Method: http.MethodGet, Path: client.Path("api", "schedules", demoSchedule, "preview"), Query: url.Values{"count": {"3"}},
	})
	if err != nil {
		return err
	}
	var due []client.Due
	if err := decode("preview", answer.Body, &due); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "\nThe next ticks of the schedule %s:\n", demoSchedule)
	for _, d := range due {
		fmt.Fprintf(a.out, "  %s\n", dueText(d))
	}
	return nil
}
