package rest

import (
	"context"
	"encoding/json"
	"net/http"

	"kanade/libs/catalog"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
)

func (s *server) listSchedules(w http.ResponseWriter, r *http.Request, _ string) error {
	return listDocuments(w, r, sheetOf[catalog.Schedule]("schedules"), s.Reader.Schedules, s.Reader.CountSchedules, func(x *readmodel.Schedule) json.RawMessage { return json.RawMessage(x.Document) })
}

func (s *server) schedule(r *http.Request) (readmodel.Schedule, error) {
	return documentOf(r, "schedule", s.Reader.Schedule)
}

func (s *server) getSchedule(w http.ResponseWriter, r *http.Request, _ string) error {
	x, err := s.schedule(r)
	if err != nil {
		return err
	}
	return writeDocument(w, r, x.Revision)
}

func (s *server) getScheduleYAML(w http.ResponseWriter, r *http.Request, _ string) error {
	x, err := s.schedule(r)
	if err != nil {
		return err
	}
	return writeDocumentYAML(w, x.Revision)
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
	hash, err := saved(w, seq, doc)
	if err != nil {
		return err
	}
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
	return done(w, seq)
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
	return done(w, seq)
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
	return done(w, seq)
}

func (s *server) listTicks(w http.ResponseWriter, r *http.Request, _ string) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	q := queryOf(r)
	l := q.list(r, defaultLimit)
	if q.err != nil {
		return q.err
	}
	return writeList(w, r, l, sheetOf[tick]("ticks"), func(ctx context.Context, p readmodel.Page) ([]tick, string, error) {
		rows, next, err := s.Reader.Ticks(ctx, id, p)
		if len(rows) == 0 && err == nil && p.After == "" && p.Limit != 0 { // ticks outlive their schedule; an id without either is a mistake
			_, err = s.schedule(r)
		}
		return rowsOf(rows, next, err, tickOf)
	})
}
