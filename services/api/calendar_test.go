package api

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

const holidaysYAML = "# days off\nid: holidays\ndays: [2026-12-24..2026-12-26, 2027-01-01]\ndescription: nobody works\n"

func TestCalendarDocument(t *testing.T) {
	s := newSystem(t, parts{})
	const path = "/api/calendars/holidays"
	first := s.write(http.MethodPut, path, holidaysYAML, "Content-Type", yamlType, "Idempotency-Key", "k1")
	tag := first.header.Get("ETag")
	var saved struct {
		ID, Kind, Hash string
		Sequence       uint64
	}
	first.into(t, &saved)
	require.Equal(t, "blackout", saved.Kind)
	require.Equal(t, `"`+saved.Hash+`"`, tag)
	require.Equal(t, first.sequence(t), saved.Sequence)
	fact, ok := s.fact(saved.Sequence).(events.CalendarSaved)
	require.True(t, ok)
	require.Equal(t, "holidays", fact.Calendar)
	require.Equal(t, holidaysYAML, fact.Source)

	before := s.lastSeq()
	require.Equal(t, saved.Sequence, s.write(http.MethodPut, path, holidaysYAML, "Content-Type", yamlType).sequence(t), "nothing changes")
	require.Equal(t, saved.Sequence, s.write(http.MethodPut, path, holidaysYAML, "Content-Type", yamlType, "Idempotency-Key", "k1").sequence(t))
	require.Equal(t, before, s.lastSeq())

	got := s.read(path)
	require.Equal(t, tag, got.header.Get("ETag"))
	require.JSONEq(t, `{"id":"holidays","kind":"blackout","days":["2026-12-24..2026-12-26","2027-01-01"],"description":"nobody works"}`, got.text())
	require.Equal(t, http.StatusNotModified, s.read(path, "If-None-Match", tag).status)
	require.Equal(t, holidaysYAML, s.read(path+"/yaml").text())
	require.Equal(t, "1", s.read("/api/calendars").header.Get("X-Total-Count"))
	require.JSONEq(t, "["+got.text()+"]", s.read("/api/calendars").text())

	const patch = `{"id":"holidays","kind":"allow","days":["2026-11-10"]}`
	require.Equal(t, http.StatusPreconditionFailed, s.do(http.MethodPut, path, patch, "If-Match", `"0000"`).status)
	require.Equal(t, before, s.lastSeq())
	s.write(http.MethodPut, path, patch, "If-Match", tag)
	require.Contains(t, s.read(path).text(), `"kind":"allow"`)

	require.Equal(t, http.StatusPreconditionFailed, s.do(http.MethodDelete, path, "", "If-Match", tag).status)
	gone := s.write(http.MethodDelete, path, "")
	require.Equal(t, http.StatusNoContent, gone.status)
	require.Equal(t, http.StatusNotFound, s.read(path).status)
	require.Equal(t, http.StatusNotFound, s.read(path+"/yaml").status)
	require.Equal(t, gone.sequence(t), s.write(http.MethodDelete, path, "").sequence(t))
	require.Equal(t, uint64(0), s.write(http.MethodDelete, "/api/calendars/never", "").sequence(t))
}

// A schedule keeps the calendars that it names, and names only those that are there.
func TestCalendarsOfSchedules(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	s.write(http.MethodPut, "/api/calendars/holidays", holidaysYAML, "Content-Type", yamlType)
	unknown := s.do(http.MethodPost, "/api/schedules", nightlyYAML+"calendars: [holidays, sales, stock]\n", "Content-Type", yamlType, "Accept", "application/json")
	require.Equal(t, http.StatusUnprocessableEntity, unknown.status)
	require.Contains(t, unknown.text(), `{"path":"calendars[1]","message":"unknown calendar 'sales'`)
	require.Contains(t, unknown.text(), `{"path":"calendars[2]","message":"unknown calendar 'stock'`)
	require.NotContains(t, unknown.text(), "calendars[0]")
	s.write(http.MethodPost, "/api/schedules", nightlyYAML+"calendars: [holidays]\n", "Content-Type", yamlType)

	named := s.do(http.MethodDelete, "/api/calendars/holidays", "")
	require.Equal(t, http.StatusConflict, named.status)
	require.Equal(t, "calendar 'holidays' is named by schedule 'nightly'; take it out of there first", named.text())
	s.write(http.MethodDelete, "/api/schedules/nightly", "")
	require.Equal(t, http.StatusNoContent, s.write(http.MethodDelete, "/api/calendars/holidays", "").status)
}
