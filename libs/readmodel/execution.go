package readmodel

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"kanade/libs/events"
)

// Status is how far an execution is, in the wire's words.
type Status string

// The statuses. Running begins with the first fact of a run; completed is closed, expired is expired without having
// been closed.
const (
	StatusPending   Status = "pending"
	StatusRunning   Status = "running"
	StatusCompleted Status = "completed"
	StatusExpired   Status = "expired"
)

// Execution is one exec.
type Execution struct {
	ExecID string
	events.ExecSummary
	// Paused: no further wave goes out.
	Paused bool
	// Reduced is the LOG sequence of the fact that reduced it to its summary; 0 before. Its waves and targets are forgotten.
	Reduced uint64

	// The rest is derived from the targets when it is read.

	Status Status
	Totals events.Totals
	// Released is how many waves have gone out, in whole or in part; 0 once they are forgotten.
	Released int
	// Forgotten: it is older than the history, and its waves and targets are no more. Totals are those of its last fact.
	Forgotten bool
	// SuccessCount, FailureCount and SkipCount count targets, unplanned ones included. Failed, timed out, killed and
	// unknown runs are failures; a skip is neither, nor is silence.
	SuccessCount, FailureCount, SkipCount int
}

// InitiatedBy is "scheduler" or "operator", as kanade 0.43.45 says it.
func (e Execution) InitiatedBy() string {
	if e.Actor.Kind() != "user" && (e.ScheduleID != "" || e.Actor.Kind() == "schedule") {
		return "scheduler"
	}
	return "operator"
}

// An execution exists from the exec's request on, or from the fact that reduced it. What is said of it before, or where the
// request can't be read, is passed over: there would be no time to forget the row by.
var executions = relation{
	name: "executions", key: 1, columns: []string{
		"exec_id TEXT", "job_id TEXT", "version TEXT", "job_sequence INTEGER", "job_hash TEXT", "actor TEXT", "origin TEXT",
		"schedule_id TEXT", "nominal_at INTEGER", "retry_of TEXT", "initiated_at INTEGER", "sequence INTEGER",
		"target_count INTEGER", "waves INTEGER",
		"planned_at INTEGER", "expires_at INTEGER", "closed_at INTEGER", "expired_at INTEGER", "ended_sequence INTEGER",
		"outcome TEXT", "reason TEXT", "paused INTEGER",
		"stopped_by TEXT", "stop_actor TEXT", "stop_reason TEXT", "stopped_at INTEGER", "stop_sequence INTEGER", "reduced INTEGER",
	},
	indexes: []string{
		"CREATE INDEX executions_initiated ON executions (initiated_at, exec_id)",
		"CREATE INDEX executions_job ON executions (job_id, initiated_at, exec_id)",
		"CREATE INDEX executions_open ON executions (job_id, initiated_at, exec_id) WHERE closed_at = 0 AND expired_at = 0",
		"CREATE INDEX executions_live ON executions (initiated_at, exec_id) WHERE closed_at = 0 AND expired_at = 0",
		"CREATE INDEX executions_expired ON executions (initiated_at, exec_id) WHERE closed_at = 0 AND expired_at <> 0",
		"CREATE INDEX executions_schedule ON executions (schedule_id, initiated_at, exec_id)",
		"CREATE INDEX executions_nominal ON executions (schedule_id, nominal_at) WHERE nominal_at <> 0",
		"CREATE INDEX executions_schedule_live ON executions (schedule_id, initiated_at, exec_id) WHERE expired_at = 0",
	},
}

func (e *Execution) fields() []any {
	return []any{
		&e.ExecID, &e.JobID, &e.Version, sequence{&e.JobSequence}, &e.JobHash, &e.Actor, &e.Origin,
		&e.ScheduleID, nanos{&e.Nominal}, &e.RetryOf, nanos{&e.InitiatedAt}, sequence{&e.Sequence},
		&e.TargetCount, &e.Waves,
		nanos{&e.PlannedAt}, nanos{&e.ExpiresAt}, nanos{&e.ClosedAt}, nanos{&e.ExpiredAt}, sequence{&e.EndedSequence},
		&e.Outcome, &e.Reason, &e.Paused,
		&e.Stop.By, &e.Stop.Actor, &e.Stop.Reason, nanos{&e.Stop.At}, sequence{&e.Stop.Sequence}, sequence{&e.Reduced},
	}
}

type executionProjection struct{ *rows[Execution, *Execution] }

func beginExecutions(db *database) projection {
	return executionProjection{newRows[Execution](db, &executions)}
}

func (p executionProjection) Apply(f *fact) error {
	switch f.payload.(type) {
	case events.ExecRequested, events.ExecPlanned, events.WaveReleased, events.ExecPaused, events.ExecResumed, events.ExecHalted,
		events.ExecCancelled, events.ExecKilled, events.ExecClosed, events.ExecExpired, events.ExecReduced:
	default:
		return nil
	}
	row, err := p.get(f.payload.AggregateID())
	if err != nil {
		return err
	}
	x := &row.row
	switch f.payload.(type) {
	case events.ExecRequested, events.ExecReduced:
	default:
		if !row.live {
			return nil
		}
	}
	if x.Reduced != 0 {
		return nil // what comes after that is gone as soon as anybody looks
	}
	x.ExecID = row.key
	x.ExecSummary.Apply(f.payload, &f.event, f.seq)
	switch f.payload.(type) {
	case events.ExecPaused:
		x.Paused = true
	case events.ExecResumed:
		x.Paused = false
	case events.ExecReduced:
		x.Paused, x.Reduced = false, f.seq
	}
	p.db.old(x.InitiatedAt, p.db.retain.LedgerAt(f.at))
	p.put(row)
	return nil
}

func (p executionProjection) Flush() error { return p.flush() }

// forgetExecutions takes the totals along. Targets have gone before: the ledger is longer than the history.
var forgetExecutions = forgetting{
	due:     "SELECT 1 FROM executions INDEXED BY executions_initiated WHERE initiated_at < ?",
	horizon: events.Retain.LedgerAt,
	remove: func(d *database, horizon time.Time, limit int) (int, error) {
		var old []string
		err := d.take("SELECT exec_id FROM executions INDEXED BY executions_initiated WHERE initiated_at < ? ORDER BY initiated_at, exec_id LIMIT ?",
			func(scan func(...any) error) error {
				var id string
				err := scan(&id)
				old = append(old, id)
				return err
			}, toNanos(horizon), limit)
		for _, id := range old {
			if err == nil {
				err = d.exec(&targetTotals, opDelete, id)
			}
			if err == nil {
				err = d.exec(&executions, opDelete, id)
			}
		}
		return len(old), err
	},
}

// ExecutionFilter narrows a list of executions; empty fields match all.
type ExecutionFilter struct {
	JobID  string
	Status Status
	Page
}

const statusOfExecution = `CASE WHEN e.closed_at <> 0 THEN 'completed' WHEN e.expired_at <> 0 THEN 'expired'
	WHEN COALESCE(t.heard, 0) > 0 THEN 'running' ELSE 'pending' END`

// selectExecutions goes by an index ("INDEXED BY name"), or as the database chooses (empty).
func selectExecutions(by string) string {
	return "SELECT " + executions.list("e") + ", " + statusOfExecution + ", COALESCE(t.totals, '{}')" +
		", (SELECT COUNT(*) FROM waves w WHERE w.exec_id = e.exec_id AND w.released_at <> 0), COALESCE(t.kept, 1) <> 1" +
		" FROM executions e " + by + " LEFT JOIN target_totals t ON t.exec_id = e.exec_id"
}

func scanExecution(scan func(...any) error) (e Execution, err error) {
	var totals string
	if err := scan(append(e.fields(), &e.Status, &totals, &e.Released, &e.Forgotten)...); err != nil {
		return e, err
	}
	if err := json.Unmarshal([]byte(totals), &e.Totals); err != nil {
		return e, fmt.Errorf("read totals of exec %s: %w", e.ExecID, err)
	}
	for _, counted := range []map[events.TargetState]int{e.Totals.Expected, e.Totals.Others} {
		e.SuccessCount += counted[events.StateSucceeded]
		e.SkipCount += counted[events.StateSkipped]
		e.FailureCount += counted[events.StateFailed] + counted[events.StateTimedOut] + counted[events.StateKilled] + counted[events.StateUnknown]
	}
	return e, nil
}

const executionOrder order = "executions"

// Executions lists executions, the newest first, and gives the cursor of the next page; ErrCursor. An unknown status is
// that of none.
func (r *Reader) Executions(ctx context.Context, f ExecutionFilter) ([]Execution, string, error) {
	at, id := int64(maxNanos), ""
	if err := f.begin(executionOrder, &at, &id); err != nil {
		return nil, "", err
	}
	index, where := f.where()
	if index == "" {
		return []Execution{}, "", nil
	}
	query, args := selectExecutions("INDEXED BY "+index)+" WHERE (e.initiated_at, e.exec_id) < (?, ?)"+where, []any{at, id}
	if f.JobID != "" {
		query, args = query+" AND e.job_id = ?", append(args, f.JobID)
	}
	rows, err := list(ctx, r, scanExecution, query+" ORDER BY e.initiated_at DESC, e.exec_id DESC LIMIT ?", append(args, f.more())...)
	rows, next := cut(rows, f.Page, func(e *Execution) string { return executionOrder.cursor(toNanos(e.InitiatedAt), e.ExecID) })
	return rows, next, err
}

// where is the condition of the status, and the index that leads through the fewest executions in their order; no index
// for a status that there is not.
func (f *ExecutionFilter) where() (index, condition string) {
	const open, expired = " AND e.closed_at = 0 AND e.expired_at = 0", " AND e.closed_at = 0 AND e.expired_at <> 0"
	all, live := "executions_initiated", "executions_live"
	if f.JobID != "" {
		all, live = "executions_job", "executions_open"
	}
	switch f.Status {
	case "":
		return all, ""
	case StatusPending:
		return live, open + " AND COALESCE(t.heard, 0) = 0"
	case StatusRunning:
		return live, open + " AND COALESCE(t.heard, 0) > 0"
	case StatusExpired:
		if f.JobID == "" {
			all = "executions_expired"
		}
		return all, expired
	case StatusCompleted:
		return all, " AND e.closed_at <> 0"
	default:
		return "", ""
	}
}

// ScheduleExecutions lists the executions of a schedule, the newest first, at most limit; with live only those that have not
// expired: of the others nothing can start any more.
func (r *Reader) ScheduleExecutions(ctx context.Context, scheduleID string, live bool, limit int) ([]Execution, error) {
	index, where := "executions_schedule", ""
	if live {
		index, where = "executions_schedule_live", " AND e.expired_at = 0"
	}
	return list(ctx, r, scanExecution, selectExecutions("INDEXED BY "+index)+" WHERE e.schedule_id = ?"+where+
		" ORDER BY e.initiated_at DESC, e.exec_id DESC LIMIT ?", scheduleID, limit)
}

// NewestFire is the execution of a schedule's newest nominal time that has one, whether the tick was fired or made up for;
// ErrNotFound.
func (r *Reader) NewestFire(ctx context.Context, scheduleID string) (Execution, error) {
	return one(ctx, r, scanExecution, selectExecutions("INDEXED BY executions_nominal")+
		" WHERE e.schedule_id = ? AND e.nominal_at <> 0 ORDER BY e.nominal_at DESC LIMIT 1", scheduleID)
}

// KnownExecs are those of some ids that are executions.
func (r *Reader) KnownExecs(ctx context.Context, ids []string) ([]string, error) {
	return list(ctx, r, func(scan func(...any) error) (id string, err error) { return id, scan(&id) },
		"SELECT exec_id FROM executions WHERE exec_id IN (SELECT value FROM json_each(?))", textList(ids))
}

// Execution reads one execution; ErrNotFound.
func (r *Reader) Execution(ctx context.Context, execID string) (Execution, error) {
	return one(ctx, r, scanExecution, selectExecutions("")+" WHERE e.exec_id = ?", execID)
}
