package readmodel

import (
	"context"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/events"
)

// pager is one list: a page's rows by what stays the same of each, and the next cursor.
type pager struct {
	name string
	page func(Page) ([]string, string, error)
}

func keysOf[R any](key func(*R) string) func([]R, string, error) ([]string, string, error) {
	return func(rows []R, next string, err error) ([]string, string, error) {
		keys := make([]string, len(rows))
		for i := range rows {
			keys[i] = key(&rows[i])
		}
		return keys, next, err
	}
}

// pagers are all lists, of a reader over a log of drawLog.
func pagers(ctx context.Context, r *Reader) []pager {
	execution := keysOf(func(e *Execution) string { return e.ExecID + e.InitiatedAt.String() })
	result := keysOf(func(x *Result) string { return x.ResultID + x.StartedAt.String() })
	agent := keysOf(func(a *Agent) string { return a.PCID + a.HeardAt.String() })
	list := []pager{
		{"executions", func(p Page) ([]string, string, error) { return execution(r.Executions(ctx, ExecutionFilter{Page: p})) }},
		{"executions of a job", func(p Page) ([]string, string, error) {
			return execution(r.Executions(ctx, ExecutionFilter{JobID: "hello", Page: p}))
		}},
		{"targets", func(p Page) ([]string, string, error) {
			return keysOf(func(t *Target) string { return t.PCID })(r.Targets(ctx, TargetFilter{ExecID: "exec-0", Page: p}))
		}},
		{"agents", func(p Page) ([]string, string, error) { return agent(r.Agents(ctx, AgentFilter{Page: p})) }},
		{"agents by id", func(p Page) ([]string, string, error) { return agent(r.Agents(ctx, AgentFilter{ByID: true, Page: p})) }},
		{"jobs", func(p Page) ([]string, string, error) {
			return keysOf(func(j *Job) string { return j.ID })(r.Jobs(ctx, p))
		}},
		{"schedules", func(p Page) ([]string, string, error) {
			return keysOf(func(s *Schedule) string { return fmt.Sprint(s.Sequence) })(r.Schedules(ctx, p))
		}},
		{"calendars", func(p Page) ([]string, string, error) {
			return keysOf(func(c *Calendar) string { return fmt.Sprint(c.Sequence) })(r.Calendars(ctx, p))
		}},
		{"ticks", func(p Page) ([]string, string, error) {
			return keysOf(func(t *Tick) string { return t.EventID })(r.Ticks(ctx, "nightly", p))
		}},
	}
	for name, f := range map[string]AuditFilter{
		"audit": {}, "audit of an operator": {Sub: "op"}, "audit of a target": {Target: regexp.MustCompile("^hello$")},
		"audit of a time": {Since: begin, Until: begin.Add(20 * time.Millisecond)}, "audit that matches": {Action: regexp.MustCompile("re")},
	} {
		list = append(list, pager{name, func(p Page) ([]string, string, error) {
			f.Page = p
			return keysOf(func(a *AuditRecord) string { return a.EventID })(r.Audit(ctx, f))
		}})
	}
	for name, f := range map[string]ResultFilter{
		"results": {}, "results of a job": {JobID: regexp.MustCompile("^hello$")}, "results of an exec": {ExecID: regexp.MustCompile("^exec-0$")},
		"results that match": {PCID: regexp.MustCompile("pc-0[0-9]")}, "results of an endpoint": {PCID: regexp.MustCompile("^pc-01$")},
	} {
		list = append(list, pager{name, func(p Page) ([]string, string, error) { f.Page = p; return result(r.Results(ctx, f)) }})
	}
	return list
}

// The pages of every list, put together, are the list: also while rows come in between, no row comes twice, and none that
// was there from the beginning to the end is missed. KANADE_PROVE=full checks 5 000 logs; KANADE_SEED repeats a run.
func TestProvePages(t *testing.T) {
	seed := extent(t, 100, 5_000)
	var logs, pages, rows int
	rapid.Check(t, func(t *rapid.T) {
		p, r := readInPages(t)
		logs, pages, rows = logs+1, pages+p, rows+r
	})
	t.Logf("PROVED TestProvePages: %d logs, %d pages, %d rows, seed %s", logs, pages, rows, seed)
}

// readInPages reads every list of a log while it goes on.
func readInPages(t *rapid.T) (pages, rows int) {
	dir, err := os.MkdirTemp("", "readmodel")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	w, err := OpenWriter(context.Background(), dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, w.Close()) }()
	r, err := OpenReader(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	log := drawLog(t)
	applied := 0
	advance := func(n int) {
		to := min(applied+n, len(log))
		_, err := w.Apply(context.Background(), events.StreamLog, log[applied:to])
		require.NoError(t, err)
		applied = to
	}
	advance(rapid.IntRange(0, len(log)).Draw(t, "before"))
	for _, l := range pagers(context.Background(), r) {
		before, _, err := l.page(everything)
		require.NoError(t, err)
		var seen []string
		for p := (Page{}); ; {
			pages++
			p.Limit = rapid.IntRange(1, 3).Draw(t, "limit")
			page, next, err := l.page(p)
			require.NoError(t, err)
			require.LessOrEqual(t, len(page), p.Limit)
			seen, rows = append(seen, page...), rows+len(page)
			if p.After = next; next == "" {
				break
			}
			advance(rapid.SampledFrom([]int{0, 0, 1, 5}).Draw(t, "meanwhile"))
		}
		after, _, err := l.page(everything)
		require.NoError(t, err)
		require.Len(t, slices.Compact(slices.Sorted(slices.Values(seen))), len(seen), "%s: a row comes twice", l.name)
		for _, key := range before {
			if slices.Contains(after, key) {
				require.Contains(t, seen, key, l.name)
			}
		}
		if slices.Equal(before, after) {
			require.Equal(t, after, append([]string{}, seen...), l.name)
		}
	}
	return pages, rows
}

// A cursor goes on with its own list and is refused by every other one.
func TestCursorsOfOtherLists(t *testing.T) {
	dir := t.TempDir()
	w, r := open(t, dir), read(t, dir)
	apply(t, w, lives(t, 3))
	_, next, err := r.Executions(t.Context(), ExecutionFilter{Page: Page{Limit: 1}})
	require.NoError(t, err)
	require.NotEmpty(t, next)
	for _, l := range pagers(t.Context(), r) {
		_, _, err := l.page(Page{After: next, Limit: 1})
		if strings.HasPrefix(l.name, "executions") {
			require.NoError(t, err, l.name)
			continue
		}
		require.ErrorIs(t, err, ErrCursor, l.name)
		for _, broken := range []string{"x", next[:len(next)-3], "W10", "WzFd", "bnVsbA"} {
			_, _, err := l.page(Page{After: broken, Limit: 1})
			require.ErrorIs(t, err, ErrCursor, "%s of %s", broken, l.name)
		}
	}
	words, err := ParseWords("out")
	require.NoError(t, err)
	_, next, err = r.Results(t.Context(), ResultFilter{Page: Page{Limit: 1}})
	require.NoError(t, err)
	_, _, err = r.Results(t.Context(), ResultFilter{Words: words, Page: Page{After: next, Limit: 1}})
	require.ErrorIs(t, err, ErrCursor, "another order of the same list")
}

func FuzzCursor(f *testing.F) {
	f.Add(resultsStarted.cursor(int64(math.MaxInt64), "id"))
	f.Add(targetOrder.cursor("pc-01"))
	f.Add("W10")
	f.Fuzz(func(t *testing.T, cursor string) {
		at, id := int64(0), ""
		if err := resultsStarted.read(cursor, &at, &id); err != nil {
			require.ErrorIs(t, err, ErrCursor)
			return
		}
		again, id2 := int64(0), ""
		require.NoError(t, resultsStarted.read(resultsStarted.cursor(at, id), &again, &id2))
		require.Equal(t, []any{at, id}, []any{again, id2})
	})
}
