package domain

import (
	"fmt"
	"slices"
	"strings"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

// SaveCalendar decides what storing a named calendar appends; nil means that nothing changes.
func SaveCalendar(cur Calendar, c *catalog.DayCalendar, source string, t catalog.SourceType, match Match) (*events.CalendarSaved, error) {
	if err := match.Check("calendar", c.ID, calendarHash(cur)); err != nil {
		return nil, err
	}
	doc, err := c.Document()
	if err != nil {
		return nil, fmt.Errorf("save calendar %s: %w", c.ID, err)
	}
	saved := &events.CalendarSaved{ID: events.CalendarID(c.ID), Calendar: c.ID, DocumentRevision: events.DocumentRevision{
		Document: doc, Source: source, SourceType: string(t), Hash: catalog.Hash(doc),
	}}
	if cur.Saved != nil && same(cur.Saved.DocumentRevision, saved.DocumentRevision) {
		return nil, nil
	}
	return saved, nil
}

// DeleteCalendar decides what deleting a calendar appends; nil means that there is none, which is no error. namedBy are the
// schedules that name it, which keep it: without it they would fire on the days that it leaves out.
func DeleteCalendar(cur Calendar, id string, namedBy []string, match Match) (*events.CalendarDeleted, error) {
	if err := match.Check("calendar", id, calendarHash(cur)); err != nil || cur.Saved == nil {
		return nil, err
	}
	if len(namedBy) > 0 {
		slices.Sort(namedBy)
		return nil, Refuse(Conflict, "calendar '%s' is named by schedule '%s'; take it out of there first", id, strings.Join(namedBy, "', '"))
	}
	return &events.CalendarDeleted{ID: events.CalendarID(id), Calendar: id}, nil
}

// CheckCalendars refuses a schedule that names a calendar that is not there; known says which are.
func CheckCalendars(s *catalog.Schedule, known func(id string) bool) error {
	var r *Refusal
	for i, id := range s.Calendars {
		if known(id) {
			continue
		}
		one := RefuseField(Unprocessable, fmt.Sprintf("calendars[%d]", i), "unknown calendar '%s' — create it first (kanade calendar create)", id)
		if r == nil {
			r = one
		} else {
			r.Sentence, r.Problems = r.Sentence+"; "+one.Sentence, append(r.Problems, one.Problems...)
		}
	}
	if r == nil {
		return nil
	}
	return r
}

func calendarHash(cur Calendar) string {
	if cur.Saved == nil {
		return ""
	}
	return cur.Saved.Hash
}
