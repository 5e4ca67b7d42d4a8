package readmodel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
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
	Sequence   uint64
	RecordedAt time.Time
	// Digest is equal where runs ended in the same way: state, exit code, reason and both outputs. Lower-case hex, empty
	// while it runs.
	Digest         string
	Stdout, Stderr events.Output
}

var results = relation{
	name: "results", key: 1, rowid: true, columns: []string{
		"result_id TEXT", "request_id TEXT", "exec_id TEXT", "pc_id TEXT", "job_id TEXT", "version TEXT", "state TEXT",
		"exit_code INTEGER NULL", "reason TEXT", "detail TEXT", "started_at INTEGER", "finished_at INTEGER", "sequence INTEGER", "recorded_at INTEGER",
		"digest TEXT", "stdout_bytes INTEGER", "stdout_truncated INTEGER", "stdout_sha256 TEXT", "stdout_object TEXT",
		"stderr_bytes INTEGER", "stderr_truncated INTEGER", "stderr_sha256 TEXT", "stderr_object TEXT",
		"stdout TEXT", "stderr TEXT",
	},
	indexes: []string{
		"CREATE INDEX results_started ON results (started_at, result_id)",
		"CREATE INDEX results_exec ON results (exec_id, started_at, result_id)",
		"CREATE INDEX results_pc ON results (pc_id, started_at, result_id)",
		"CREATE INDEX results_job ON results (job_id, started_at, result_id)",
		"CREATE INDEX results_running ON results (started_at, result_id) WHERE " + resultRunning,
		"CREATE INDEX results_failed ON results (started_at, result_id) WHERE " + resultFailed,
		"CREATE INDEX results_ended ON results (sequence) WHERE " + resultEnded,
	},
}

// Conditions of partial indexes. A query finds such an index by the same words only.
const (
	resultRunning = "state = 'running'"
	resultEnded   = "state <> 'running'"
	resultFailed  = "state NOT IN ('running', 'succeeded', 'skipped')"
)

// resultCounts counts results by job and state, so that counting costs nothing.
var resultCounts = relation{name: "result_counts", key: 2, columns: []string{"job_id TEXT", "state TEXT", "count INTEGER"}}

type resultCount struct {
	jobID string
	state events.TargetState
	count int
}

func (c *resultCount) fields() []any { return []any{&c.jobID, &c.state, &c.count} }

func (r *Result) fields() []any {
	return []any{
		&r.ResultID, &r.RequestID, &r.ExecID, &r.PCID, &r.JobID, &r.Version, &r.State,
		&r.ExitCode, &r.Reason, &r.Detail, nanos{&r.StartedAt}, nanos{&r.FinishedAt}, sequence{&r.Sequence}, nanos{&r.RecordedAt},
		&r.Digest, &r.Stdout.Bytes, &r.Stdout.Truncated, &r.Stdout.SHA256, &r.Stdout.Object,
		&r.Stderr.Bytes, &r.Stderr.Truncated, &r.Stderr.SHA256, &r.Stderr.Object,
		&r.Stdout.Text, &r.Stderr.Text,
	}
}

type resultProjection struct {
	*rows[Result, *Result]
	// counted is what the batch adds to resultCounts.
	counted map[resultCount]int
}

func beginResults(db *database) projection {
	return resultProjection{newRows[Result](db, &results), map[resultCount]int{}}
}

// Prefetch reads the rows of the runs that the batch is about. One that begins in the batch is taken for new, which spares
// its look: if that is wrong, the row can't be inserted, and the batch is applied once more with more care.
func (p resultProjection) Prefetch(messages []decoded) error {
	var ids []string
	for i := range messages {
		run := messages[i].run
		if run == nil || run.Kind == events.RunKindReceived || p.entries[run.ResultID] != nil {
			continue
		}
		p.entries[run.ResultID] = &entry[Result]{key: run.ResultID}
		if run.Kind != events.RunKindStarted || p.db.careful {
			ids = append(ids, run.ResultID)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	return p.fetch(ids)
}

func (p resultProjection) Apply(f *fact) error {
	if f.run == nil || f.run.Kind == events.RunKindReceived {
		return nil
	}
	if f.run.Kind == events.RunKindStarted && f.at.Sub(f.run.StartedAt) > events.Slack {
		return nil // it is told again, and the log may have forgotten the end: the run must not seem to go on
	}
	row, err := p.get(f.run.ResultID)
	if err != nil {
		return err
	}
	before := resultCount{jobID: row.row.JobID, state: row.row.State}
	if row.row.RecordedAt.Before(p.db.retain.HistoryAt(f.at)) {
		row.row = Result{} // forgotten, if not yet removed
	}
	if !row.row.apply(f.run, f.seq, f.at) {
		return nil
	}
	if after := (resultCount{jobID: row.row.JobID, state: row.row.State}); after != before {
		if before.state != "" {
			p.counted[before]--
		}
		p.counted[after]++
	}
	p.put(row)
	return nil
}

func (p resultProjection) Flush() error {
	if err := p.db.addCounts(p.counted); err != nil {
		return err
	}
	return p.flush()
}

func (d *database) addCounts(counted map[resultCount]int) error {
	for c, n := range counted {
		if err := d.countResults(c, n); err != nil {
			return err
		}
	}
	return nil
}

// Runs are as old as the fact that ended them or, while they run, that began them. Sequences grow with time, so that those
// that have ended are found in the order of sequences. What is running is looked at one by one.
var (
	forgetRunning = forgetting{
		due:     "SELECT 1 FROM results INDEXED BY results_running WHERE " + resultRunning + " AND recorded_at < ?",
		horizon: events.Retain.HistoryAt,
		remove: func(d *database, horizon time.Time, limit int) (int, error) {
			return d.forgetResults("SELECT rowid, sequence, recorded_at, job_id, state FROM results INDEXED BY results_running WHERE "+
				resultRunning+" AND recorded_at < ?1 LIMIT ?2", horizon, limit)
		},
	}
	forgetResults = forgetting{
		due: "SELECT 1 FROM (SELECT recorded_at FROM results INDEXED BY results_ended WHERE " + resultEnded +
			" ORDER BY sequence LIMIT 1) WHERE recorded_at < ?",
		horizon: events.Retain.HistoryAt,
		remove: func(d *database, horizon time.Time, limit int) (int, error) {
			return d.forgetResults("SELECT rowid, sequence, recorded_at, job_id, state FROM results INDEXED BY results_ended WHERE "+
				resultEnded+" ORDER BY sequence LIMIT ?2", horizon, limit)
		},
	}
)

// forgetResults forgets the first runs of a query up to one that is not old enough.
func (d *database) forgetResults(query string, horizon time.Time, limit int) (removed int, err error) {
	type found struct {
		row, sequence, recorded int64
		resultCount
	}
	var old []found
	err = d.take(query, func(scan func(...any) error) error {
		var x found
		err := scan(&x.row, &x.sequence, &x.recorded, &x.jobID, &x.state)
		old = append(old, x)
		return err
	}, toNanos(horizon), limit)
	if err != nil {
		return 0, err
	}
	counted := map[resultCount]int{}
	var ended int64
	for _, x := range old {
		if x.recorded >= toNanos(horizon) {
			break
		}
		if _, err := d.conn.ExecContext(context.Background(), "DELETE FROM results WHERE rowid = ?", x.row); err != nil {
			return removed, fmt.Errorf("forget run: %w", err)
		}
		counted[resultCount{jobID: x.jobID, state: x.state}]--
		if x.state.Final() {
			ended = x.sequence
		}
		removed++
	}
	if ended > 0 {
		// With the words of runs whose rows have another sequence by now: nobody finds them.
		if _, err := d.conn.ExecContext(context.Background(), "DELETE FROM result_words WHERE rowid <= ?", ended); err != nil {
			return removed, fmt.Errorf("forget words of runs: %w", err)
		}
	}
	return removed, d.addCounts(counted)
}

// countResults adds to a count; one that becomes zero is gone.
func (d *database) countResults(c resultCount, n int) error {
	if n == 0 {
		return nil
	}
	stored, err := d.load(&resultCounts, c.fields(), c.jobID, c.state)
	if err != nil {
		return err
	}
	c.count += n
	switch {
	case c.count == 0:
		return d.exec(&resultCounts, opDelete, c.jobID, c.state)
	case stored:
		return d.exec(&resultCounts, opUpdate, c.fields()...)
	default:
		return d.exec(&resultCounts, opInsert, c.fields()...)
	}
}

// apply adds a fact to the run, and reports whether that changed it. A start after the end only fills in what the end
// did not say. The first end stands, unless the agent had lost the run and a true end turned up.
//
// Of facts of one run that are far apart the later one makes the row alone: the log may have lost the earlier one while
// it holds the later, and a rebuild has to make the same row.
func (r *Result) apply(f *events.RunFact, sequence uint64, at time.Time) bool {
	before := *r
	if r.outlived(f.TargetState(), at) {
		*r = Result{}
	}
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
		r.Digest = r.digest()
	}
	return *r != before
}

// outlived reports whether a fact that says as much as the row, or more, came so late after it that the log may forget what
// made the row while the row is shown: more than events.Slack after a start, for an end; in another week (of UTC, from
// Thursday to Thursday), for what says the same again. By weeks, because that does not depend on what came in between.
func (r *Result) outlived(state events.TargetState, at time.Time) bool {
	const week = 7 * 24 * time.Hour
	switch was, is := certainty(r.State), certainty(state); {
	case r.State == "" || is < was:
		return false
	case was == 0 && is > 0:
		return at.Sub(r.StartedAt) > events.Slack
	default:
		return toNanos(at)/int64(week) != toNanos(r.RecordedAt)/int64(week)
	}
}

// certainty orders what facts say of a run: that it has begun, that it has ended unseen, how it has ended.
func certainty(s events.TargetState) int {
	switch {
	case !s.Final():
		return 0
	case s == events.StateUnknown:
		return 1
	default:
		return 2
	}
}

// digest covers of a cut output also what was left out.
func (r *Result) digest() string {
	h := make([]byte, 0, 256+len(r.Stdout.Text)+len(r.Stderr.Text))
	if r.ExitCode != nil {
		h = strconv.AppendInt(h, int64(*r.ExitCode), 10)
	}
	field := func(text string) {
		h = append(strconv.AppendInt(append(h, ' '), int64(len(text)), 10), ' ')
		h = append(h, text...)
	}
	field(string(r.State))
	field(r.Reason)
	for _, out := range []*events.Output{&r.Stdout, &r.Stderr} {
		field(out.Text)
		if out.Truncated {
			field(out.SHA256)
		}
	}
	sum := sha256.Sum256(h)
	return hex.EncodeToString(sum[:16])
}

func fill(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

func scanResult(scan func(...any) error) (r Result, err error) { return r, scan(r.fields()...) }

// ResultsOf lists the runs of an exec, the last recorded first. An exec may have 100 000 of them, so of each only its ids,
// state, exit code and times are read.
func (r *Reader) ResultsOf(ctx context.Context, execID string) ([]Result, error) {
	scan := func(scan func(...any) error) (x Result, err error) {
		return x, scan(&x.ResultID, &x.RequestID, &x.ExecID, &x.PCID, &x.State, &x.ExitCode, nanos{&x.StartedAt}, nanos{&x.FinishedAt})
	}
	return list(ctx, r, scan, `SELECT result_id, request_id, exec_id, pc_id, state, exit_code, started_at, finished_at
		FROM results INDEXED BY results_exec WHERE exec_id = ? ORDER BY recorded_at DESC, result_id DESC`, execID)
}

// Result reads one run; ErrNotFound.
func (r *Reader) Result(ctx context.Context, resultID string) (Result, error) {
	return one(ctx, r, scanResult, results.all()+" WHERE result_id = ?", resultID)
}
