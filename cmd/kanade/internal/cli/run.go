package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"kanade/cmd/kanade/internal/client"
)

type runCmd struct {
	PC      string        `arg:"" name:"pc" help:"Endpoint." predictor:"pc"`
	Script  []string      `arg:"" help:"The script, after --; its words are joined with blanks."`
	Shell   string        `help:"sh, pwsh, powershell or cmd; without it powershell on Windows and sh elsewhere."`
	Timeout time.Duration `default:"1m" help:"How long it may run, in whole seconds."`
	RunAs   string        `placeholder:"WHO" help:"system, user or system_gui; without it system."`
	Key     string        `name:"key" aliases:"idempotency-key" placeholder:"KEY" help:"The same key runs it once, however often it is asked for."`
}

// Help is shown below the flags.
func (c *runCmd) Help() string {
	return `Runs a script on one endpoint that is there, and waits for its end. What it writes goes to stdout and stderr:

  kanade run pc-01 -- df -h
  kanade run pc-01 --shell pwsh --timeout 5m -- 'Get-Service | Where-Object Status -eq Stopped'

Exit code 0: it succeeded, 2: it did not, 3: the endpoint did not answer in time.`
}

func (c *runCmd) Run(ctx context.Context, a *app) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	if c.Timeout < time.Second {
		return usageOf("run", errors.New("--timeout: a script has at least 1s"))
	}
	shell := c.Shell
	if shell == "" {
		if shell, err = shellOf(ctx, api, c.PC); err != nil {
			return err
		}
	}
	doc := map[string]any{
		"pc_id": c.PC, "script": strings.Join(c.Script, " ") + "\n", "shell": shell, "timeout_secs": uint64(c.Timeout / time.Second),
	}
	if c.RunAs != "" {
		doc["run_as"] = c.RunAs
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	answer, err := api.Do(ctx, client.Request{
		Method: http.MethodPost, Path: "/api/run", Body: body, ContentType: client.JSON, IdempotencyKey: c.Key, Wait: c.Timeout + 10*time.Second,
	})
	if refused, ok := errors.AsType[*client.Refused](err); ok && refused.Status == http.StatusRequestTimeout {
		refused.Hint = cmp.Or(refused.Hint, fmt.Sprintf("`kanade agent show %s` says when it was last heard", c.PC))
		return coded{exitNobody, refused}
	}
	if err != nil {
		return err
	}
	var r client.Result
	if err := decode("run", answer.Body, &r); err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(answer.Body)
	} else {
		err = a.printRun(r)
	}
	if err == nil && r.State != "succeeded" {
		return coded{code: exitSome}
	}
	return err
}

// printRun writes each stream to where the script meant it to go, and how it ended to stderr.
func (a *app) printRun(r client.Result) error {
	if _, err := io.WriteString(a.out, printable(r.Stdout)); err != nil {
		return err
	}
	text := printable(r.Stderr)
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	text += cmp.Or(printable(r.PCID), "?") + ": " + r.State
	if r.ExitCode != nil && (r.State == "succeeded" || r.State == "failed") {
		text += fmt.Sprintf(", exit code %d", *r.ExitCode)
	}
	if r.Reason != "" {
		text += ", " + cell(r.Reason)
	}
	if d, ok := r.Took(); ok {
		text += ", took " + short(d)
	}
	for _, s := range streamsOf(r) {
		if s.truncated {
			text += fmt.Sprintf("; its %s has %d bytes and is cut: %s", s.name, s.bytes, s.rest)
		}
	}
	_, err := fmt.Fprintln(a.err, text)
	return err
}

// shellOf is the shell that an endpoint is sure to have.
func shellOf(ctx context.Context, api *client.Client, pc string) (string, error) {
	answer, err := api.Do(ctx, client.Request{Method: http.MethodGet, Path: client.Path("api", "agents", pc)})
	if err != nil {
		return "", withHint(err, "`kanade agent list` shows which there are; with --shell one that was never heard is waited for")
	}
	var x client.Agent
	if err := decode("agent", answer.Body, &x); err != nil {
		return "", err
	}
	if strings.EqualFold(x.OSFamily, "windows") || x.OSFamily == "" {
		return "powershell", nil
	}
	return "sh", nil
}
