package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"kanade/cmd/kanade/internal/client"
	"kanade/libs/events"
)

type resultCmd struct {
	List   resultListCmd   `cmd:"" past:"" help:"List results, newest first."`
	Show   resultShowCmd   `cmd:"" past:"" help:"Show a result with its output."`
	Output resultOutputCmd `cmd:"" past:"" help:"Print what is kept of what a script wrote, as it is."`
	Search resultSearchCmd `cmd:"" past:"" help:"Find results by words of their outputs, the last ended first."`
	Groups resultGroupsCmd `cmd:"" past:"" help:"Show what an exec or a job gave: results that are equal are one line."`
	Export resultExportCmd `cmd:"" past:"" help:"Write all results as CSV or lines of JSON."`
}

// resultFlags narrow results.
type resultFlags struct {
	Job    string `help:"Only of this job." predictor:"job"`
	Exec   string `help:"Only of this exec."`
	PC     string `name:"pc" help:"Only of this endpoint." predictor:"pc"`
	Status string `enum:"success,failure,running," default:"" help:"Only success, failure or running."`
	Since  string `help:"Only what started since: a time like 2026-01-31T08:00:00Z, or how long ago (36h)." placeholder:"TIME"`
}

func (f *resultFlags) query(now time.Time) (url.Values, error) {
	q := url.Values{}
	setIf(q, "status", f.Status)
	for key, id := range map[string]string{"job_id": f.Job, "exec_id": f.Exec, "pc_id": f.PC} {
		if id != "" {
			q.Set(key, "^"+regexp.QuoteMeta(id)+"$")
		}
	}
	since, err := sinceText(f.Since, now)
	setIf(q, "since", since)
	return q, err
}

// sinceText is what --since says as the API reads it; empty for none.
func sinceText(flag string, now time.Time) (string, error) { return timeText("--since", flag, now) }

// agoText is when something was that long ago (36h), as the API reads it; false where the text is no duration.
func agoText(text string, now time.Time) (string, bool) {
	ago, err := time.ParseDuration(text)
	return now.Add(-ago).UTC().Format(time.RFC3339Nano), err == nil
}

// timeText is what the flag of a time says as the API reads it; empty for none.
func timeText(name, flag string, now time.Time) (string, error) {
	if then, ok := agoText(flag, now); ok {
		return then, nil
	}
	if _, err := time.Parse(time.RFC3339, flag); err != nil && flag != "" {
		return "", fmt.Errorf("%s %q: expected a time like 2026-01-31T08:00:00Z, or how long ago, like 36h", name, flag)
	}
	return flag, nil
}

type resultListCmd struct {
	resultFlags
	Limit int `default:"20" help:"How many."`
}

func (c *resultListCmd) Run(ctx context.Context, a *app) error {
	q, err := c.query(time.Now())
	if err != nil {
		return err
	}
	return a.listResults(ctx, q, c.Limit, excerpt)
}

// listResults prints results, of each the line that output picks.
func (a *app) listResults(ctx context.Context, q url.Values, limit int, output func(client.Result) string) error {
	var results []client.Result
	if done, err := a.list(ctx, "/api/results", q, limit, &results); done || err != nil {
		return err
	}
	t := newTable(a.out, "RESULT", "PC", "JOB", "STARTED", "TOOK", "STATE", "EXIT", "OUTPUT")
	for _, r := range results {
		t.row(r.ResultID, r.PCID, r.JobID, r.StartedAt, took(r), stateOfResult(r), r.ExitCode, output(r))
	}
	return t.end()
}

type resultSearchCmd struct {
	Words []string `arg:"" help:"All of them must be in an output. Quoted words stand side by side; a star at the end of a word is its rest."`
	resultFlags
	Limit int `default:"20" help:"How many."`
}

func (c *resultSearchCmd) Run(ctx context.Context, a *app) error {
	q, err := c.query(time.Now())
	if err != nil {
		return err
	}
	var words []string
	for _, w := range c.Words {
		if strings.ContainsAny(w, " \t\n") && !strings.Contains(w, `"`) {
			w = `"` + w + `"` // what the shell was told to keep together
		}
		words = append(words, w)
	}
	q.Set("q", strings.Join(words, " "))
	return a.listResults(ctx, q, c.Limit, func(r client.Result) string { return passage(r, c.Words) })
}

// passage is the first line of the output that holds one of the words.
func passage(r client.Result, words []string) string {
	for line := range strings.SplitSeq(r.Stdout+"\n"+r.Stderr, "\n") {
		for _, w := range words {
			w = strings.ToLower(strings.Trim(w, `"*`))
			if at := strings.Index(strings.ToLower(line), w); at >= 0 {
				return shortLine(strings.TrimSpace(line))
			}
		}
	}
	return excerpt(r)
}

type resultGroupsCmd struct {
	Exec   string `help:"Of this exec." xor:"of" required:""`
	Job    string `help:"Of this job." predictor:"job" xor:"of" required:""`
	Status string `enum:"success,failure," default:"" help:"Only success or failure."`
	Since  string `help:"Only what started since: a time, or how long ago (36h)." placeholder:"TIME"`
	Limit  int    `default:"20" help:"How many groups."`
}

func (c *resultGroupsCmd) Run(ctx context.Context, a *app) error {
	since, err := sinceText(c.Since, time.Now())
	if err != nil {
		return err
	}
	q := url.Values{"limit": {strconv.Itoa(c.Limit)}}
	setIf(q, "exec_id", c.Exec)
	setIf(q, "job_id", c.Job)
	setIf(q, "status", c.Status)
	setIf(q, "since", since)
	var groups []client.ResultGroup
	if done, err := a.get(ctx, "/api/results/groups", q, &groups); done || err != nil {
		return err
	}
	t := newTable(a.out, "RESULTS", "STATE", "EXIT", "OUTPUT", "ONE OF THEM", "PCS")
	for _, g := range groups {
		pcs := strings.Join(g.PCs, ",")
		if len(g.PCs) < g.Count {
			pcs += ",…"
		}
		state := strings.TrimSpace(g.State + " " + g.Reason)
		t.row(g.Count, state, g.ExitCode, excerpt(client.Result{Stdout: g.Stdout, Stderr: g.Stderr}), g.ResultID, pcs)
	}
	return t.end()
}

type resultExportCmd struct {
	resultFlags
	exportFlags
}

func (c *resultExportCmd) Run(ctx context.Context, a *app) error {
	q, err := c.query(time.Now())
	if err != nil {
		return err
	}
	return c.export(ctx, a, "results", "/api/results", q)
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
	return shortLine(line)
}

func shortLine(line string) string {
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
	return nil
}

type resultOutputCmd struct {
	ID     string `arg:"" help:"Result."`
	Stream string `arg:"" optional:"" enum:"stdout,stderr" default:"stdout" help:"stdout or stderr; without it stdout."`
}

// Help is shown below the flags.
func (c *resultOutputCmd) Help() string {
	return `Prints the output to its last byte, up to 8 MiB. Of a longer one the beginning and the end are kept, 8 MiB together, with a line
between them that says how many bytes are left out. What no longer stands in the result itself is kept for 30 days.`
}

func (c *resultOutputCmd) Run(ctx context.Context, a *app) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	r := client.Request{Method: http.MethodGet, Path: client.Path("api", "results", c.ID, "output", c.Stream)}
	if !a.json {
		return api.Copy(ctx, r, a.out)
	}
	answer, err := api.Do(ctx, r)
	if err != nil {
		return err
	}
	return a.printValue(map[string]string{c.Stream: string(answer.Body)})
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
	for _, s := range streamsOf(r) {
		s.print(w, lines)
	}
}

// stream is one output of a run: its text, of how many bytes, and how to get at what is kept beside it.
type stream struct {
	name, text string
	bytes      int64
	truncated  bool
	rest       string
}

func streamsOf(r client.Result) []stream {
	streams := []stream{
		{name: "stdout", text: r.Stdout, bytes: r.StdoutBytes, truncated: r.StdoutTruncated, rest: r.StdoutObject},
		{name: "stderr", text: r.Stderr, bytes: r.StderrBytes, truncated: r.StderrTruncated, rest: r.StderrObject},
	}
	for i := range streams {
		s := &streams[i]
		if s.rest == "" {
			s.rest = "only its beginning and its end were kept"
			continue
		}
		s.rest = fmt.Sprintf("`kanade result output %s %s` prints it whole", r.ResultID, s.name)
		if s.bytes > events.MaxObjectOutput {
			s.rest = fmt.Sprintf("`kanade result output %s %s` prints the %d MiB that are kept, from its beginning and its end",
				r.ResultID, s.name, events.MaxObjectOutput>>20)
		}
	}
	return streams
}

// cutMark stands in a truncated text where something is left out.
var cutMark = regexp.MustCompile(`\n?\[\.\.\. \d+ bytes left out \.\.\.\]\n?`)

func (s stream) print(w io.Writer, limit int) {
	text := strings.TrimRight(printable(s.text), "\n")
	if text == "" {
		return
	}
	fmt.Fprintf(w, "  %s:\n", s.name)
	lines := strings.Split(text, "\n")
	more := 0
	if limit > 0 && len(lines) > limit {
		more = len(lines) - limit
		lines = lines[:limit]
	}
	for _, line := range lines {
		fmt.Fprintf(w, "    %s\n", line)
	}
	switch {
	case s.truncated:
		shown := len(cutMark.ReplaceAllString(strings.Join(lines, "\n"), "")) + 1
		fmt.Fprintf(w, "    … %d of %d bytes are shown; %s\n", shown, s.bytes, s.rest)
	case more > 0:
		fmt.Fprintf(w, "    … %s more\n", plural(more, "line"))
	}
}
