package rest

import (
	"net/http"
	"strconv"

	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// resultGroup is runs that ended in the same way, as answered. Its output is that of each of them, cut to the last maxTail
// bytes; result_id is one of them, to read it whole.
type resultGroup struct {
	Digest   string             `json:"digest"`
	Count    int                `json:"count"`
	State    events.TargetState `json:"state"`
	ExitCode *int               `json:"exit_code"`
	Reason   string             `json:"reason"`
	Stdout   string             `json:"stdout"`
	Stderr   string             `json:"stderr"`
	PCs      []string           `json:"pcs"`
	ResultID string             `json:"result_id"`
}

// listResultGroups answers the results of one exec or of one job, put together by what they said. Kanade-Grouped tells how
// many results are in groups, those that the limit leaves out included: of more than 100 000 the last started.
func (s *server) listResultGroups(w http.ResponseWriter, r *http.Request, _ string) error {
	q := queryOf(r)
	f := readmodel.GroupFilter{
		ExecID: q.text("exec_id"), JobID: q.text("job_id"), Status: q.resultStatus(), Since: q.time("since"), Limit: q.page(defaultLimit).Limit,
	}
	switch {
	case f.ExecID == "" && f.JobID == "":
		q.refuse("exec_id", "an exec, or in its place a job_id, is missing")
	case f.ExecID != "" && f.JobID != "":
		q.refuse("job_id", "can't be given beside exec_id")
	}
	if q.err != nil {
		return q.err
	}
	rows, grouped, err := s.Reader.ResultGroups(r.Context(), f)
	if err != nil {
		return err
	}
	answer := make([]resultGroup, len(rows))
	for i := range rows {
		x := &rows[i]
		answer[i] = resultGroup{x.Digest, x.Count, x.State, x.ExitCode, x.Reason, tail(x.Stdout), tail(x.Stderr), x.PCs, x.ResultID}
	}
	w.Header().Set("Kanade-Grouped", strconv.Itoa(grouped))
	return writeJSON(w, answer)
}
