package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"kanade/cmd/kanade/internal/client"
	"kanade/libs/events"
)

// Exit codes of exec --wait.
const (
	exitSome   = 2
	exitNobody = 3
)

// maxOutputs is how many endpoints' output --wait prints, maxLines how much of each stream.
const maxOutputs, maxLines = 20, 40

// wait follows an exec to its end or for the time given, prints each endpoint's steps as they happen and what came of
// it, and gives the exit code as an error. What counts is what the log says: the read model is only asked for the
// output at the end.
func (a *app) wait(ctx context.Context, api *client.Client, exec client.Requested, timeout time.Duration) error {
	lines := a.out
	if a.json {
		lines = a.err
	}
	fmt.Fprintln(lines, sentenceOf(exec))
	f, err := follow(ctx, api, exec, timeout, lines)
	if err != nil {
		return err
	}
	if err := a.report(ctx, api, exec, f); err != nil {
		fmt.Fprintf(a.err, "kanade: read exec %s: %v\n", exec.ExecID, err)
	}
	fmt.Fprintln(lines, f.summary(timeout))
	if code := f.exitCode(); code != 0 {
		return coded{code: code}
	}
	return nil
}

// follow reads the facts of an exec until it has ended or the time is up; both are no error.
func follow(ctx context.Context, api *client.Client, exec client.Requested, timeout time.Duration, lines io.Writer) (*follower, error) {
	f := &follower{lines: lines, targets: map[string]events.Target{}}
	within, cancel := context.WithCancel(ctx)
	if timeout > 0 {
		within, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	err := api.Follow(within, client.Filter{From: exec.Sequence, Exec: exec.ExecID}, f.interrupted, f.apply)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("interrupted; exec %s goes on: see `kanade exec show %s`", exec.ExecID, exec.ExecID)
	case err != nil && !errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("follow exec %s: %w", exec.ExecID, err)
	}
	return f, nil
}

// follower folds the facts of one exec.
type follower struct {
	lines   io.Writer
	targets map[string]events.Target
	last    uint64 // LOG sequence of the last fact
	facts   []fact // all that was seen
	broken  bool   // the stream is interrupted, and that was said
	waves   []events.PlannedWave
	// Of the fact that ended the exec, the outcome already of the one that stopped it.
	ended   bool
	outcome events.Outcome
	reason  string
	totals  *events.Totals
}

// fact is one line of what an exec left in the log.
type fact struct {
	sequence  uint64
	eventType string
}

func (f *follower) interrupted(err error) {
	if !f.broken {
		fmt.Fprintf(f.lines, "(the stream was interrupted, taking it up again: %v)\n", err)
	}
	f.broken = true
}

// apply takes one fact; it wants no more after the one that ends the exec.
func (f *follower) apply(e client.Event, _ []byte) (more bool, err error) {
	f.last, f.broken = max(f.last, e.Sequence), false
	f.facts = append(f.facts, fact{e.Sequence, e.Type})
	event := events.Event{Type: e.Type, Subject: e.Subject, Data: e.Data}
	if event.Aggregate() == events.AggregateExec {
		return f.step(e, event)
	}
	fact, ok, err := events.RunFactOf(event)
	if err != nil || !ok {
		return true, nil // what can't be read is no endpoint's step; the scheduler parks it
	}
	t, changed := f.targets[fact.PCID].Apply(fact, e.Sequence, e.Time)
	if changed {
		f.targets[fact.PCID] = t
		fmt.Fprintf(f.lines, "%s  %-16s  %s\n", e.Time.Local().Format("15:04:05.000"), printable(fact.PCID), stateOf(t))
	}
	return true, nil
}

// step takes a fact of the exec itself. A stop is no end: what runs at that moment has its say.
func (f *follower) step(e client.Event, event events.Event) (more bool, err error) {
	var p struct {
		Wave    int            `json:"wave"`
		From    int            `json:"from"`
		Failed  int            `json:"failed"`
		Outcome events.Outcome `json:"outcome"`
		Reason  string         `json:"reason"`
		Totals  *events.Totals `json:"totals"`
	}
	if err := json.Unmarshal(e.Data, &p); err != nil {
		return false, fmt.Errorf("read %s at %d: %w", shortType(e.Type), e.Sequence, err)
	}
	switch fact := event.Fact(); fact {
	case "planned":
		var p events.ExecPlanned
		if err := json.Unmarshal(e.Data, &p); err != nil {
			return false, fmt.Errorf("read the plan: %w", err)
		}
		f.plan(p, e)
	case "wave-released":
		if p.From == 0 && p.Wave < len(f.waves) && f.waves[p.Wave].Label != "" {
			f.say(e, fmt.Sprintf("wave %d (%s) goes out", p.Wave, f.waves[p.Wave].Label))
		}
	case "wave-advanced":
		f.say(e, fmt.Sprintf("wave %d released by %s%s", p.Wave, e.Actor, because(p.Reason)))
	case "paused", "resumed":
		f.say(e, fmt.Sprintf("%s by %s%s", fact, e.Actor, because(p.Reason)))
	case "halted":
		f.stop(e, fact, events.SkipReasonHalted, fmt.Sprintf("halted: %s failed", have(p.Failed)))
	case "killed":
		f.stop(e, fact, events.SkipReasonKilled, fmt.Sprintf("killed by %s%s", e.Actor, because(p.Reason)))
	case "cancelled":
		f.stop(e, fact, events.SkipReasonCancelled, fmt.Sprintf("cancelled by %s%s", e.Actor, because(p.Reason)))
	case "closed", "expired", "reduced":
		f.ended, f.reason, f.totals = true, p.Reason, p.Totals
		f.outcome = cmp.Or(f.outcome, p.Outcome, events.Outcome(fact))
		return false, nil
	}
	return true, nil
}

// say prints a line of the exec itself.
func (f *follower) say(e client.Event, text string) {
	fmt.Fprintf(f.lines, "%s  %s\n", e.Time.Local().Format("15:04:05.000"), strings.Join(strings.Fields(printable(text)), " "))
}

// stop settles whoever has not said that it has the command. The first stop makes the outcome.
func (f *follower) stop(e client.Event, by, reason, text string) {
	f.say(e, text)
	f.outcome = cmp.Or(f.outcome, events.Outcome(by))
	for pc, t := range f.targets {
		f.targets[pc], _ = t.Stop(reason, e.Sequence, e.Time)
	}
}

// because is the reason that somebody gave, if any.
func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

func (f *follower) plan(p events.ExecPlanned, e client.Event) {
	f.waves = p.Waves
	for pc, t := range p.Targets() {
		t.Sequence, t.At = e.Sequence, e.Time
		f.targets[pc] = t
	}
	t := f.count()
	text := "planned: " + sentenceOfTotals(t)
	if len(p.Waves) > 1 {
		text += fmt.Sprintf(", in %d waves", len(p.Waves))
	}
	f.say(e, text)
	for _, s := range p.Skipped {
		fmt.Fprintf(f.lines, "%s  %-16s  skipped: %s\n", e.Time.Local().Format("15:04:05.000"), printable(s.PCID), s.Reason)
	}
}

func stateOf(t events.Target) string {
	text := string(t.State)
	if t.Code != nil {
		text += fmt.Sprintf(" (exit %d)", *t.Code)
	}
	if t.Reason != "" {
		text += ": " + strings.Join(strings.Fields(printable(t.Reason)), " ")
	}
	return text
}

func (f *follower) count() events.Totals {
	var t events.Totals
	for _, pc := range slices.Sorted(maps.Keys(f.targets)) {
		t.Add(f.targets[pc])
	}
	return t
}

// result is how it stands: the totals of the fact that ended the exec, or what was seen until the time was up; then
// outcome is empty unless all that were expected have answered.
func (f *follower) result() (events.Totals, events.Outcome) {
	seen := f.count()
	switch {
	case f.ended && f.totals != nil:
		return *f.totals, f.outcome
	case f.ended:
		return seen, f.outcome
	case seen.ExpectedCount() > 0 && seen.Open() == 0:
		return seen, cmp.Or(f.outcome, seen.Outcome())
	}
	return seen, ""
}

func (f *follower) exitCode() int {
	totals, outcome := f.result()
	switch {
	case outcome == events.OutcomeSucceeded:
		return 0
	case answered(totals) == 0:
		return exitNobody
	}
	return exitSome
}

// answered counts endpoints that had their say: silence that was settled is none, and an endpoint that the plan left
// out was never asked.
func answered(t events.Totals) int {
	n := 0
	for state, count := range t.Expected {
		if state.Final() && state != events.StateExpired {
			n += count
		}
	}
	for state, count := range t.Others {
		if state.Final() && state != events.StateExpired && state != events.StateSkipped {
			n += count
		}
	}
	return n
}

func (f *follower) summary(timeout time.Duration) string {
	totals, outcome := f.result()
	text := sentenceOfTotals(totals)
	switch {
	case outcome == "" && answered(totals) == 0:
		return fmt.Sprintf("nobody answered within %s (%s)", timeout, text)
	case outcome == "" && f.outcome != "":
		return fmt.Sprintf("%s; not all answered within %s (%s)", f.outcome, timeout, text)
	case outcome == "":
		return fmt.Sprintf("not all answered within %s (%s)", timeout, text)
	case f.reason == events.ReasonNoTarget:
		return fmt.Sprintf("%s: the target names no known endpoint; `kanade agent list` shows which there are", outcome)
	case f.reason != "":
		return fmt.Sprintf("%s: %s (%s)", outcome, f.reason, text)
	}
	return fmt.Sprintf("%s: %s", outcome, text)
}

func sentenceOfTotals(t events.Totals) string {
	words := func(m map[events.TargetState]int) string {
		states := map[string]int{}
		for s, n := range m {
			states[string(s)] = n
		}
		return counts(states)
	}
	text := words(t.Expected)
	if text == "" {
		text = "nobody expected"
	}
	if others := words(t.Others); others != "" {
		text += "; others: " + others
	}
	return text
}

// report prints what the endpoints wrote, or with --json the whole exec.
func (a *app) report(ctx context.Context, api *client.Client, exec client.Requested, f *follower) error {
	q := url.Values{"exec_id": {"^" + regexp.QuoteMeta(exec.ExecID) + "$"}, "limit": {"1000"}}
	answer, err := api.Do(ctx, client.Request{Method: http.MethodGet, Path: "/api/results", Query: q, MinSequence: f.last})
	if err != nil {
		return err
	}
	if a.json {
		v, err := readExec(ctx, api, exec.ExecID, "", f.last)
		if err != nil {
			return err
		}
		v.Results = answer.Body
		return a.printValue(v)
	}
	var results []client.Result
	if err := decode("results", answer.Body, &results); err != nil {
		return err
	}
	failuresFirst(results)
	for i, r := range results {
		if i == maxOutputs {
			fmt.Fprintf(a.out, "… and the output of %d more: see `kanade result list --exec %s`\n", len(results)-i, exec.ExecID)
			break
		}
		printOutput(a.out, r, maxLines)
	}
	return nil
}
