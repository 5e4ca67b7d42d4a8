package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"kanade/cmd/kanade/internal/client"
	"kanade/libs/events"
)

type execCmd struct {
	Run    execRunCmd    `cmd:"" default:"withargs" help:"Run a job; the word 'run' may be left out."`
	List   execListCmd   `cmd:"" past:"" help:"List execs, newest first."`
	Show   execShowCmd   `cmd:"" past:"" help:"Show an exec and what it did on every endpoint."`
	Export execExportCmd `cmd:"" past:"" help:"Write all execs, or all endpoints of one, as CSV or lines of JSON."`
}

// Help is shown below the flags.
func (c *execCmd) Help() string {
	return `Run a job, and wait for the end of it:

  kanade exec hello --all --wait
  kanade exec hello --group sales --pc pc-01,pc-02 --wait --timeout 5m
  kanade exec patch --all --wave percent=10 --wave percent=100,after,delay=30m --max-failures 5 --dry-run

'kanade exec run --help' explains the flags. A job called list, show, export or run needs the word: kanade exec run list --all.`
}

type execRunCmd struct {
	Job string `arg:"" help:"Job." predictor:"job"`
	planFlags
	DryRun bool   `help:"Show what it would do, endpoint by endpoint; nothing is written."`
	Key    string `name:"key" aliases:"idempotency-key" placeholder:"KEY" help:"The same key runs the job once, however often it is asked for."`
	waitFlags
}

// waitFlags are those of commands that make an exec.
type waitFlags struct {
	Wait    bool          `short:"w" help:"Show what happens until the exec has ended. Exit code 0: all succeeded, 2: some did not, 3: nobody answered in time."`
	Timeout time.Duration `default:"10m" help:"How long to wait; 0 waits to the end, whenever that is."`
}

// Help is shown below the flags.
func (c *execRunCmd) Help() string { return waveHelp }

func (c *execRunCmd) Run(ctx context.Context, a *app) error {
	if c.DryRun && c.Wait {
		return usageOf("exec run", errors.New("--dry-run runs nothing, so there is nothing to --wait for"))
	}
	body, err := c.body(time.Now())
	if err != nil {
		return usageOf("exec run", err)
	}
	r := client.Request{
		Method: http.MethodPost, Path: client.Path("api", "exec", c.Job), Body: body, ContentType: client.JSON, IdempotencyKey: c.Key,
	}
	if c.DryRun {
		r.Query = url.Values{"dry_run": {"true"}}
		return a.dryRun(ctx, r)
	}
	return a.start(ctx, r, c.waitFlags)
}

// start sends what makes an exec, and says so or waits for its end.
func (a *app) start(ctx context.Context, r client.Request, w waitFlags) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	answer, err := api.Do(ctx, r)
	if err != nil {
		return err
	}
	var exec client.Requested
	if err := decode("exec", answer.Body, &exec); err != nil {
		return err
	}
	if exec.Sequence == 0 {
		exec.Sequence = answer.Sequence
	}
	a.noteRevoked(ctx, api, []string{exec.JobID}, exec.Sequence)
	switch {
	case w.Wait:
		return a.wait(ctx, api, exec, w.Timeout)
	case a.json:
		return a.printJSON(answer.Body)
	}
	fmt.Fprintln(a.out, sentenceOf(exec))
	fmt.Fprintf(a.out, "See what happens: %s exec show %s --watch\n", executable(), exec.ExecID)
	return nil
}

func usageOf(command string, err error) error {
	return fmt.Errorf("%w\nsee `kanade %s --help`", err, command)
}

func sentenceOf(e client.Requested) string {
	whom := plural(e.TargetCount, "endpoint")
	if e.Uncounted {
		whom = "endpoints that could not be counted"
		if e.TargetCount > 0 {
			whom = plural(e.TargetCount, "named endpoint") + " and others that could not be counted"
		}
	}
	return fmt.Sprintf("exec %s: %s %s on %s (log %d)", e.ExecID, e.JobID, e.Version, whom, e.Sequence)
}

func orEmpty(list []string) []string { return append([]string{}, list...) }

// execFlags narrow execs.
type execFlags struct {
	Job    string `help:"Only of this job." predictor:"job"`
	Status string `enum:"pending,running,completed,expired," default:"" help:"Only pending, running, completed or expired ones."`
}

func (f *execFlags) query() url.Values {
	q := url.Values{}
	setIf(q, "job_id", f.Job)
	setIf(q, "status", f.Status)
	return q
}

type execListCmd struct {
	execFlags
	Limit int `default:"20" help:"How many."`
}

func (c *execListCmd) Run(ctx context.Context, a *app) error {
	q := c.query()
	var execs []client.Execution
	if done, err := a.list(ctx, "/api/executions", q, c.Limit, &execs); done || err != nil {
		return err
	}
	t := newTable(a.out, "EXEC", "JOB", "VERSION", "ASKED", "BY", "STATUS", "OUTCOME", "ENDPOINTS")
	for _, e := range execs {
		t.row(e.ExecID, e.JobID, e.Version, e.InitiatedAt, by(e), picture{exec: e}.status(), e.Outcome, counts(e.Totals.Expected))
	}
	return t.end()
}

type execExportCmd struct {
	ID string `arg:"" optional:"" name:"exec" help:"Exec whose endpoints are written; without it all execs are."`
	execFlags
	State string `help:"Only endpoints in this state: succeeded, failed, …"`
	exportFlags
}

func (c *execExportCmd) Run(ctx context.Context, a *app) error {
	q := c.query()
	switch {
	case c.ID == "" && c.State != "":
		return usageOf("exec export", errors.New("--state is of the endpoints of an exec: name one"))
	case c.ID == "":
		return c.export(ctx, a, "execs", "/api/executions", q)
	case len(q) > 0:
		return usageOf("exec export", errors.New("--job and --status are of execs, not of the endpoints of one"))
	}
	setIf(q, "state", c.State)
	return c.export(ctx, a, "endpoints", client.Path("api", "executions", c.ID, "targets"), q)
}

func setIf(q url.Values, key, value string) {
	if value != "" {
		q.Set(key, value)
	}
}

func by(e client.Execution) string {
	if e.ScheduleID != "" && e.InitiatedBy != "operator" {
		return "schedule:" + e.ScheduleID
	}
	if e.Actor != "" {
		return e.Actor
	}
	return e.InitiatedBy
}

// counts is "3 succeeded, 1 failed", in the order in which an endpoint passes the states.
func counts(states map[string]int) string {
	var parts []string
	for _, s := range events.TargetStates() {
		if n := states[string(s)]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
	}
	return strings.Join(parts, ", ")
}

// failuresFirst puts what people look for at the top.
func failuresFirst(results []client.Result) {
	slices.SortStableFunc(results, func(a, b client.Result) int {
		if ok := func(r client.Result) bool { return r.ExitCode != nil && *r.ExitCode == 0 }; ok(a) != ok(b) {
			if ok(a) {
				return 1
			}
			return -1
		}
		return strings.Compare(a.PCID, b.PCID)
	})
}
