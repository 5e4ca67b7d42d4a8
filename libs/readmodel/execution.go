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
	// RetryOf is the exec whose endpoints this one tries again; empty otherwise.
	RetryOf string
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
	// Waves is how many waves the plan has; 0 before the plan.
	Waves int
	// PlannedAt, ClosedAt and ExpiredAt are zero before; ExpiresAt is the plan's, or what the release of a wave moved it to.
	PlannedAt, ExpiresAt, ClosedAt, ExpiredAt time.Time
	// EndedSequence is the LOG sequence of the first fact that closed it or let it expire; 0 before. What an endpoint says
	// after that is late. A stop is no end: what runs goes on.
	EndedSequence uint64
	// Outcome is empty while it is undecided; Reason says more where the outcome alone does not. It is the first of killed,
	// cancelled, halted, closed and expired.
	Outcome events.Outcome
	Reason  string
	// Paused: no further wave goes out.
	Paused bool
	// Stop is how it was stopped; its By is empty where it was not.
	Stop Stop

	// The rest is derived from the targets when it is read.

	Status Status
	Totals events.Totals
	// Released is how many waves have gone out, in whole or in part.
	Released int
	// SuccessCount, FailureCount and SkipCount count targets, unplanned ones included. Failed, timed out, killed and
	// unknown runs are failures; a skip is neither, nor is silence.
	SuccessCount, FailureCount, SkipCount int
}

// Stop is the halt, cancellation or kill of an exec. Of several the first one counts, but a kill counts before the others:
// it reaches what they let go on.
type Stop struct {
	// By is killed, cancelled or halted.
	By     events.Outcome
	Actor  events.Actor
	Reason string
	// At is by the broker's clock, Sequence the LOG sequence.
	At       time.Time
	Sequence uint64
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
		"schedule_id TEXT", "nominal_at INTEGER", "retry_of TEXT", "initiated_at INTEGER", "sequence INTEGER",
		"target_count INTEGER", "waves INTEGER",
		"planned_at INTEGER", "expires_at INTEGER", "closed_at INTEGER", "expired_at INTEGER", "ended_sequence INTEGER",
		"outcome TEXT", "reason TEXT", "paused INTEGER",
		"stopped_by TEXT", "stop_actor TEXT", "stop_reason TEXT", "stopped_at INTEGER", "stop_sequence INTEGER",
	},
	indexes: []string{
		"CREATE INDEX executions_initiated ON executions (initiated_at, exec_id)",
		"CREATE INDEX executions_job ON executions (job_id, initiated_at, exec_id)",
		"CREATE INDEX executions_open ON executions (job_id, initiated_at, exec_id) WHERE closed_at = 0 AND expired_at = 0",
		"CREATE INDEX executions_live ON executions (initiated_at, exec_id) WHERE closed_at = 0 AND expired_at = 0",
		"CREATE INDEX executions_expired ON executions (initiated_at, exec_id) WHERE closed_at = 0 AND expired_at <> 0",
	},
}

func (e *Execution) fields() []any {
	return []any{
		&e.ExecID, &e.JobID, &e.Version, sequence{&e.JobSequence}, &e.JobHash, &e.Actor, &e.Origin,
		&e.ScheduleID, nanos{&e.Nominal}, &e.RetryOf, nanos{&e.InitiatedAt}, sequence{&e.Sequence},
		&e.TargetCount, &e.Waves,
		nanos{&e.PlannedAt}, nanos{&e.ExpiresAt}, nanos{&e.ClosedAt}, nanos{&e.ExpiredAt}, sequence{&e.EndedSequence},
		&e.Outcome, &e.Reason, &e.Paused,
		&e.Stop.By, &e.Stop.Actor, &e.Stop.Reason, nanos{&e.Stop.At}, sequence{&e.Stop.Sequence},
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
	case events.WaveReleased:
		if e.ExpiresAt == nil {
			return nil
		}
		change = func(x *Execution) {
			if e.ExpiresAt.After(x.ExpiresAt) {
				x.ExpiresAt = *e.ExpiresAt
			}
		}
	case events.ExecPaused, events.ExecResumed:
		_, paused := e.(events.ExecPaused)
		change = func(x *Execution) { x.Paused = paused }
	case events.ExecHalted:
		change = func(x *Execution) { x.stop(events.OutcomeHalted, "", f) }
	case events.ExecCancelled:
		change = func(x *Execution) { x.stop(events.OutcomeCancelled, e.Reason, f) }
	case events.ExecKilled:
		change = func(x *Execution) { x.stop(events.OutcomeKilled, e.Reason, f) }
	case events.ExecClosed:
		change = func(x *Execution) { x.end(&x.ClosedAt, e.Outcome, e.Reason, f) }
	case events.ExecExpired:
		change = func(x *Execution) { x.end(&x.ExpiredAt, e.Outcome, "", f) }
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
	e.Actor, e.Origin, e.ScheduleID, e.RetryOf = f.event.Actor, r.Origin, r.ScheduleID, r.RetryOf
	if r.Nominal != nil {
		e.Nominal = *r.Nominal
	}
	e.InitiatedAt, e.Sequence = f.event.Time, f.seq
}

func (e *Execution) plan(p events.ExecPlanned, f *fact) {
	if !e.PlannedAt.IsZero() {
		return
	}
	e.PlannedAt, e.ExpiresAt, e.Waves = f.event.Time, p.ExpiresAt, len(p.Waves)
	for _, w := range p.Waves {
		e.TargetCount += w.Size()
	}
}

func (e *Execution) stop(by events.Outcome, reason string, f *fact) {
	e.decide(by, "")
	if e.Stop.By == "" || by == events.OutcomeKilled && e.Stop.By != by {
		e.Stop = Stop{By: by, Actor: f.event.Actor, Reason: reason, At: f.event.Time, Sequence: f.seq}
	}
}

// end notes the first end of its kind.
func (e *Execution) end(at *time.Time, o events.Outcome, reason string, f *fact) {
	if !at.IsZero() {
		return
	}
	*at = f.event.Time
	if e.EndedSequence == 0 {
		e.EndedSequence = f.seq
	}
	e.decide(o, reason)
}

// decide keeps the first outcome that the log holds.
func (e *Execution) decide(o events.Outcome, reason string) {
	if e.Outcome == "" {
		e.Outcome, e.Reason = o, reason
	}
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
		", (SELECT COUNT(*) FROM waves w WHERE w.exec_id = e.exec_id AND w.released_at <> 0)" +
		" FROM executions e " + by + " LEFT JOIN target_totals t ON t.exec_id = e.exec_id"
}

func scanExecution(scan func(...any) error) (e Execution, err error) {
	var totals string
	if err := scan(append(e.fields(), &e.Status, &totals, &e.Released)...); err != nil {
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

// Execution reads one execution; ErrNotFound.
func (r *Reader) Execution(ctx context.Context, execID string) (Execution, error) {
	return one(ctx, r, scanExecution, selectExecutions("")+" WHERE e.exec_id = ?", execID)
}
