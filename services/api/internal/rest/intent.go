package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
	"kanade/services/api/internal/journal"
)

// How long an intent waits for the read model: before a kill for what it reaches, and afterwards for what became of the
// exec. The intent itself does not depend on it.
const (
	lookBefore = 500 * time.Millisecond
	lookAfter  = 2 * time.Second
)

// maxReached is how many endpoints a kill names.
const maxReached = 100

// reasoned is the body of an intent; it may be left out.
type reasoned struct {
	Reason string `json:"reason"`
}

// maxReason bounds the reason of an intent, in bytes.
const maxReason = 2000

func checkReason(reason string) error {
	if len(reason) > maxReason {
		return domain.RefuseField(domain.Invalid, "reason", "%d bytes are more than the limit of %d", len(reason), maxReason)
	}
	return nil
}

// readReason reads the body of an act that takes a reason and nothing else, and may be left out.
func readReason(w http.ResponseWriter, r *http.Request, route string) (c journal.Caller, reason string, err error) {
	var sent reasoned
	body, err := readOptional(w, r, &sent)
	if err == nil {
		err = checkReason(sent.Reason)
	}
	if err != nil {
		return c, "", err
	}
	c, err = caller(r, route, body)
	return c, sent.Reason, err
}

// outcome is an exec after an intent, as the read model has it; null where it does not say in time.
type outcome struct {
	ExecID   string            `json:"exec_id"`
	Sequence uint64            `json:"sequence"`
	Status   *readmodel.Status `json:"status"`
	Outcome  *string           `json:"outcome"`
	Totals   *totals           `json:"totals"`
}

// after is the exec as of the fact of an intent.
func (s *server) after(ctx context.Context, id string, seq uint64) outcome {
	ctx, cancel := context.WithTimeout(ctx, lookAfter)
	defer cancel()
	answer := outcome{ExecID: id, Sequence: seq}
	if err := s.appliedTo(ctx, seq); err != nil {
		return answer
	}
	if e, err := s.Reader.Execution(ctx, id); err == nil {
		answer.Status, answer.Outcome = &e.Status, known(string(e.Outcome))
		answer.Totals = &totals{counted(e.Totals.Expected), counted(e.Totals.Others)}
	}
	return answer
}

// readIntent reads what all intents have in common: the exec, the caller and the body, which may be left out.
func readIntent(w http.ResponseWriter, r *http.Request, route string, into any) (string, journal.Caller, error) {
	id, err := pathValue(r, "exec_id")
	if err != nil {
		return "", journal.Caller{}, err
	}
	body, err := readOptional(w, r, into)
	if err != nil {
		return "", journal.Caller{}, err
	}
	c, err := caller(r, route, body)
	return id, c, err
}

// intent answers cancel, pause and resume.
func (s *server) intent(do func(ctx context.Context, c journal.Caller, id, reason string) (uint64, error)) handler {
	return func(w http.ResponseWriter, r *http.Request, route string) error {
		var sent reasoned
		id, c, err := readIntent(w, r, route, &sent)
		if err == nil {
			err = checkReason(sent.Reason)
		}
		if err != nil {
			return err
		}
		seq, err := do(r.Context(), c, id, sent.Reason)
		if err != nil {
			return err
		}
		written(w, seq)
		return writeJSON(w, s.after(r.Context(), id, seq))
	}
}

// reached is whom a kill found running, or with the command in hand; null where the read model does not say.
type reached struct {
	Running         []string `json:"running"`
	RunningCount    *int     `json:"running_count"`
	NotStartedCount *int     `json:"not_started_count"`
}

func (s *server) killExecution(w http.ResponseWriter, r *http.Request, route string) error {
	var sent reasoned
	id, c, err := readIntent(w, r, route, &sent)
	if err == nil {
		err = checkReason(sent.Reason)
	}
	if err != nil {
		return err
	}
	who := s.reach(r.Context(), id)
	seq, err := s.journal.KillExec(r.Context(), c, id, sent.Reason)
	if err != nil {
		return err
	}
	written(w, seq)
	return writeJSON(w, struct {
		outcome
		reached
	}{s.after(r.Context(), id, seq), who})
}

// reach looks, before a kill, whom it finds.
func (s *server) reach(ctx context.Context, id string) reached {
	ctx, cancel := context.WithTimeout(ctx, lookBefore)
	defer cancel()
	if err := s.caughtUp(ctx); err != nil {
		return reached{}
	}
	e, err := s.Reader.Execution(ctx, id)
	if err != nil {
		return reached{}
	}
	count := func(states ...events.TargetState) *int {
		n := 0
		for _, state := range states {
			n += e.Totals.Expected[state] + e.Totals.Others[state]
		}
		return &n
	}
	who := reached{
		Running: []string{}, RunningCount: count(events.StateRunning, events.StateReceived),
		NotStartedCount: count(events.StateExpected, events.StateWaiting, events.StateSent),
	}
	for _, state := range []events.TargetState{events.StateRunning, events.StateReceived} {
		page := readmodel.Page{Limit: maxReached - len(who.Running)}
		rows, _, err := s.Reader.Targets(ctx, readmodel.TargetFilter{ExecID: id, State: state, Page: page})
		if err != nil {
			return reached{}
		}
		for i := range rows {
			who.Running = append(who.Running, rows[i].PCID)
		}
	}
	return who
}

// caughtUp waits until the read model has what the log has now.
func (s *server) caughtUp(ctx context.Context) error {
	if !s.Bus.Connected() { // a call would wait for it
		return bus.ErrUnavailable
	}
	last, err := s.Bus.LastSeq(ctx, events.StreamLog)
	if err != nil {
		return err
	}
	return s.appliedTo(ctx, last)
}

// appliedTo waits until the read model has a sequence.
func (s *server) appliedTo(ctx context.Context, sequence uint64) error {
	if _, _, err := s.Reader.Applied(ctx); err != nil { // says what is wrong where waiting would only say that it is behind
		return err
	}
	return s.Reader.WaitFor(ctx, sequence)
}

// appliedSoon is appliedTo for minSequenceWait at most.
func (s *server) appliedSoon(ctx context.Context, sequence uint64) error {
	ctx, cancel := context.WithTimeout(ctx, minSequenceWait)
	defer cancel()
	return s.appliedTo(ctx, sequence)
}

// reasonedAct answers an act on what a variable of the path names, which takes a reason and answers nothing.
func reasonedAct(variable string, do func(ctx context.Context, c journal.Caller, id, reason string) (uint64, error)) handler {
	return func(w http.ResponseWriter, r *http.Request, route string) error {
		id, err := pathID(r, variable)
		if err != nil {
			return err
		}
		c, reason, err := readReason(w, r, route)
		if err != nil {
			return err
		}
		seq, err := do(r.Context(), c, id, reason)
		if err != nil {
			return err
		}
		written(w, seq)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

// killJobExecs kills every exec of a job of which anything has not ended, and returns the last fact's sequence.
func (s *server) killJobExecs(ctx context.Context, c journal.Caller, jobID, reason string) (uint64, error) {
	looking, cancel := context.WithTimeout(ctx, minSequenceWait)
	defer cancel()
	if err := s.caughtUp(looking); err != nil {
		return 0, fmt.Errorf("kill execs of job %s: %w", jobID, err)
	}
	rows, _, err := s.Reader.Executions(ctx, readmodel.ExecutionFilter{JobID: jobID, Page: readmodel.Page{Limit: readmodel.All}})
	if err != nil {
		return 0, err
	}
	var last uint64
	for i := range rows {
		e := &rows[i]
		open := e.ClosedAt.IsZero() || e.Totals.Open() > 0 || e.Totals.OthersOpen() > 0
		if !open || !e.ExpiredAt.IsZero() {
			continue
		}
		seq, err := s.journal.KillExec(ctx, c, e.ExecID, reason)
		var refused *domain.Refusal
		if errors.As(err, &refused) && refused.Code == domain.Conflict { // it has expired meanwhile
			continue
		}
		if err != nil {
			return last, err
		}
		last = max(last, seq)
	}
	return last, nil
}

func (s *server) releaseWave(w http.ResponseWriter, r *http.Request, route string) error {
	var sent struct {
		Wave   *int   `json:"wave"`
		Reason string `json:"reason"`
	}
	id, c, err := readIntent(w, r, route, &sent)
	if err == nil {
		err = checkReason(sent.Reason)
	}
	if err != nil {
		return err
	}
	seq, wave, err := s.journal.AdvanceExec(r.Context(), c, id, sent.Wave, sent.Reason)
	if err != nil {
		return err
	}
	written(w, seq)
	return writeJSON(w, struct {
		ExecID   string `json:"exec_id"`
		Sequence uint64 `json:"sequence"`
		Wave     int    `json:"wave"`
	}{id, seq, wave})
}
