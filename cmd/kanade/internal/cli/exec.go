package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"kanade/cmd/kanade/internal/client"
	"kanade/libs/events"
)

type execCmd struct {
	Run  execRunCmd  `cmd:"" default:"withargs" help:"Run a job; the word 'run' may be left out."`
	List execListCmd `cmd:"" help:"List execs, newest first."`
	Show execShowCmd `cmd:"" help:"Show an exec and what it did on every endpoint."`
}

// Help is shown below the flags.
func (c *execCmd) Help() string {
	return `Run a job, and wait for the end of it:

  kanade exec hello --all --wait
  kanade exec hello --group sales --pc pc-01,pc-02 --wait --timeout 5m

'kanade exec run --help' explains the flags. A job called list, show or run needs the word: kanade exec run list --all.`
}

type execRunCmd struct {
	Job            string        `arg:"" help:"Job." predictor:"job"`
	All            bool          `help:"On every endpoint."`
	Group          []string      `short:"g" aliases:"groups" help:"On the members of this group; may be given again." predictor:"group"`
	PC             []string      `name:"pc" short:"p" aliases:"pcs" help:"On this endpoint, be it there or not; may be given again." predictor:"pc"`
	Wait           bool          `short:"w" help:"Show what happens until the exec has ended. Exit code 0: all succeeded, 2: some did not, 3: nobody answered in time."`
	Timeout        time.Duration `default:"10m" help:"How long to wait; 0 waits to the end, whenever that is."`
	IdempotencyKey string        `placeholder:"KEY" help:"The same key runs the job once, however often it is asked for."`
}

func (c *execRunCmd) Run(ctx context.Context, a *app) error {
	target := map[string]any{"all": c.All, "groups": orEmpty(c.Group), "pcs": orEmpty(c.PC)}
	if !c.All && len(c.Group) == 0 && len(c.PC) == 0 {
		return usageOf("exec run", errors.New("on which endpoints? Say --all, --group GROUP or --pc PC"))
	}
	body, err := json.Marshal(map[string]any{"target": target})
	if err != nil {
		return err
	}
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	answer, err := api.Do(ctx, client.Request{
		Method: http.MethodPost, Path: client.Path("api", "exec", c.Job), Body: body, ContentType: client.JSON,
		IdempotencyKey: c.IdempotencyKey,
	})
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
	switch {
	case c.Wait:
		return a.wait(ctx, api, exec, c.Timeout)
	case a.json:
		return a.printJSON(answer.Body)
	}
	fmt.Fprintln(a.out, sentenceOf(exec))
	fmt.Fprintf(a.out, "See what happens: %s exec show %s\n", executable(), exec.ExecID)
	return nil
}

func usageOf(command string, err error) error {
	return fmt.Errorf("%w\nsee `kanade %s --help`", err, command)
}

func sentenceOf(e client.Requested) string {
	return fmt.Sprintf("exec %s: %s %s on %s (log %d)", e.ExecID, e.JobID, e.Version, plural(e.TargetCount, "endpoint"), e.Sequence)
}

func orEmpty(list []string) []string { return append([]string{}, list...) }

type execListCmd struct {
	Job    string `help:"Only of this job." predictor:"job"`
	Status string `enum:"pending,running,completed,expired," default:"" help:"Only pending, running, completed or expired ones."`
	Limit  int    `default:"20" help:"How many."`
}

func (c *execListCmd) Run(ctx context.Context, a *app) error {
	q := url.Values{"limit": {strconv.Itoa(c.Limit)}}
	setIf(q, "job_id", c.Job)
	setIf(q, "status", c.Status)
	var execs []client.Execution
	if done, err := a.get(ctx, "/api/executions", q, &execs); done || err != nil {
		return err
	}
	t := newTable(a.out, "EXEC", "JOB", "VERSION", "ASKED", "BY", "STATUS", "OUTCOME", "ENDPOINTS")
	for _, e := range execs {
		t.row(e.ExecID, e.JobID, e.Version, e.InitiatedAt, by(e), e.Status, e.Outcome, counts(e.Totals.Expected))
	}
	return t.end()
}

func setIf(q url.Values, key, value string) {
	if value != "" {
		q.Set(key, value)
	}
}

func by(e client.Execution) string {
	if e.ScheduleID != "" {
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

type execShowCmd struct {
	ID    string `arg:"" help:"Exec."`
	State string `help:"Only endpoints in this state." placeholder:"STATE"`
}

func (c *execShowCmd) Run(ctx context.Context, a *app) error {
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	v, err := readExec(ctx, api, c.ID, c.State, 0)
	if err != nil {
		return err
	}
	if a.json {
		return a.printValue(v)
	}
	return v.print(a.out)
}

// execView is all that the API says of an exec. The raw documents go out with --json.
type execView struct {
	Execution json.RawMessage   `json:"execution"`
	Targets   []json.RawMessage `json:"targets"`
	Results   json.RawMessage   `json:"results"`
}

func readExec(ctx context.Context, api *client.Client, id, state string, minSequence uint64) (v execView, err error) {
	answer, err := api.Do(ctx, client.Request{Method: http.MethodGet, Path: client.Path("api", "executions", id), MinSequence: minSequence})
	if err != nil {
		return v, err
	}
	if err := decode("exec "+id, answer.Body, &v); err != nil {
		return v, err
	}
	v.Targets = []json.RawMessage{}
	q := url.Values{"limit": {"1000"}}
	setIf(q, "state", state)
	r := client.Request{Method: http.MethodGet, Path: client.Path("api", "executions", id, "targets"), Query: q, MinSequence: minSequence}
	err = api.Pages(ctx, r, func(body []byte) error {
		var page []json.RawMessage
		if err := decode("targets", body, &page); err != nil {
			return err
		}
		v.Targets = append(v.Targets, page...)
		return nil
	})
	return v, err
}

func (v execView) print(w io.Writer) error {
	var e client.Execution
	if err := decode("exec", v.Execution, &e); err != nil {
		return err
	}
	f := newTable(w, "exec", e.ExecID)
	f.row("job", e.JobID+" "+e.Version)
	f.row("asked", cell(e.InitiatedAt)+" by "+by(e))
	f.row("status", e.Status)
	f.row("outcome", strings.TrimSpace(e.Outcome+" "+e.Reason))
	f.row("expected", counts(e.Totals.Expected))
	if others := counts(e.Totals.Others); others != "" {
		f.row("others", others)
	}
	f.row("expires", e.ExpiresAt)
	f.row("log", e.Sequence)
	if err := f.end(); err != nil || len(v.Targets) == 0 {
		return err
	}
	fmt.Fprintln(w)
	return v.printTargets(w)
}

func (v execView) printTargets(w io.Writer) error {
	t := newTable(w, "PC", "STATE", "EXIT", "AT", "RESULT", "REASON")
	for _, raw := range v.Targets {
		var x client.Target
		if err := decode("targets", raw, &x); err != nil {
			return err
		}
		t.row(x.PCID, x.State, x.Code, x.At, x.ResultID, x.Reason)
	}
	return t.end()
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
