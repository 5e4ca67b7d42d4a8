package rest

import (
	"net/http"
	"unicode/utf8"

	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// failures is a group of runs that failed in the same way, as answered. Its output is cut to the last maxTail bytes.
type failures struct {
	State    events.TargetState `json:"state"`
	ExitCode *int               `json:"exit_code"`
	Reason   string             `json:"reason"`
	Stdout   string             `json:"stdout"`
	Stderr   string             `json:"stderr"`
	Count    int                `json:"count"`
	PCs      []string           `json:"pcs"`
}

const maxTail = 2 << 10

func (s *server) listFailures(w http.ResponseWriter, r *http.Request, _ string) error {
	e, err := s.execution(r)
	if err != nil {
		return err
	}
	q := queryOf(r)
	limit := q.number("limit", defaultLimit)
	if q.err != nil {
		return q.err
	}
	rows, _, err := s.Reader.ResultGroups(r.Context(), readmodel.GroupFilter{ExecID: e.ExecID, Status: readmodel.ResultFailure, Limit: limit})
	if err != nil {
		return err
	}
	answer := make([]failures, len(rows))
	for i := range rows {
		x := &rows[i]
		answer[i] = failures{x.State, x.ExitCode, x.Reason, tail(x.Stdout), tail(x.Stderr), x.Count, x.PCs}
	}
	return writeJSON(w, answer)
}

// tail is the end of a text, of whole characters.
func tail(s string) string {
	if len(s) <= maxTail {
		return s
	}
	s = s[len(s)-maxTail:]
	for len(s) > 0 && !utf8.RuneStart(s[0]) {
		s = s[1:]
	}
	return s
}
