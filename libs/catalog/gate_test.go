package catalog

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/events"
)

func gated(t require.TestingT, keys string) *Schedule {
	s, err := ParseSchedule([]byte(scheduled+everyone+"when: {per_pc: {every: 1h}}\n"+keys), YAML)
	require.NoError(t, err)
	return s
}

// A window that the clock shows twice is open twice, also for whoever asks between the two.
func TestWindowThatComesTwice(t *testing.T) {
	s := gated(t, "constraints: {window: 02:05-02:17}\ntz: Europe/Berlin\n")
	for at, want := range map[string]string{
		"2026-10-25T00:00:00Z": "2026-10-25T00:05:00Z", // 02:00 in summer time
		"2026-10-25T00:17:00Z": "2026-10-25T01:05:00Z",
		"2026-10-25T00:59:00Z": "2026-10-25T01:05:00Z",
		"2026-10-25T01:17:00Z": "2026-10-26T01:05:00Z",
	} {
		minute, err := time.Parse(time.RFC3339, at)
		require.NoError(t, err)
		open, ok := s.NextOpen(minute, Gates{})
		require.True(t, ok)
		require.Equal(t, want, open.Format(time.RFC3339), at)
		require.Empty(t, s.Closed(open, Gates{}))
	}
}

func calendarOf(t require.TestingT, kind, days string) *DayCalendar {
	c, err := ParseDayCalendar(fmt.Appendf(nil, "id: c\nkind: %s\ndays: [%s]\n", kind, days), YAML)
	require.NoError(t, err)
	return c
}

func TestGates(t *testing.T) {
	calendars := map[string]*DayCalendar{
		"holidays": calendarOf(t, "blackout", "2026-12-24..2026-12-26, 2027-01-01"),
		"patches":  calendarOf(t, "allow", "2026-12-08, 2026-12-24"),
	}
	for _, c := range []struct{ keys, at, want string }{
		{"", "2026-12-24T03:00:00Z", ""},
		{"calendars: [holidays]\n", "2026-12-23T23:59:59Z", ""},
		{"calendars: [holidays]\n", "2026-12-26T23:59:59Z", events.TickReasonCalendar},
		{"calendars: [holidays]\ntz: Asia/Tokyo\n", "2026-12-26T15:00:00Z", ""},
		{"calendars: [patches]\n", "2026-12-08T10:00:00Z", ""},
		{"calendars: [patches]\n", "2026-12-09T10:00:00Z", events.TickReasonCalendar},
		{"calendars: [patches, holidays]\n", "2026-12-24T10:00:00Z", events.TickReasonCalendar},
		{"calendars: [gone]\n", "2026-12-24T10:00:00Z", ""},
		{"constraints: {skip_dates: [2026-12-09]}\n", "2026-12-09T10:00:00Z", events.TickReasonSkipDate},
		{"constraints: {window: 22:00-05:00}\n", "2026-12-09T21:59:59Z", events.TickReasonWindow},
		{"constraints: {window: 22:00-05:00}\n", "2026-12-09T22:00:00Z", ""},
		{"constraints: {window: 22:00-05:00}\n", "2026-12-09T04:59:59Z", ""},
		{"constraints: {window: 22:00-05:00}\n", "2026-12-09T05:00:00Z", events.TickReasonWindow},
		{"constraints: {window: 08:00-17:00}\ntz: America/New_York\n", "2026-12-09T13:00:00Z", ""},
		{"constraints: {window: 08:00-17:00}\ntz: America/New_York\n", "2026-12-09T12:59:00Z", events.TickReasonWindow},
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		require.NoError(t, err)
		require.Equal(t, c.want, gated(t, c.keys).Closed(at, Gates{Local: time.UTC, Calendars: calendars}), "%s %s", c.keys, c.at)
	}
	for at, want := range map[string][]string{
		"2026-12-23T10:00:00Z": {"patches", "others"}, "2026-12-25T10:00:00Z": {"holidays"}, "2026-12-08T10:00:00Z": nil,
	} {
		at, err := time.Parse(time.RFC3339, at)
		require.NoError(t, err)
		gates := Gates{Local: time.UTC, Calendars: maps.Clone(calendars)}
		gates.Calendars["others"] = calendarOf(t, "allow", "2026-12-01")
		require.Equal(t, want, gated(t, "calendars: [patches, holidays, others, gone]\n").ClosedBy(at, gates), "%s", at)
	}
	for stored, want := range map[string]string{`{"window":"soon"}`: events.TickReasonWindow, `{"window":"02:00-02:00"}`: events.TickReasonWindow, `{}`: ""} {
		s, err := ParseScheduleDocument([]byte(`{"when":{"per_pc":"once"},"constraints":` + stored + `}`))
		require.NoError(t, err)
		require.Equal(t, want, s.Closed(time.Now(), Gates{Local: time.UTC}), stored)
		_, open := s.NextOpen(time.Now().Truncate(time.Minute), Gates{Local: time.UTC})
		require.Equal(t, want == "", open, stored)
	}
}

// Nothing is due outside of the active bounds; one that can't be read counts as absent.
func TestActive(t *testing.T) {
	at := func(text string) time.Time {
		t, _ := time.Parse(time.RFC3339, text)
		return t
	}
	for keys, want := range map[string]int{
		"active: {from: 2026-01-02, until: 2026-01-04}\n":                 2,
		"active: {from: '2026-01-02T09:05:00Z', until: 2026-01-04}\n":     2,
		"active: {from: '2026-01-02T09:05:01Z', until: 2026-01-04}\n":     1,
		"active: {until: '2026-01-02T09:05:00Z'}\n":                       1,
		"active: {from: 2026-01-02, until: 2026-01-04}\ntz: Asia/Tokyo\n": 2,
		"active: {from: 2026-01-05}\n":                                    5,
		"active: {from: '2030-01-01T00:00:00Z'}\n":                        0,
		"active: {}\n": 9,
		"active: {until: 2026-01-02}\ncatch_up: none\ntz: America/New_York\n": 1,
	} {
		s, err := ParseSchedule([]byte(scheduled+everyone+"when: {calendar: {at: '09:05'}}\n"+keys), YAML)
		require.NoError(t, err)
		require.Len(t, s.Between(at("2026-01-01T00:00:00Z"), at("2026-01-09T23:00:00Z"), time.UTC, 100), want, keys)
	}
	s, err := ParseScheduleDocument([]byte(`{"when":{"calendar":{"at":"09:05"}},"active":{"from":"soon","until":"2026-01-03"}}`))
	require.NoError(t, err)
	require.Len(t, s.Between(at("2026-01-01T00:00:00Z"), at("2026-01-09T23:00:00Z"), time.UTC, 100), 2)
}

func TestDayCalendars(t *testing.T) {
	for source, want := range map[string]string{
		"id: a\ndays: [2026-01-31, 2026-02-01..2026-02-03]\n":  "",
		"id: a\ndays: []\nkind: allow\ndescription: patches\n": "",
		"id: a\n":               "days: missing (line 1)",
		"id: a\ndays: [soon]\n": `days[0]: expected YYYY-MM-DD or YYYY-MM-DD..YYYY-MM-DD, got "soon" (line 2)`,
		"id: a\ndays: [2026-02-03..2026-02-01, 2026-02-30..]\n": `days[0]: expected YYYY-MM-DD or YYYY-MM-DD..YYYY-MM-DD, got "2026-02-03..2026-02-01" (line 2); days[1]: expected YYYY-MM-DD or YYYY-MM-DD..YYYY-MM-DD, got "2026-02-30.." (line 2)`,
		"id: a\ndays: []\nkind: maybe\n":                        `kind: expected blackout or allow, got "maybe" (line 3)`,
	} {
		c, err := ParseDayCalendar([]byte(source), YAML)
		if want != "" {
			require.EqualError(t, err, want, source)
			continue
		}
		require.NoError(t, err, source)
		doc, err := c.Document()
		require.NoError(t, err)
		stored, err := ParseDayCalendarDocument(doc)
		require.NoError(t, err)
		require.Equal(t, c, stored)
	}
}

// NextOpen finds the minute that whoever tries every minute finds.
func TestNextOpenIsTheFirstOpenMinute(t *testing.T) {
	calendars := map[string]*DayCalendar{
		"holidays": calendarOf(t, "blackout", "2026-03-28..2026-03-29, 2026-10-25"), "patches": calendarOf(t, "allow", "2026-03-29, 2026-10-24..2026-10-26, 2026-04-01"),
	}
	starts := []time.Time{time.Date(2026, 3, 27, 12, 0, 0, 0, time.UTC), time.Date(2026, 10, 23, 12, 0, 0, 0, time.UTC), time.Date(2026, 4, 22, 12, 0, 0, 0, time.UTC)}
	rapid.Check(t, func(t *rapid.T) {
		s := gated(t, "tz: "+rapid.SampledFrom([]string{"utc", "Europe/Berlin", "Africa/Cairo", "Australia/Lord_Howe", "America/New_York"}).Draw(t, "zone")+"\n")
		clock := func(name string) string {
			return fmt.Sprintf("%02d:%02d", rapid.IntRange(0, 23).Draw(t, name), rapid.SampledFrom([]int{0, 15, 30}).Draw(t, name))
		}
		s.Constraints = &Constraints{}
		if from, to := clock("from"), clock("to"); from != to {
			s.Constraints.Window = from + "-" + to
		}
		if rapid.Bool().Draw(t, "skips") {
			s.Constraints.SkipDates = []string{"2026-03-29", "2026-10-25"}
		}
		s.Calendars = rapid.SampledFrom([][]string{nil, nil, {"holidays"}, {"patches"}, {"patches", "holidays"}}).Draw(t, "calendars")
		if rapid.IntRange(0, 3).Draw(t, "bounded") == 0 {
			s.Active = &Active{From: "2026-03-28", Until: "2026-10-26"}
		}
		minute := rapid.SampledFrom(starts).Draw(t, "start").Add(time.Duration(rapid.IntRange(0, 4*24*60).Draw(t, "minute")) * time.Minute)
		g := Gates{Local: time.UTC, Calendars: calendars}
		from, until := s.Lasts(time.UTC)
		var want time.Time
		for at := minute; at.Before(minute.AddDate(0, 0, 12)); at = at.Add(time.Minute) {
			if !at.Before(from) && (until.IsZero() || at.Before(until)) && s.Closed(at, g) == "" {
				want = at
				break
			}
		}
		got, ok := s.NextOpen(minute, g)
		if ok && got.After(minute.AddDate(0, 0, 12).Add(-time.Minute)) {
			got, ok = time.Time{}, false
		}
		if ok != !want.IsZero() || !got.Equal(want) {
			t.Fatalf("%+v %s from %s: %s, want %s", *s.Constraints, s.TZ, minute, got, want)
		}
	})
}
