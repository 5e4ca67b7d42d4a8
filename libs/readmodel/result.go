package readmodel

import (
	"context"
	"regexp"
	"regexp/syntax"
	"time"

	"kanade/libs/events"
)

// Result is one run of one command on one endpoint, whoever asked for it. It exists from its start or its end,
// whichever is in the log first; a command that was only received is no run yet. Facts that come twice or in another
// order end in the same row.
type Result struct {
	// ExecID, JobID and Version are empty where no fact of the run names them.
	ResultID, RequestID, ExecID, PCID, JobID, Version string
	// State is running until the run has ended, then final: succeeded, failed, timed_out, killed, unknown or skipped.
	State events.TargetState
	// ExitCode is nil while it runs and where the script did not end by itself; a skip may have one (124 to 127).
	ExitCode *int
	// Reason and Detail say why it did not end by itself, or was not run.
	Reason, Detail string
	// StartedAt and FinishedAt are by the endpoint's clock; FinishedAt is zero while it runs.
	StartedAt, FinishedAt time.Time
	// Sequence and RecordedAt are the LOG sequence and the broker's time of the fact that ended it, of its start while it
	// runs.
	Sequence       uint64
	RecordedAt     time.Time
	Stdout, Stderr events.Output
}

var results = relation{
	name: "results", key: 1, rowid: true, columns: []string{
		"result_id TEXT", "request_id TEXT", "exec_id TEXT", "pc_id TEXT", "job_id TEXT", "version TEXT", "state TEXT",
		"exit_code INTEGER NULL", "reason TEXT", "detail TEXT", "started_at INTEGER", "finished_at INTEGER", "sequence INTEGER", "recorded_at INTEGER",
		"stdout_bytes INTEGER", "stdout_truncated INTEGER", "stdout_sha256 TEXT", "stdout_object TEXT",
		"stderr_bytes INTEGER", "stderr_truncated INTEGER", "stderr_sha256 TEXT", "stderr_object TEXT",
		"stdout TEXT", "stderr TEXT",
	},
	indexes: []string{
		"CREATE INDEX results_started ON results (started_at, result_id)",
		"CREATE INDEX results_exec ON results (exec_id, recorded_at)",
	},
}

func (r *Result) fields() []any {
	return []any{
		&r.ResultID, &r.RequestID, &r.ExecID, &r.PCID, &r.JobID, &r.Version, &r.State,
		&r.ExitCode, &r.Reason, &r.Detail, nanos{&r.StartedAt}, nanos{&r.FinishedAt}, sequence{&r.Sequence}, nanos{&r.RecordedAt},
		&r.Stdout.Bytes, &r.Stdout.Truncated, &r.Stdout.SHA256, &r.Stdout.Object,
		&r.Stderr.Bytes, &r.Stderr.Truncated, &r.Stderr.SHA256, &r.Stderr.Object,
		&r.Stdout.Text, &r.Stderr.Text,
	}
}

type resultProjection struct{ *rows[Result, *Result] }

func beginResults(db *database) projection { return resultProjection{newRows[Result](db, &results)} }

// Prefetch reads the rows of all runs that the batch is about.
func (p resultProjection) Prefetch(messages []decoded) error {
	var ids []string
	for i := range messages {
		if run := messages[i].run; run != nil && run.Kind != events.RunKindReceived {
			ids = append(ids, run.ResultID)
		}
	}
	if len(ids) < 2 {
		return nil
	}
	return p.fetch(ids)
}

func (p resultProjection) Apply(f *fact) error {
	if f.run == nil || f.run.Kind == events.RunKindReceived {
		return nil
	}
	row, err := p.get(f.run.ResultID)
	if err != nil {
		return err
	}
	if row.row.apply(f.run, f.seq, f.at) {
		p.put(row)
	}
	return nil
}

func (p resultProjection) Flush() error { return p.flush() }

// apply adds a fact to the run, and reports whether that changed it. A start after the end only fills in what the end
// did not say. The first end stands, unless the agent had lost the run and a true end turned up.
func (r *Result) apply(f *events.RunFact, sequence uint64, at time.Time) bool {
	before := *r
	r.ResultID = f.ResultID
	fill(&r.RequestID, f.RequestID)
	fill(&r.ExecID, f.ExecID)
	fill(&r.PCID, f.PCID)
	fill(&r.JobID, f.JobID)
	fill(&r.Version, f.Version)
	if r.StartedAt.IsZero() {
		r.StartedAt = f.StartedAt
	}
	state := f.TargetState()
	switch {
	case r.State == "" && !state.Final():
		r.State, r.Sequence, r.RecordedAt = state, sequence, at
	case state.Final() && (!r.State.Final() || r.State == events.StateUnknown && state != events.StateUnknown):
		r.State, r.ExitCode, r.Reason, r.Detail = state, f.Code, f.Reason, f.Detail
		r.FinishedAt, r.Sequence, r.RecordedAt = f.FinishedAt, sequence, at
		r.Stdout, r.Stderr = f.Stdout, f.Stderr
	}
	return *r != before
}

func fill(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

// ResultFilter narrows a list of results; empty fields match all.
type ResultFilter struct {
	// Status is one of the Result… words.
	Status ResultStatus
	// Since is the earliest StartedAt.
	Since time.Time
	// Regular expressions that find something anywhere in the field; nil: all.
	PCID, JobID, ExecID, Stdout, Stderr *regexp.Regexp
	// Limit is how many at most; All: no limit, 0: none.
	Limit int
}

// ResultStatus is what GET /api/results filters by.
type ResultStatus string

// The words. A skip is neither success nor failure.
const (
	ResultSuccess ResultStatus = "success"
	ResultFailure ResultStatus = "failure"
	ResultRunning ResultStatus = "running"
)

// resultPage bounds how long one read holds the write-ahead log, in rows.
const resultPage = 500

// Results lists runs with their output, the last started first. All runs are searched, however old.
func (r *Reader) Results(ctx context.Context, f ResultFilter) ([]Result, error) {
	found := []Result{}
	last, lastID := int64(maxNanos), ""
	for f.Limit < 0 || len(found) < f.Limit {
		size := f.pageSize(len(found))
		page, err := r.resultPage(ctx, f, last, lastID, size)
		if err != nil {
			return nil, err
		}
		for i := range page {
			if f.matches(&page[i]) && (f.Limit < 0 || len(found) < f.Limit) {
				found = append(found, page[i])
			}
		}
		if len(page) < size {
			break
		}
		last, lastID = toNanos(page[len(page)-1].StartedAt), page[len(page)-1].ResultID
	}
	return found, nil
}

// exact is the one text that an expression matches, when it is anchored at both ends and has no choice in between: what
// the database can look up instead of reading every row.
func exact(re *regexp.Regexp) (string, bool) {
	if re == nil {
		return "", false
	}
	s, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil || s.Op != syntax.OpConcat || len(s.Sub) != 3 {
		return "", false
	}
	begin, text, end := s.Sub[0], s.Sub[1], s.Sub[2]
	// Without the flag (?m) and before the end of the text, not of a line.
	if begin.Op != syntax.OpBeginText || end.Op != syntax.OpEndText || text.Op != syntax.OpLiteral || text.Flags&syntax.FoldCase != 0 {
		return "", false
	}
	return string(text.Rune), true
}

func (r *Reader) resultPage(ctx context.Context, f ResultFilter, last int64, lastID string, limit int) ([]Result, error) {
	query, args := results.all()+" WHERE (started_at, result_id) < (?, ?)", []any{last, lastID}
	switch f.Status {
	case ResultSuccess:
		query += " AND state = 'succeeded'"
	case ResultFailure:
		query += " AND finished_at <> 0 AND state NOT IN ('succeeded', 'skipped')"
	case ResultRunning:
		query += " AND finished_at = 0"
	}
	if !f.Since.IsZero() {
		query, args = query+" AND started_at >= ?", append(args, toNanos(f.Since))
	}
	for column, re := range map[string]*regexp.Regexp{"exec_id": f.ExecID, "pc_id": f.PCID, "job_id": f.JobID} {
		if text, ok := exact(re); ok {
			query, args = query+" AND "+column+" = ?", append(args, text)
		}
	}
	return list(ctx, r, scanResult, query+" ORDER BY started_at DESC, result_id DESC LIMIT ?", append(args, limit)...)
}

// pageSize does not read more outputs than are wanted, unless they have to be searched.
func (f *ResultFilter) pageSize(found int) int {
	searched := f.PCID != nil || f.JobID != nil || f.ExecID != nil || f.Stdout != nil || f.Stderr != nil
	if f.Limit < 0 || searched {
		return resultPage
	}
	return min(resultPage, f.Limit-found)
}

func (f *ResultFilter) matches(r *Result) bool {
	match := func(re *regexp.Regexp, s string) bool { return re == nil || re.MatchString(s) }
	return match(f.PCID, r.PCID) && match(f.JobID, r.JobID) && match(f.ExecID, r.ExecID) &&
		match(f.Stdout, r.Stdout.Text) && match(f.Stderr, r.Stderr.Text)
}

func scanResult(scan func(...any) error) (r Result, err error) { return r, scan(r.fields()...) }

// ResultsOf lists the runs of an exec, the last recorded first. An exec may have 100 000 of them, so of each only its ids,
// state, exit code and times are read.
func (r *Reader) ResultsOf(ctx context.Context, execID string) ([]Result, error) {
	scan := func(scan func(...any) error) (x Result, err error) {
		return x, scan(&x.ResultID, &x.RequestID, &x.ExecID, &x.PCID, &x.State, &x.ExitCode, nanos{&x.StartedAt}, nanos{&x.FinishedAt})
	}
	return list(ctx, r, scan, `SELECT result_id, request_id, exec_id, pc_id, state, exit_code, started_at, finished_at
		FROM results WHERE exec_id = ? ORDER BY recorded_at DESC, result_id DESC`, execID)
}

// Result reads one run; ErrNotFound.
func (r *Reader) Result(ctx context.Context, resultID string) (Result, error) {
	return one(ctx, r, scanResult, results.all()+" WHERE result_id = ?", resultID)
}
