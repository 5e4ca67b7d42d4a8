package rest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"

	"kanade/libs/catalog"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
)

func (s *server) listCalendars(w http.ResponseWriter, r *http.Request, _ string) error {
	q := queryOf(r)
	page := q.page(readmodel.All)
	if q.err != nil {
		return q.err
	}
	rows, next, err := s.Reader.Calendars(r.Context(), page)
	if err != nil {
		return err
	}
	n, err := s.Reader.CountCalendars(r.Context())
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

func (s *server) calendar(r *http.Request) (readmodel.Calendar, error) {
	id, err := pathID(r, "id")
	if err != nil {
		return readmodel.Calendar{}, err
	}
	c, err := s.Reader.Calendar(r.Context(), id)
	if errors.Is(err, readmodel.ErrNotFound) {
		err = domain.Refuse(domain.NotFound, "calendar '%s' not found", id)
	}
	return c, err
}

func (s *server) getCalendar(w http.ResponseWriter, r *http.Request, _ string) error {
	c, err := s.calendar(r)
	if err != nil || notModified(w, r, domain.ETag(c.Hash)) {
		return err
	}
	return writeBytes(w, "application/json", []byte(c.Document))
}

func (s *server) getCalendarYAML(w http.ResponseWriter, r *http.Request, _ string) error {
	c, err := s.calendar(r)
	if err != nil {
		return err
	}
	text, err := domain.YAMLText(c.Source, c.SourceType, c.Document)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", domain.ETag(c.Hash))
	return writeBytes(w, "application/yaml", []byte(text))
}

func (s *server) putCalendar(w http.ResponseWriter, r *http.Request, route string) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	t := documentType(r)
	doc, err := catalog.ParseDayCalendar(body, t)
	switch {
	case err != nil:
		return domain.RefuseDocument(err)
	case doc.ID != id:
		return domain.RefuseField(domain.Invalid, "id", "the document is of calendar '%s', the path of '%s'", doc.ID, id)
	}
	c, err := caller(r, route, body)
	if err != nil {
		return err
	}
	seq, err := s.journal.SaveCalendar(r.Context(), c, doc, string(body), t)
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
		ID       string                  `json:"id"`
		Kind     catalog.DayCalendarKind `json:"kind"`
		Sequence uint64                  `json:"sequence"`
		Hash     string                  `json:"hash"`
	}{doc.ID, doc.Kind, seq, hash})
}

func (s *server) deleteCalendar(w http.ResponseWriter, r *http.Request, route string) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	c, err := caller(r, route, nil)
	if err != nil {
		return err
	}
	seq, err := s.journal.DeleteCalendar(r.Context(), c, id, func(ctx context.Context, sequence uint64) ([]string, error) {
		return s.schedulesWith(ctx, sequence, func(x readmodel.Schedule) bool {
			doc, err := catalog.ParseScheduleDocument([]byte(x.Document))
			return err == nil && slices.Contains(doc.Calendars, id)
		})
	})
	if err != nil {
		return err
	}
	written(w, seq)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
