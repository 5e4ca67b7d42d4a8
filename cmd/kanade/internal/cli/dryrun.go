package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"kanade/cmd/kanade/internal/client"
)

// dryRun asks what an exec would do, and prints it.
func (a *app) dryRun(ctx context.Context, r client.Request) error {
	answer, err := a.do(ctx, r)
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(answer.Body)
	}
	var d client.DryRun
	if err := decode("dry run", answer.Body, &d); err != nil {
		return err
	}
	return printDryRun(a.out, d)
}

func printDryRun(w io.Writer, d client.DryRun) error {
	left := ""
	if n := len(d.Skipped); n > 0 {
		left = fmt.Sprintf(" (%d left out)", n)
	}
	fmt.Fprintf(w, "dry run of %s %s: %s%s in %s, nothing was written\n",
		cell(d.JobID), cell(d.Version), plural(d.TargetCount, "endpoint"), left, plural(len(d.Waves), "wave"))
	if d.Revoked {
		fmt.Fprintln(w, "the job is revoked: the commands go out, and every endpoint skips them (revoked)")
	}
	fmt.Fprintf(w, "nothing begins after %s, nobody is waited for after %s\n", cell(d.DeadlineAt), cell(d.ExpiresAt))
	if d.MaxFailures != nil {
		fmt.Fprintf(w, "halts when more than %s failed\n", have(*d.MaxFailures))
	}
	if d.MaxParallel != nil {
		fmt.Fprintf(w, "at most %s at work at once, those that failed included\n", plural(*d.MaxParallel, "endpoint"))
	}
	if len(d.Waves) > 0 {
		fmt.Fprintln(w)
		t := newTable(w, "WAVE", "WHO", "GOES OUT", "COMMANDS", "EXPECTED", "AWAY")
		for _, x := range d.Waves {
			t.row(x.Wave, who(x.Timing), goesOut(x.Timing), len(x.Subjects), some(x.Expected), some(x.Waiting))
		}
		if err := t.end(); err != nil {
			return err
		}
	}
	if d.Command != nil {
		if err := printCommand(w, *d.Command); err != nil {
			return err
		}
	}
	if len(d.Skipped) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	t := newTable(w, "LEFT OUT", "REASON")
	for _, x := range d.Skipped {
		t.row(x.PCID, x.Reason)
	}
	return t.end()
}

// printCommand shows what each command says; what it leaves to the endpoint is left out.
func printCommand(w io.Writer, c client.DryCommand) error {
	fmt.Fprintln(w)
	t := newTable(w, "EACH COMMAND", "")
	t.row("shell", c.Shell)
	if c.ScriptObject != "" {
		t.row("script", c.ScriptObject+" SHA-256 "+c.ScriptSHA256)
	}
	t.row("timeout", span(time.Duration(c.TimeoutSecs)*time.Second))
	t.row("run as", c.RunAs)
	add := func(name string, value any, given bool) {
		if given {
			t.row(name, value)
		}
	}
	add("directory", c.CWD, c.CWD != "")
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		t.row("env", name+"="+c.Env[name])
	}
	for _, arg := range c.Args {
		t.row("argument", strconv.Quote(arg))
	}
	add("stdin", plural(len(c.Stdin), "byte"), c.Stdin != "")
	add("success", fmt.Sprint(c.SuccessCodes), len(c.SuccessCodes) > 0)
	add("jitter", span(time.Duration(c.JitterSecs)*time.Second), c.JitterSecs > 0)
	if r := c.Retry; r != nil {
		t.row("retry", fmt.Sprintf("%d more, %s apart", r.Max, span(time.Duration(r.BackoffSecs)*time.Second)))
	}
	add("staleness", c.Staleness.Mode+" "+c.Staleness.MaxCacheAge, c.Staleness.Mode != "cached")
	if err := t.end(); err != nil || c.Script == "" {
		return err
	}
	text := strings.TrimRight(printable(c.Script), "\n")
	_, err := fmt.Fprintf(w, "script\n    %s\n", strings.ReplaceAll(text, "\n", "\n    "))
	return err
}

// have is "1 endpoint has", "2 endpoints have".
func have(n int) string {
	if n == 1 {
		return "1 endpoint has"
	}
	return fmt.Sprintf("%d endpoints have", n)
}

// who is a wave's name; the only wave of an exec without a rollout has none of its own.
func who(t client.Timing) string {
	if t.Label == "" {
		return "all of the target"
	}
	return t.Label
}

// goesOut says what a wave waits for.
func goesOut(t client.Timing) string {
	delay := time.Duration(t.DelaySecs) * time.Second
	switch {
	case t.Pause:
		return "when it is released"
	case t.After && delay > 0:
		return fmt.Sprintf("%s after the end of wave %d", span(delay), t.Wave-1)
	case t.After:
		return fmt.Sprintf("at the end of wave %d", t.Wave-1)
	case t.DueAt == nil:
		return ""
	}
	return when(*t.DueAt)
}

// span is a duration without what is zero of it: 10m, 1h30m.
func span(d time.Duration) string {
	text := d.Round(time.Second).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// maxNames is how many names a cell of a table holds.
const maxNames = 6

// some are the first names of a list, and how many there are beside them.
func some(names []string) string {
	if len(names) <= maxNames {
		return strings.Join(names, ",")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNames], ","), len(names)-maxNames)
}
