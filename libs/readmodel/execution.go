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
	ExecID, JobID, Version string
	// JobSequence and JobHash name the document that ran.
	JobSequence uint64
	JobHash     string
	// Actor asked for it; Origin is what the client called itself; ScheduleID and Nominal name the tick, empty and zero
	// for an exec that a person asked for.
	Actor      events.Actor
	Origin     string
	ScheduleID string
	Nominal    time.Time
	// InitiatedAt is the broker's time of the request and Sequence its LOG sequence.
	InitiatedAt time.Time
	Sequence    uint64
	// TargetCount is how many endpoints the plan addresses, those that were away included, those it leaves out not; 0
	// before the plan.
	TargetCount int
	// PlannedAt, ClosedAt and ExpiredAt are zero before; ExpiresAt is the plan's.
	PlannedAt, ExpiresAt, ClosedAt, ExpiredAt time.Time
	// Outcome is empty while it is open; Reason says more where the outcome alone does not.
	Outcome events.Outcome
	Reason  string

	// The rest is derived from the targets when it is read.

	Status Status
	Totals events.Totals
	// SuccessCount, FailureCount and SkipCount count targets, unplanned ones included. Failed, timed out, killed and
	// unknown runs are failures; a skip is neither, nor is silence.
	SuccessCount, FailureCount, SkipCount int
}

// InitiatedBy is "scheduler" or "operator", as kanade 0.43.45 says it.
func (e Execution) InitiatedBy() string {
	if e.ScheduleID != "" || e.Actor.Kind() == "schedule" {
		return "scheduler"
	}
	return "operator"
}

var executions = relation{
	name: "executions", key: 1, columns: []string{
		"exec_id TEXT", "job_id TEXT", "version TEXT", "job_sequence INTEGER", "job_hash TEXT", "actor TEXT", "origin TEXT",
		"schedule_id TEXT", "nominal_at INTEGER", "initiated_at INTEGER", "sequence INTEGER", "target_count INTEGER",
		"planned_at INTEGER", "expires_at INTEGER", "closed_at INTEGER", "expired_at INTEGER", "outcome TEXT", "reason TEXT",
	},
	indexes: []string{
		"CREATE INDEX executions_initiated ON executions (initiated_at, exec_id)",
		"CREATE INDEX executions_job ON executions (job_id, initiated_at, exec_id)",
		"CREATE INDEX executions_open ON executions (job_id) WHERE closed_at = 0 AND expired_at = 0",
	},
}

func (e *Execution) fields() []any {
	return []any{
		&e.ExecID, &e.JobID, &e.Version, sequence{&e.JobSequence}, &e.JobHash, &e.Actor, &e.Origin,
		&e.ScheduleID, nanos{&e.Nominal}, nanos{&e.InitiatedAt}, sequence{&e.Sequence}, &e.TargetCount,
		nanos{&e.PlannedAt}, nanos{&e.ExpiresAt}, nanos{&e.ClosedAt}, nanos{&e.ExpiredAt}, &e.Outcome, &e.Reason,
	}
}

type executionProjection struct{ *rows[Execution, *Execution] }

func beginExecutions(db *database) projection {
	return executionProjection{newRows[Execution](db, &executions)}
}

func (p executionProjection) Apply(f *fact) error {
	var change func(*Execution)
	switch e := f.payload.(type) {
	case events.ExecRequested:
		change = func(x *Execution) { x.request(e, f) }
	case events.ExecPlanned:
		change = func(x *Execution) { x.plan(e, f) }
	case events.ExecClosed:
		change = func(x *Execution) {
			if x.ClosedAt.IsZero() {
				x.ClosedAt = f.event.Time
				x.end(e.Outcome, e.Reason)
			}
		}
	case events.ExecExpired:
		change = func(x *Execution) {
			if x.ExpiredAt.IsZero() {
				x.ExpiredAt = f.event.Time
				x.end(e.Outcome, "")
			}
		}
	default:
		return nil
	}
	row, err := p.get(f.payload.AggregateID())
	if err != nil {
		return err
	}
	row.row.ExecID = row.key
	change(&row.row)
	p.put(row)
	return nil
}

func (p executionProjection) Flush() error { return p.flush() }

func (e *Execution) request(r events.ExecRequested, f *fact) {
	if e.Sequence != 0 {
		return
	}
	e.JobID, e.Version, e.JobSequence, e.JobHash = r.JobID, r.Version, r.JobSequence, r.JobHash
	e.Actor, e.Origin, e.ScheduleID = f.event.Actor, r.Origin, r.ScheduleID
	if r.Nominal != nil {
		e.Nominal = *r.Nominal
	}
	e.InitiatedAt, e.Sequence = f.event.Time, f.seq
}

func (e *Execution) plan(p events.ExecPlanned, f *fact) {
	if !e.PlannedAt.IsZero() {
		return
	}
	e.PlannedAt, e.ExpiresAt = f.event.Time, p.ExpiresAt
	for _, w := range p.Waves {
		e.TargetCount += len(w.Expected) + len(w.Waiting)
	}
}

// end keeps the first outcome that the log holds.
func (e *Execution) end(o events.Outcome, reason string) {
	if e.Outcome == "" {
		e.Outcome, e.Reason = o, reason
	}
}

// ExecutionFilter narrows a list of executions; empty fields match all.
type ExecutionFilter struct {
	JobID  string
	Status Status
	// Limit is how many at most; All: no limit, 0: none.
	Limit int
}

const statusOfExecution = `CASE WHEN e.closed_at <> 0 THEN 'completed' WHEN e.expired_at <> 0 THEN 'expired'
	WHEN COALESCE(t.heard, 0) > 0 THEN 'running' ELSE 'pending' END`

func selectExecutions() string {
	return "SELECT " + executions.list("e") + ", " + statusOfExecution + ", COALESCE(t.totals, '{}')" +
		" FROM executions e LEFT JOIN target_totals t ON t.exec_id = e.exec_id"
}

func scanExecution(scan func(...any) error) (e Execution, err error) {
	var totals string
	if err := scan(append(e.fields(), &e.Status, &totals)...); err != nil {
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

// Executions lists executions, the newest first.
func (r *Reader) Executions(ctx context.Context, f ExecutionFilter) ([]Execution, error) {
	query, args := selectExecutions()+" WHERE 1", []any{}
	if f.JobID != "" {
		query, args = query+" AND e.job_id = ?", append(args, f.JobID)
	}
	if f.Status != "" {
		query, args = query+" AND "+statusOfExecution+" = ?", append(args, f.Status)
	}
	return list(ctx, r, scanExecution, query+" ORDER BY e.initiated_at DESC, e.exec_id DESC LIMIT ?", append(args, f.Limit)...)
}

// Execution reads one execution; ErrNotFound.
func (r *Reader) Execution(ctx context.Context, execID string) (Execution, error) {
	return one(ctx, r, scanExecution, selectExecutions()+" WHERE e.exec_id = ?", execID)
}
