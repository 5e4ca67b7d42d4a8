package cli

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"kanade/cmd/kanade/internal/client"
)

type resultCmd struct {
	List resultListCmd `cmd:"" help:"List results, newest first."`
	Show resultShowCmd `cmd:"" help:"Show a result with its output."`
}

type resultListCmd struct {
	Job    string `help:"Only of this job." predictor:"job"`
	Exec   string `help:"Only of this exec."`
	PC     string `name:"pc" help:"Only of this endpoint." predictor:"pc"`
	Status string `enum:"success,failure,running," default:"" help:"Only success, failure or running."`
	Limit  int    `default:"20" help:"How many."`
}

func (c *resultListCmd) Run(ctx context.Context, a *app) error {
	q := url.Values{"limit": {strconv.Itoa(c.Limit)}}
	setIf(q, "status", c.Status)
	for key, id := range map[string]string{"job_id": c.Job, "exec_id": c.Exec, "pc_id": c.PC} {
		if id != "" {
			q.Set(key, "^"+regexp.QuoteMeta(id)+"$")
		}
	}
	var results []client.Result
	if done, err := a.get(ctx, "/api/results", q, &results); done || err != nil {
		return err
	}
	t := newTable(a.out, "RESULT", "PC", "JOB", "STARTED", "TOOK", "STATE", "EXIT", "OUTPUT")
	for _, r := range results {
		t.row(r.ResultID, r.PCID, r.JobID, r.StartedAt, took(r), stateOfResult(r), r.ExitCode, excerpt(r))
	}
	return t.end()
}

func took(r client.Result) any {
	if d, ok := r.Took(); ok {
		return d
	}
	return nil
}

func stateOfResult(r client.Result) string {
	switch {
	case r.State != "":
		return r.State
	case r.FinishedAt == nil:
		return "running"
	case r.ExitCode != nil && *r.ExitCode == 0:
		return "succeeded"
	}
	return "failed"
}

// excerpt is the beginning of what the script said.
func excerpt(r client.Result) string {
	text := strings.TrimSpace(r.Stdout)
	if text == "" {
		text = strings.TrimSpace(r.Stderr)
	}
	line, _, _ := strings.Cut(text, "\n")
	if runes := []rune(line); len(runes) > 48 {
		line = string(runes[:47]) + "…"
	}
	return line
}

type resultShowCmd struct {
	ID string `arg:"" help:"Result."`
}

func (c *resultShowCmd) Run(ctx context.Context, a *app) error {
	var r client.Result
	if done, err := a.get(ctx, client.Path("api", "results", c.ID), nil, &r); done || err != nil {
		return err
	}
	t := newTable(a.out, "result", r.ResultID)
	t.row("pc", r.PCID)
	t.row("job", r.JobID+" "+r.Version)
	t.row("exec", r.ExecID)
	t.row("state", strings.TrimSpace(stateOfResult(r)+" "+r.Reason))
	t.row("exit code", r.ExitCode)
	t.row("started", r.StartedAt)
	t.row("finished", r.FinishedAt)
	t.row("took", took(r))
	if err := t.end(); err != nil {
		return err
	}
	printStreams(a.out, r, 0)
	for stream, object := range map[string]string{"stdout": r.StdoutObject, "stderr": r.StderrObject} {
		if object != "" {
			fmt.Fprintf(a.out, "The whole %s: GET %s%s\n", stream, a.BackendURL, client.Path("api", "results", r.ResultID, "output", stream))
		}
	}
	return nil
}

// printOutput prints one endpoint's end and what its script wrote, at most so many lines of each stream (0: all).
func printOutput(w io.Writer, r client.Result, lines int) {
	fmt.Fprintf(w, "\n%s: %s", printable(r.PCID), stateOfResult(r))
	if r.ExitCode != nil {
		fmt.Fprintf(w, ", exit code %d", *r.ExitCode)
	}
	if d, ok := r.Took(); ok {
		fmt.Fprintf(w, ", took %s", short(d))
	}
	fmt.Fprintln(w)
	printStreams(w, r, lines)
}

func printStreams(w io.Writer, r client.Result, lines int) {
	printStream(w, "stdout", r.Stdout, lines)
	printStream(w, "stderr", r.Stderr, lines)
}

func printStream(w io.Writer, name, text string, limit int) {
	text = strings.TrimRight(printable(text), "\n")
	if text == "" {
		return
	}
	fmt.Fprintf(w, "  %s:\n", name)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if i == limit && limit > 0 {
			fmt.Fprintf(w, "    … %s more\n", plural(len(lines)-limit, "line"))
			return
		}
		fmt.Fprintf(w, "    %s\n", line)
	}
}
