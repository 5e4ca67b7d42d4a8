package rest

import (
	"net/http"

	"kanade/libs/catalog"
	"kanade/services/api/internal/domain"
)

// freeze is a freeze as answered. The CLI of kanade 0.43.45 refuses any other key, and any other zone than local and utc.
type freeze struct {
	From   string `json:"from,omitempty"`
	Until  string `json:"until,omitempty"`
	Reason string `json:"reason,omitempty"`
	TZ     string `json:"tz"`
}

// getFreeze answers null when there is none.
func (s *server) getFreeze(w http.ResponseWriter, r *http.Request, _ string) error {
	z, frozen, err := s.Reader.Freeze(r.Context())
	switch {
	case err != nil:
		return err
	case !frozen:
		return writeJSON(w, nil)
	}
	return writeJSON(w, freeze{z.From, z.Until, z.Reason, z.TZ})
}

func (s *server) putFreeze(w http.ResponseWriter, r *http.Request, route string) error {
	body, err := readJSONBody(w, r)
	if err != nil {
		return err
	}
	f, err := catalog.ParseFreeze(body)
	if err != nil {
		return domain.RefuseBody(err)
	}
	if err := checkReason(f.Reason); err != nil {
		return err
	}
	c, err := caller(r, route, body)
	if err != nil {
		return err
	}
	seq, err := s.journal.SaveFreeze(r.Context(), c, f)
	if err != nil {
		return err
	}
	written(w, seq)
	return writeJSON(w, freeze{f.From, f.Until, f.Reason, string(f.TZ)})
}

// deleteFreeze takes a reason, as the acts that take something back do.
func (s *server) deleteFreeze(w http.ResponseWriter, r *http.Request, route string) error {
	c, reason, err := readReason(w, r, route)
	if err != nil {
		return err
	}
	seq, err := s.journal.ClearFreeze(r.Context(), c, reason)
	if err != nil {
		return err
	}
	return done(w, seq)
}
