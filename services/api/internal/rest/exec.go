package rest

import (
	"net/http"

	"kanade/libs/catalog"
	"kanade/services/api/internal/domain"
)

func (s *server) postExec(w http.ResponseWriter, r *http.Request, route string) error {
	jobID, err := pathID(r, "job_id")
	if err != nil {
		return err
	}
	if err := queryOf(r).notYet("dry_run"); err != nil {
		return err
	}
	body, err := readJSONBody(w, r)
	if err != nil {
		return err
	}
	plan, err := catalog.ParsePlan(body)
	if err == nil {
		err = plan.Unsupported()
	}
	if err != nil {
		return domain.RefusePlan(err)
	}
	c, err := caller(r, route, body)
	if err != nil {
		return err
	}
	e, seq, err := s.journal.RequestExec(r.Context(), c, jobID, plan)
	if err != nil {
		return err
	}
	written(w, seq)
	return writeJSON(w, struct {
		ExecID      string   `json:"exec_id"`
		JobID       string   `json:"job_id"`
		Version     string   `json:"version"`
		TargetCount int      `json:"target_count"`
		Subjects    []string `json:"subjects"`
		Sequence    uint64   `json:"sequence"`
	}{e.ExecID, e.JobID, e.Version, s.count(r.Context(), domain.AudienceOf(plan)), domain.Subjects(plan), seq})
}
