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
	dry := q.flag("dry_run")
	if q.err != nil {
		return q.err
	}
	body, err := readJSONBody(w, r)
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
		return s.reading(func(w http.ResponseWriter, r *http.Request, _ string) error {
			return s.dryRun(w, r, c, jobID, plan)
		})(w, r, route)
	}
	e, seq, err := s.journal.RequestExec(r.Context(), c, jobID, plan, func(ctx context.Context, e events.ExecRequested, at time.Time) error {
		return s.requireTargets(ctx, e, plan, at)
	})
	if err != nil {
		return err
	}
	return s.answerExec(w, r, e, seq, plan)
}

// answerExec answers a request of an exec with what it made.
func (s *server) answerExec(w http.ResponseWriter, r *http.Request, e events.ExecRequested, seq uint64, plan *catalog.Plan) error {
	written(w, seq)
	return writeJSON(w, struct {
		ExecID      string   `json:"exec_id"`
		JobID       string   `json:"job_id"`
		Version     string   `json:"version"`
		TargetCount int      `json:"target_count"`
		Subjects    []string `json:"subjects"`
		RetryOf     string   `json:"retry_of,omitempty"`
		Sequence    uint64   `json:"sequence"`
	}{e.ExecID, e.JobID, e.Version, s.count(r.Context(), domain.AudienceOf(plan)), domain.Subjects(plan), e.RetryOf, seq})
}
