package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"kanade/cmd/kanade/internal/client"
)

// intent is what all commands that steer an exec have in common.
type intent struct {
	ID string `arg:"" name:"exec" help:"Exec." predictor:"exec"`
	reasonFlag
}

// reasonFlag is kept in the log with what it is given for.
type reasonFlag struct {
	Reason string `short:"r" help:"Why; it is kept in the log."`
}

// body is the reason as the API takes it; other keys may stand beside it.
func (f reasonFlag) body(more map[string]any) ([]byte, error) {
	doc := map[string]any{}
	for key, value := range more {
		doc[key] = value
	}
	if f.Reason != "" {
		doc["reason"] = f.Reason
	}
	return json.Marshal(doc)
}

// steer sends an intent, and with --json prints the answer; else it is decoded into v and done is false.
func (a *app) steer(ctx context.Context, i intent, word string, more map[string]any, v any) (done bool, err error) {
	body, err := i.body(more)
	if err != nil {
		return false, err
	}
	answer, err := a.do(ctx, client.Request{
		Method: http.MethodPost, Path: client.Path("api", "executions", i.ID, word), Body: body, ContentType: client.JSON,
	})
	if err != nil {
		return false, withHint(err, knownExecs)
	}
	if a.json {
		return true, a.printJSON(answer.Body)
	}
	return false, decode(word, answer.Body, v)
}

type killCmd struct{ intent }

func (c *killCmd) Run(ctx context.Context, a *app) error {
	var s client.Stopped
	if done, err := a.steer(ctx, c.intent, "kill", nil, &s); done || err != nil {
		return err
	}
	fmt.Fprintf(a.out, "exec %s is killed (log %d)\n", c.ID, s.Sequence)
	for _, line := range reachedBy(s) {
		fmt.Fprintln(a.out, line)
	}
	a.printState(s)
	return nil
}

// reachedBy says whom a kill reached.
func reachedBy(s client.Stopped) []string {
	if s.RunningAll == nil || s.NotStarted == nil {
		return []string{"Whom it reaches is not known at the moment: `kanade exec show` tells what becomes of them."}
	}
	var lines []string
	switch n := *s.RunningAll; {
	case n == 0:
		lines = append(lines, "It was running nowhere.")
	default:
		text := "Told to stop it: " + plural(n, "endpoint") + ", " + strings.Join(s.Running, ", ")
		if more := n - len(s.Running); more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		lines = append(lines, cell(text))
	}
	switch n := *s.NotStarted; n {
	case 0:
	default:
		lines = append(lines, plural(n, "endpoint")+" had not begun, and will not: also those that are away.")
	}
	return lines
}

// printState says how the exec stands after an intent, as far as the API knew it in time.
func (a *app) printState(s client.Stopped) {
	if s.Status == "" || s.Totals == nil {
		fmt.Fprintf(a.out, "See what becomes of it: %s exec show %s --watch\n", executable(), s.ExecID)
		return
	}
	text := s.Status
	if s.Outcome != "" {
		text += ", " + s.Outcome
	}
	if states := statesOf(*s.Totals); states != "" {
		text += ": " + states
	}
	fmt.Fprintln(a.out, "It is "+text+".")
}

type cancelCmd struct{ intent }

func (c *cancelCmd) Run(ctx context.Context, a *app) error {
	return a.announce(ctx, c.intent, "cancel", "exec %s is cancelled: nothing more of it begins, what runs goes on (log %d)\n")
}

type pauseCmd struct{ intent }

func (c *pauseCmd) Run(ctx context.Context, a *app) error {
	return a.announce(ctx, c.intent, "pause", "exec %s is paused: no further wave goes out until it is resumed (log %d)\n")
}

type resumeCmd struct{ intent }

func (c *resumeCmd) Run(ctx context.Context, a *app) error {
	return a.announce(ctx, c.intent, "resume", "exec %s goes on (log %d)\n")
}

// announce sends an intent that says nothing but how the exec stands.
func (a *app) announce(ctx context.Context, i intent, word, sentence string) error {
	var s client.Stopped
	if done, err := a.steer(ctx, i, word, nil, &s); done || err != nil {
		return err
	}
	fmt.Fprintf(a.out, sentence, i.ID, s.Sequence)
	a.printState(s)
	return nil
}

type releaseCmd struct {
	intent
	Wave *int `placeholder:"N" help:"This wave, counted from 0 as 'kanade exec show' does; without it the next one that has not gone out."`
}

func (c *releaseCmd) Run(ctx context.Context, a *app) error {
	more := map[string]any{}
	if c.Wave != nil {
		more["wave"] = *c.Wave
	}
	var s struct {
		Wave     int    `json:"wave"`
		Sequence uint64 `json:"sequence"`
	}
	if done, err := a.steer(ctx, c.intent, "release", more, &s); done || err != nil {
		return err
	}
	fmt.Fprintf(a.out, "wave %d of exec %s goes out (log %d)\n", s.Wave, c.ID, s.Sequence)
	return nil
}

type jobKillCmd struct {
	ID string `arg:"" name:"job" help:"Job." predictor:"job"`
	reasonFlag
}

// Run kills, and then names the execs of the job whose stop is newer than what the log held before.
func (c *jobKillCmd) Run(ctx context.Context, a *app) error {
	body, err := c.body(nil)
	if err != nil {
		return err
	}
	api, err := a.client()
	if err != nil {
		return err
	}
	defer api.Close()
	list := client.Request{Method: http.MethodGet, Path: "/api/executions", Query: url.Values{"job_id": {c.ID}, "limit": {"1000"}}}
	before, err := api.Do(ctx, list)
	if err != nil {
		return err
	}
	answer, err := api.Do(ctx, client.Request{
		Method: http.MethodPost, Path: client.Path("api", "jobs", c.ID, "kill"), Body: body, ContentType: client.JSON,
	})
	if err != nil {
		return err
	}
	killed := []string{}
	if answer.Sequence > 0 {
		list.MinSequence = answer.Sequence
		after, err := api.Do(ctx, list)
		if err != nil {
			return fmt.Errorf("job %s is killed (log %d); which execs that were could not be read: %w", c.ID, answer.Sequence, err)
		}
		if killed, err = newlyKilled(after.Body, before.Sequence); err != nil {
			return err
		}
	}
	if len(killed) == 0 {
		a.noteUnknown(ctx, api, c.ID, answer.Sequence)
	}
	if a.json {
		return a.printValue(map[string]any{"job_id": c.ID, "sequence": answer.Sequence, "killed": killed})
	}
	if len(killed) == 0 {
		fmt.Fprintf(a.out, "job %s: no exec of it was under way\n", c.ID)
	}
	for _, id := range killed {
		fmt.Fprintf(a.out, "exec %s is killed\n", id)
	}
	return nil
}

// newlyKilled lists the execs that were killed after a sequence.
func newlyKilled(body []byte, after uint64) ([]string, error) {
	var execs []client.Execution
	if err := decode("execs", body, &execs); err != nil {
		return nil, err
	}
	killed := []string{}
	for _, e := range execs {
		if e.Stopped != nil && e.Stopped.By == "killed" && e.Stopped.Sequence > after {
			killed = append(killed, e.ExecID)
		}
	}
	return killed, nil
}
