package readmodel

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// benchFleet is how many endpoints every exec of the benchmark's model has.
const benchFleet = 1000

// benchModel is a read model of as many results as KANADE_BENCH_ROWS says (50 000), in execs of 20 jobs, of which one run
// in a hundred fails. With KANADE_BENCH_DIR it is kept there and found again.
func benchModel(b *testing.B) (dir string, execs int) {
	rows := 50_000
	if text := os.Getenv("KANADE_BENCH_ROWS"); text != "" {
		var err error
		rows, err = strconv.Atoi(text)
		require.NoError(b, err)
	}
	dir = b.TempDir()
	if kept := os.Getenv("KANADE_BENCH_DIR"); kept != "" {
		dir = filepath.Join(kept, strconv.Itoa(rows))
		require.NoError(b, os.MkdirAll(dir, 0o755))
	}
	w, err := OpenWriter(b.Context(), dir)
	require.NoError(b, err)
	defer func() { require.NoError(b, w.Close()) }()
	execs = rows / benchFleet
	at, err := w.Checkpoint(events.StreamLog)
	require.NoError(b, err)
	j := &journal{t: b}
	const perExec = 4 + benchFleet
	var applying time.Duration
	for n := int(at.Sequence) / perExec; n < execs; n++ {
		j.messages = j.messages[:0]
		benchExec(j, n)
		for i := range j.messages {
			j.messages[i].Seq = uint64(n*perExec + i + 1)
		}
		started := time.Now()
		_, err := w.Apply(b.Context(), events.StreamLog, j.messages)
		applying += time.Since(started)
		require.NoError(b, err)
	}
	b.Logf("%d results applied in %s", rows, applying.Round(time.Millisecond))
	started := time.Now()
	for more := true; more; {
		more, err = w.WriteWords(b.Context())
		require.NoError(b, err)
	}
	b.Logf("their words after %s more", time.Since(started).Round(time.Millisecond))
	return dir, execs
}

func benchID(n int) string { return events.DeriveID("bench", strconv.Itoa(n)) }

func benchJob(n int) string { return "job-" + strconv.Itoa(n%20) }

func benchPC(n int) string { return fmt.Sprintf("pc-%04d", n) }

// benchExec is four facts of an exec and an end for each endpoint.
func benchExec(j *journal, n int) {
	id, job, at := benchID(n), benchJob(n), begin.Add(time.Duration(n)*time.Minute)
	plan := events.ExecPlanned{ExecID: id, Waves: make([]events.PlannedWave, 1), ExpiresAt: at.Add(time.Hour)}
	for pc := range benchFleet {
		plan.Waves[0].Expected = append(plan.Waves[0].Expected, benchPC(pc))
	}
	j.append(requested(id, job), "user:op")
	j.append(plan, "service:scheduler")
	j.append(events.WaveDispatched{ExecID: id}, "service:scheduler")
	for pc := range benchFleet {
		request := events.DeriveID(id, "request", benchPC(pc))
		f := events.RunFinished{
			Run: events.Run{
				PCID: benchPC(pc), ExecID: id, RequestID: request, ResultID: events.ResultID(request, benchPC(pc)), JobID: job, Version: "1.0.0",
			},
			StartedAt: at.Add(time.Duration(pc) * time.Millisecond), FinishedAt: at.Add(time.Second), State: events.StateSucceeded,
			Stdout: events.Output{Text: fmt.Sprintf("checked volume %d of %s\nall is well, nothing to do\n", pc%7, benchPC(pc))},
		}
		code := 0
		if (pc+n)%100 == 0 {
			code, f.State = 1, events.StateFailed
			f.Stderr = events.Output{Text: []string{"no space left on device\n", "access denied\n", "package index is locked\n"}[(pc/100+n)%3]}
		}
		f.ExitCode = &code
		j.append(f, "agent:pc")
	}
	j.append(events.ExecClosed{ExecID: id, Outcome: events.OutcomePartial}, "service:scheduler")
}

// benchQuery is a query of ours and the statement that a program without us would have prepared for the same rows.
type benchQuery struct {
	name string
	ours func() (rows int, err error)
	raw  string
	args []any
}

func benchQueries(ctx context.Context, r *Reader, execs int) []benchQuery {
	const page = 50
	middle := benchID(execs / 2)
	exactly := func(text string) *regexp.Regexp { return regexp.MustCompile("^" + regexp.QuoteMeta(text) + "$") }
	deep := toNanos(begin.Add(time.Duration(execs/2) * time.Minute))
	words, _ := ParseWords("index locked")
	rare, _ := ParseWords(`"volume 3" 0123`)
	never, _ := ParseWords(`"volume of"`) // words of every output that never stand side by side
	resultPage := func(name string, f ResultFilter, where string, args ...any) benchQuery {
		f.Limit = page
		return benchQuery{name, func() (int, error) {
			rows, _, err := r.Results(ctx, f)
			return len(rows), err
		}, results.all() + " WHERE " + where + " ORDER BY started_at DESC, result_id DESC LIMIT 50", args}
	}
	found := func(name string, w Words) benchQuery {
		return benchQuery{name, func() (int, error) {
			rows, _, err := r.Results(ctx, ResultFilter{Words: w, Page: Page{Limit: page}})
			return len(rows), err
		}, results.all() + " JOIN result_words w ON sequence = w.rowid AND state <> 'running' WHERE result_words MATCH ? ORDER BY w.rowid DESC LIMIT 50", []any{string(w)}}
	}
	executions := func(name string, f ExecutionFilter, where string, args ...any) benchQuery {
		f.Limit = page
		return benchQuery{name, func() (int, error) {
			rows, _, err := r.Executions(ctx, f)
			return len(rows), err
		}, selectExecutions("") + " WHERE " + where + " ORDER BY e.initiated_at DESC, e.exec_id DESC LIMIT 50", args}
	}
	one := func(err error) (int, error) { return 1, err }
	aResult := events.ResultID(events.DeriveID(middle, "request", benchPC(7)), benchPC(7))
	return []benchQuery{
		resultPage("results", ResultFilter{}, "1"),
		resultPage("results-deep", ResultFilter{Page: Page{After: resultsStarted.cursor(deep, "")}}, "(started_at, result_id) < (?, '')", deep),
		resultPage("results-exec", ResultFilter{ExecID: exactly(middle)}, "exec_id = ?", middle),
		resultPage("results-pc", ResultFilter{PCID: exactly(benchPC(7))}, "pc_id = ?", benchPC(7)),
		resultPage("results-job", ResultFilter{JobID: exactly(benchJob(3))}, "job_id = ?", benchJob(3)),
		resultPage("results-failure", ResultFilter{Status: ResultFailure}, resultFailed),
		resultPage("results-since", ResultFilter{Since: fromNanos(deep)}, "started_at >= ?", deep),
		{"results-regex", func() (int, error) { // the statement reads what it would have to match as well
			rows, _, err := r.Results(ctx, ResultFilter{ExecID: exactly(middle), PCID: regexp.MustCompile("7$|3$"), Page: Page{Limit: page}})
			return len(rows), err
		}, results.all() + " WHERE exec_id = ? ORDER BY started_at DESC, result_id DESC LIMIT 255", []any{middle}},
		found("search", words),
		found("search-rare", rare),
		found("search-never", never),
		{"result", func() (int, error) { _, err := r.Result(ctx, aResult); return one(err) }, results.all() + " WHERE result_id = ?", []any{aResult}},
		{"results-of-exec", func() (int, error) { rows, err := r.ResultsOf(ctx, middle); return len(rows), err },
			"SELECT result_id, request_id, exec_id, pc_id, state, exit_code, started_at, finished_at FROM results WHERE exec_id = ? ORDER BY recorded_at DESC, result_id DESC", []any{middle}},
		{"results-count", func() (int, error) { _, err := r.CountResults(ctx, "", benchJob(3)); return one(err) },
			"SELECT SUM(count) FROM result_counts WHERE job_id = ?", []any{benchJob(3)}},
		{"groups-exec", func() (int, error) {
			_, n, err := r.ResultGroups(ctx, GroupFilter{ExecID: middle, Limit: 20})
			return n, err
		}, "SELECT digest, result_id, pc_id FROM results WHERE exec_id = ? AND state <> 'running' ORDER BY started_at DESC, result_id DESC", []any{middle}},
		executions("executions", ExecutionFilter{}, "1"),
		executions("executions-job", ExecutionFilter{JobID: benchJob(3)}, "e.job_id = ?", benchJob(3)),
		{"executions-running", func() (int, error) {
			_, _, err := r.Executions(ctx, ExecutionFilter{Status: StatusRunning, Page: Page{Limit: page}})
			return 0, err
		}, selectExecutions("INDEXED BY executions_live") + " WHERE e.closed_at = 0 AND e.expired_at = 0 AND t.heard > 0 ORDER BY e.initiated_at DESC LIMIT 50", nil},
		{"execution", func() (int, error) { _, err := r.Execution(ctx, middle); return one(err) }, selectExecutions("") + " WHERE e.exec_id = ?", []any{middle}},
		{"targets", func() (int, error) {
			rows, _, err := r.Targets(ctx, TargetFilter{ExecID: middle, Page: Page{Limit: page}})
			return len(rows), err
		}, targets.all() + " WHERE exec_id = ? ORDER BY pc_id LIMIT 50", []any{middle}},
		{"target", func() (int, error) { _, err := r.Target(ctx, middle, benchPC(7)); return one(err) },
			targets.all() + " WHERE exec_id = ? AND pc_id = ?", []any{middle, benchPC(7)}},
	}
}

// BenchmarkQuery measures every query that the history is long for, beside the statement that a program would have prepared
// for the same rows, by turns. of-ceiling is the statement's p99 over ours: 0.5 is twice as long; p50-of-ceiling the same
// of the medians, which other work on the machine moves less. How many results there are is
// KANADE_BENCH_ROWS (50 000); what is to be measured at ten millions is made and kept by
//
//	KANADE_BENCH_ROWS=10000000 KANADE_BENCH_DIR=/var/tmp/kanade go test -run '^$' -bench Query -timeout 2h ./libs/readmodel
func BenchmarkQuery(b *testing.B) {
	dir, execs := benchModel(b)
	r, err := OpenReader(dir)
	require.NoError(b, err)
	defer func() { require.NoError(b, r.Close()) }()
	slot, err := r.slot(b.Context(), false)
	require.NoError(b, err)
	raw, err := sql.Open("sqlite", dsn(slot.path, readerParams))
	require.NoError(b, err)
	defer raw.Close()
	for _, q := range benchQueries(context.Background(), r, execs) {
		b.Run(q.name, func(b *testing.B) {
			stmt, err := raw.Prepare(q.raw)
			require.NoError(b, err)
			defer stmt.Close()
			var ours, theirs []time.Duration
			for b.Loop() {
				started := time.Now()
				rows, err := q.ours()
				ours = append(ours, time.Since(started))
				require.NoError(b, err)
				started = time.Now()
				n := rawRows(b, stmt, q.args)
				theirs = append(theirs, time.Since(started))
				if len(ours) == 1 && rows != n {
					b.Logf("%d rows of ours, %d of the statement", rows, n)
				}
			}
			p99 := func(d []time.Duration) time.Duration {
				slices.Sort(d)
				return d[int(math.Ceil(0.99*float64(len(d))))-1]
			}
			b.ReportMetric(float64(p99(ours).Microseconds()), "p99-µs")
			b.ReportMetric(float64(ours[len(ours)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(p99(theirs))/float64(p99(ours)), "of-ceiling")
			b.ReportMetric(float64(theirs[len(theirs)/2])/float64(ours[len(ours)/2]), "p50-of-ceiling")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func rawRows(b *testing.B, stmt *sql.Stmt, args []any) (n int) {
	rows, err := stmt.Query(args...)
	require.NoError(b, err)
	defer rows.Close()
	columns, err := rows.Columns()
	require.NoError(b, err)
	values, into := make([]any, len(columns)), make([]any, len(columns))
	for i := range values {
		into[i] = &values[i]
	}
	for ; rows.Next(); n++ {
		require.NoError(b, rows.Scan(into...))
	}
	require.NoError(b, rows.Err())
	return n
}
