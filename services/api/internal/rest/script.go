package rest

import "net/http"

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
