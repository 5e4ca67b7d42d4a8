package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"kanade/libs/catalog"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
)

func (s *server) listCalendars(w http.ResponseWriter, r *http.Request, _ string) error {
	return listDocuments(w, r, sheetOf[catalog.DayCalendar]("calendars"), s.Reader.Calendars, s.Reader.CountCalendars, func(c *readmodel.Calendar) json.RawMessage { return json.RawMessage(c.Document) })
}

func (s *server) calendar(r *http.Request) (readmodel.Calendar, error) {
	return documentOf(r, "calendar", s.Reader.Calendar)
}

func (s *server) getCalendar(w http.ResponseWriter, r *http.Request, _ string) error {
	c, err := s.calendar(r)
	if err != nil {
		return err
	}
	return writeDocument(w, r, c.Revision)
}

func (s *server) getCalendarYAML(w http.ResponseWriter, r *http.Request, _ string) error {
	c, err := s.calendar(r)
	if err != nil {
		return err
	}
	return writeDocumentYAML(w, c.Revision)
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
	hash, err := saved(w, seq, doc)
	if err != nil {
		return err
	}
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
	return done(w, seq)
}
