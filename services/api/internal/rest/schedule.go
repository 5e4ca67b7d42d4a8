package rest

import (
	"encoding/json"
	"errors"
	"net/http"

	"kanade/libs/catalog"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
)

func (s *server) listSchedules(w http.ResponseWriter, r *http.Request, _ string) error {
	q := queryOf(r)
	page := q.page(readmodel.All)
	if q.err != nil {
		return q.err
	}
	rows, next, err := s.Reader.Schedules(r.Context(), page)
	if err != nil {
		return err
	}
	n, err := s.Reader.CountSchedules(r.Context())
	if err != nil {
		return err
	}
	total(w, n)
	answer := make([]json.RawMessage, len(rows))
	for i := range rows {
		answer[i] = json.RawMessage(rows[i].Document)
	}
	return writeList(w, r, answer, next)
}

func (s *server) schedule(r *http.Request) (readmodel.Schedule, error) {
	id, err := pathID(r, "id")
	if err != nil {
		return readmodel.Schedule{}, err
	}
	x, err := s.Reader.Schedule(r.Context(), id)
	if errors.Is(err, readmodel.ErrNotFound) {
		err = domain.Refuse(domain.NotFound, "schedule '%s' not found", id)
	}
	return x, err
}

func (s *server) getSchedule(w http.ResponseWriter, r *http.Request, _ string) error {
	x, err := s.schedule(r)
	if err != nil || notModified(w, r, domain.ETag(x.Hash)) {
		return err
	}
	return writeBytes(w, "application/json", []byte(x.Document))
}

func (s *server) getScheduleYAML(w http.ResponseWriter, r *http.Request, _ string) error {
	x, err := s.schedule(r)
	if err != nil {
		return err
	}
	text, err := domain.YAMLText(x.Source, x.SourceType, x.Document)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", domain.ETag(x.Hash))
	return writeBytes(w, "application/yaml", []byte(text))
}

func (s *server) postSchedule(w http.ResponseWriter, r *http.Request, route string) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	t := documentType(r)
	doc, err := catalog.ParseSchedule(body, t)
	if err != nil {
		return domain.RefuseDocument(err)
	}
	for field, id := range map[string]string{"id": doc.ID, "job_id": doc.JobID} {
		if err := domain.CheckID(field, id); err != nil {
			return err
		}
	}
	c, err := caller(r, route, body)
	if err != nil {
		return err
	}
	seq, err := s.journal.SaveSchedule(r.Context(), c, doc, string(body), t)
	if err != nil {
		return err
	}
	text, err := doc.Document()
	if err != nil {
		return err
	}
	hash := catalog.Hash(text)
	written(w, seq)
	w.Header().Set("ETag", domain.ETag(hash))
	return writeJSON(w, struct {
		ID       string `json:"id"`
		When     string `json:"when"`
		Enabled  bool   `json:"enabled"`
		JobID    string `json:"job_id"`
		Sequence uint64 `json:"sequence"`
		Hash     string `json:"hash"`
	}{doc.ID, doc.WhenText(), doc.Enabled, doc.JobID, seq, hash})
}

func (s *server) deleteSchedule(w http.ResponseWriter, r *http.Request, route string) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	c, err := caller(r, route, nil)
	if err != nil {
		return err
	}
	seq, err := s.journal.DeleteSchedule(r.Context(), c, id)
	if err != nil {
		return err
	}
	written(w, seq)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) enableSchedule(w http.ResponseWriter, r *http.Request, route string) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	c, err := caller(r, route, nil)
	if err != nil {
		return err
	}
	_, seq, err := s.journal.EnableSchedule(r.Context(), c, id, true)
	if err != nil {
		return err
	}
	written(w, seq)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// disableSchedule with cascade revokes the schedule's job as well, and with cascade_kill kills its execs.
func (s *server) disableSchedule(w http.ResponseWriter, r *http.Request, route string) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	q := queryOf(r)
	revoke, kill := q.flag("cascade"), q.flag("cascade_kill")
	if q.err != nil {
		return q.err
	}
	c, err := caller(r, route, nil)
	if err != nil {
		return err
	}
	jobID, seq, err := s.journal.EnableSchedule(r.Context(), c, id, false)
	if err != nil {
		return err
	}
	reason := "schedule '" + id + "' was disabled"
	if revoke {
		revoked, err := s.journal.RevokeScript(r.Context(), c, jobID, reason)
		if err != nil {
			return err
		}
		seq = max(seq, revoked)
	}
	if kill {
		killed, err := s.killJobExecs(r.Context(), c, jobID, reason)
		if err != nil {
			return err
		}
		seq = max(seq, killed)
	}
	written(w, seq)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) listTicks(w http.ResponseWriter, r *http.Request, _ string) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	q := queryOf(r)
	page := q.page(defaultLimit)
	if q.err != nil {
		return q.err
	}
	rows, next, err := s.Reader.Ticks(r.Context(), id, page)
	if err != nil {
		return err
	}
	if len(rows) == 0 { // ticks outlive their schedule; an id without either is a mistake
		if _, err := s.schedule(r); err != nil {
			return err
		}
	}
	answer := make([]tick, len(rows))
	for i, t := range rows {
		answer[i] = tickOf(t)
	}
	return writeList(w, r, answer, next)
}
