package rest

import (
	"context"
	"net/http"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/api/internal/domain"
)

func (s *server) postExec(w http.ResponseWriter, r *http.Request, route string) error {
	jobID, err := pathID(r, "job_id")
	if err != nil {
		return err
	}
	q := queryOf(r)
	q.only("dry_run")
	dry := q.flag("dry_run")
	if q.err != nil {
		return q.err
	}
	body, err := readJSONUpTo(w, r, catalog.MaxPlan)
	if err != nil {
		return err
	}
	plan, err := catalog.ParsePlan(body)
	if err != nil {
		return domain.RefusePlan(err)
	}
	c, err := caller(r, route, body)
	if err != nil {
		return err
	}
	if dry {
		return s.reading(func(s *server, w http.ResponseWriter, r *http.Request, _ string) error {
			return s.dryRun(w, r, c, jobID, plan)
		})(w, r, route)
	}
	least, err := minSequence(r)
	if err != nil {
		return err
	}
	e, seq, err := s.journal.RequestExec(r.Context(), c, jobID, plan, func(ctx context.Context, e events.ExecRequested, at time.Time) (*int, error) {
		return s.admit(ctx, e, plan, at, least)
	})
	if err != nil {
		return err
	}
	return answerExec(w, e, seq, plan)
}

// requested is the answer to a request of an exec.
type requested struct {
	ExecID  string `json:"exec_id"`
	JobID   string `json:"job_id"`
	Version string `json:"version"`
	// TargetCount is how many endpoints the plan asks for, counted when the exec was requested: everybody of all and of
	// groups that is known, away or not, and whoever is named, each once; 0 where nobody matches. What a repeated request
	// is answered does not change.
	TargetCount int `json:"target_count"`
	// Uncounted: there was no read model to ask, and TargetCount has the named endpoints alone.
	Uncounted bool     `json:"uncounted,omitempty"`
	Subjects  []string `json:"subjects"`
	RetryOf   string   `json:"retry_of,omitempty"`
	Sequence  uint64   `json:"sequence"`
}

// answerExec answers a request of an exec with what it made.
func answerExec(w http.ResponseWriter, e events.ExecRequested, seq uint64, plan *catalog.Plan) error {
	written(w, seq)
	answer := requested{ExecID: e.ExecID, JobID: e.JobID, Version: e.Version, Subjects: domain.Subjects(plan), RetryOf: e.RetryOf, Sequence: seq}
	if e.TargetCount != nil {
		answer.TargetCount = *e.TargetCount
	} else {
		a, _ := domain.AudienceOf(plan)
		answer.TargetCount, answer.Uncounted = len(a.PCs), true
	}
	return writeJSON(w, answer)
}

// answerStored is answerExec with the plan that the request holds.
func answerStored(w http.ResponseWriter, e events.ExecRequested, seq uint64) error {
	plan, err := catalog.ParsePlanDocument(e.Plan)
	if err != nil {
		return err
	}
	return answerExec(w, e, seq, plan)
}
