package rest

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"kanade/libs/events"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
)

// execution is an exec as answered.
type execution struct {
	ExecID       string           `json:"exec_id"`
	JobID        string           `json:"job_id"`
	Version      string           `json:"version"`
	InitiatedBy  string           `json:"initiated_by"`
	InitiatedAt  instant          `json:"initiated_at"`
	TargetCount  int              `json:"target_count"`
	SuccessCount int              `json:"success_count"`
	FailureCount int              `json:"failure_count"`
	SkipCount    int              `json:"skip_count"`
	Status       readmodel.Status `json:"status"`
	Outcome      *string          `json:"outcome"`
	Reason       string           `json:"reason"`
	Totals       totals           `json:"totals"`
	Actor        events.Actor     `json:"actor"`
	ScheduleID   *string          `json:"schedule_id"`
	Nominal      instant          `json:"nominal"` // of the tick that it is the exec of; null: of none
	JobSequence  uint64           `json:"job_sequence"`
	JobHash      string           `json:"job_hash"`
	Sequence     uint64           `json:"sequence"`
	ExpiresAt    instant          `json:"expires_at"`
	// Waves is how many there are, Released how many of them have gone out at least in part.
	Waves    int     `json:"waves"`
	Released int     `json:"released"`
	Paused   bool    `json:"paused"`
	Stopped  *stop   `json:"stopped"`
	RetryOf  *string `json:"retry_of"`
	// EndedSequence is that of the fact that closed it or let it expire; 0 before. A stop is no end.
	EndedSequence uint64 `json:"ended_sequence"`
	// Forgotten: it is older than the history. Its waves, targets and results are no more, its totals are the last ones.
	Forgotten bool `json:"forgotten"`
	// Budget is the plan's, in the document of one exec only; absent before the plan and while the broker is away.
	Budget *budget `json:"budget,omitempty"`
}

// budget is how much an exec may do wrong and at once, in endpoints; null: no limit. FailureCount is held against
// MaxFailures.
type budget struct {
	MaxFailures *int `json:"max_failures"`
	MaxParallel *int `json:"max_parallel"`
}

// stop is how an exec was stopped.
type stop struct {
	By       events.Outcome `json:"by"`
	Actor    events.Actor   `json:"actor"`
	Reason   string         `json:"reason"`
	At       instant        `json:"at"`
	Sequence uint64         `json:"sequence"`
}

// totals counts targets by state; those that the outcome does not wait for stand apart.
type totals struct {
	Expected map[events.TargetState]int `json:"expected"`
	Others   map[events.TargetState]int `json:"others"`
}

func executionOf(e *readmodel.Execution) execution {
	answer := execution{
		ExecID: e.ExecID, JobID: e.JobID, Version: e.Version, InitiatedBy: e.InitiatedBy(), InitiatedAt: instant(e.InitiatedAt),
		TargetCount: e.TargetCount, SuccessCount: e.SuccessCount, FailureCount: e.FailureCount, SkipCount: e.SkipCount,
		Status: e.Status, Outcome: known(string(e.Outcome)), Reason: e.Reason,
		Totals: totals{counted(e.Totals.Expected), counted(e.Totals.Others)},
		Actor:  e.Actor, ScheduleID: known(e.ScheduleID), Nominal: instant(e.Nominal), JobSequence: e.JobSequence, JobHash: e.JobHash,
		Sequence: e.Sequence, ExpiresAt: instant(e.ExpiresAt),
		Waves: e.Waves, Released: e.Released, Paused: e.Paused, RetryOf: known(e.RetryOf), EndedSequence: e.EndedSequence,
		Forgotten: e.Forgotten,
	}
	if x := e.Stop; x.By != "" {
		answer.Stopped = &stop{x.By, x.Actor, x.Reason, instant(x.At), x.Sequence}
	}
	return answer
}

func counted(m map[events.TargetState]int) map[events.TargetState]int {
	if m == nil {
		return map[events.TargetState]int{}
	}
	return m
}

// defaultLimit is how many rows a list has that may be long.
const defaultLimit = 50

func (s *server) listExecutions(w http.ResponseWriter, r *http.Request, _ string) error {
	q := queryOf(r)
	filter := readmodel.ExecutionFilter{
		JobID: q.text("job_id"), Status: readmodel.Status(q.text("status")),
	}
	l := q.list(r, defaultLimit)
	if q.err != nil {
		return q.err
	}
	return writeList(w, r, l, sheetOf[execution]("executions"), func(ctx context.Context, p readmodel.Page) ([]execution, string, error) {
		filter.Page = p
		rows, next, err := s.Reader.Executions(ctx, filter)
		return rowsOf(rows, next, err, executionOf)
	})
}

func (s *server) execution(r *http.Request) (readmodel.Execution, error) {
	id, err := pathValue(r, "exec_id")
	if err != nil {
		return readmodel.Execution{}, err
	}
	e, err := s.Reader.Execution(r.Context(), id)
	if errors.Is(err, readmodel.ErrNotFound) {
		err = domain.Refuse(domain.NotFound, "execution '%s' not found", id)
	}
	return e, err
}

func (s *server) getExecution(w http.ResponseWriter, r *http.Request, _ string) error {
	e, err := s.execution(r)
	if err != nil {
		return err
	}
	rows, err := s.Reader.ResultsOf(r.Context(), e.ExecID)
	if err != nil {
		return err
	}
	type short struct {
		ResultID   string             `json:"result_id"`
		RequestID  string             `json:"request_id"`
		PCID       string             `json:"pc_id"`
		ExitCode   *int               `json:"exit_code"`
		StartedAt  instant            `json:"started_at"`
		FinishedAt instant            `json:"finished_at"`
		State      events.TargetState `json:"state"`
	}
	results := make([]short, len(rows))
	for i := range rows {
		x := &rows[i]
		results[i] = short{x.ResultID, x.RequestID, x.PCID, x.ExitCode, instant(x.StartedAt), instant(x.FinishedAt), x.State}
	}
	answer := executionOf(&e)
	answer.Budget = s.budget(r.Context(), e.ExecID)
	return writeJSON(w, struct {
		Execution execution `json:"execution"`
		Results   []short   `json:"results"`
	}{answer, results})
}

// budgetTimeout bounds reading a plan from the log; what the read model says is answered without it.
const budgetTimeout = 2 * time.Second

// budget reads the budget of an exec from its plan; nil where there is none yet, or the log can't be read.
func (s *server) budget(ctx context.Context, execID string) *budget {
	if !s.Bus.Connected() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, budgetTimeout)
	defer cancel()
	m, ok, err := s.Bus.Last(ctx, events.StreamLog, events.FactSubject(events.AggregateExec, execID, "planned"))
	if err == nil && (!ok || s.then.sequence > 0 && m.Seq > s.then.sequence) {
		return nil
	}
	var p events.Payload
	if err == nil {
		p, err = m.Payload()
	}
	if err != nil {
		s.Logger.WarnContext(ctx, "the plan of an exec could not be read: it is answered without its budget", "exec", execID, "error", err)
		return nil
	}
	planned, ok := p.(events.ExecPlanned)
	if !ok {
		return nil
	}
	return &budget{planned.MaxFailures, planned.MaxParallel}
}

// defaultTargets is how many targets a page has.
const defaultTargets = 1000

func (s *server) listTargets(w http.ResponseWriter, r *http.Request, _ string) error {
	e, err := s.execution(r)
	if err != nil {
		return err
	}
	q := queryOf(r)
	filter := readmodel.TargetFilter{ExecID: e.ExecID, State: events.TargetState(q.text("state"))}
	l := q.list(r, defaultTargets)
	if filter.State != "" && !slices.Contains(events.TargetStates(), filter.State) {
		q.refuse("state", "expected one of %v, got %q", events.TargetStates(), filter.State)
	}
	if q.err != nil {
		return q.err
	}
	n := 0
	for _, counted := range []map[events.TargetState]int{e.Totals.Expected, e.Totals.Others} {
		for state, count := range counted {
			if filter.State == "" || state == filter.State {
				n += count
			}
		}
	}
	if !e.Forgotten {
		total(w, n)
	}
	return writeList(w, r, l, sheetOf[target]("targets"), func(ctx context.Context, p readmodel.Page) ([]target, string, error) {
		filter.Page = p
		rows, next, err := s.Reader.Targets(ctx, filter)
		return rowsOf(rows, next, err, func(t *readmodel.Target) target { return targetOf(t, &e) })
	})
}

// target is one endpoint in one exec as answered.
type target struct {
	PCID     string             `json:"pc_id"`
	Expected bool               `json:"expected"`
	Wave     int                `json:"wave"`
	State    events.TargetState `json:"state"`
	Code     *int               `json:"code,omitempty"`
	Reason   string             `json:"reason,omitempty"`
	At       instant            `json:"at"`
	Sequence uint64             `json:"sequence"`
	ResultID string             `json:"result_id,omitempty"`
	// Late: the endpoint said so after the exec's end.
	Late bool `json:"late"`
}

func targetOf(t *readmodel.Target, e *readmodel.Execution) target {
	return target{
		PCID: t.PCID, Expected: t.Expected, Wave: t.Wave, State: t.State, Code: t.Code, Reason: t.Reason,
		At: instant(t.At), Sequence: t.Sequence, ResultID: t.ResultID, Late: domain.Late(t.Target, e.EndedSequence),
	}
}
