package rest

import (
	"context"
	"net/http"

	"kanade/services/api/internal/journal"
)

// getScripts answers every job that has ever been revoked, with the word that agents read.
func (s *server) getScripts(w http.ResponseWriter, r *http.Request, _ string) error {
	rows, err := s.Reader.Scripts(r.Context())
	if err != nil {
		return err
	}
	answer := make(map[string]string, len(rows))
	for i := range rows {
		answer[rows[i].JobID] = "ACTIVE"
		if rows[i].Revoked {
			answer[rows[i].JobID] = "REVOKED"
		}
	}
	return writeJSON(w, answer)
}

// changeScript answers revoke and unrevoke, for any id, whether a job has it or not.
func (s *server) changeScript(do func(ctx context.Context, c journal.Caller, jobID, reason string) (uint64, error)) handler {
	return func(w http.ResponseWriter, r *http.Request, route string) error {
		id, err := pathID(r, "cmd_id")
		if err != nil {
			return err
		}
		var sent reasoned
		body, err := readOptional(w, r, &sent)
		if err == nil {
			err = checkReason(sent.Reason)
		}
		if err != nil {
			return err
		}
		c, err := caller(r, route, body)
		if err != nil {
			return err
		}
		seq, err := do(r.Context(), c, id, sent.Reason)
		if err != nil {
			return err
		}
		written(w, seq)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}
