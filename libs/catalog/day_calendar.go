package catalog

import (
	"slices"
	"strings"
	"time"
)

// DayCalendar is a named list of days that schedules leave out (holidays), or keep to (patch days): the body of PUT
// /api/calendars/{id}. Days are those of the schedule's zone.
type DayCalendar struct {
	ID   string          `json:"id" is:"required"`
	Kind DayCalendarKind `json:"kind"`
	// Days are YYYY-MM-DD, or YYYY-MM-DD..YYYY-MM-DD with both ends.
	Days        []string `json:"days" is:"required"`
	Description string   `json:"description,omitzero" is:"null"`
}

// DayCalendarKind says what a calendar's days mean.
type DayCalendarKind string

// The kinds: no tick fires on its days, or none on any other day.
const (
	Blackout DayCalendarKind = "blackout"
	Allow    DayCalendarKind = "allow"
)

func (DayCalendarKind) words() []string { return []string{"blackout", "allow"} }

func (c *DayCalendar) defaults() { c.Kind = Blackout }

// maxDayCalendar is the size of a calendar as sent, in bytes: a day each for 250 years.
const maxDayCalendar = 1 << 20

// ParseDayCalendar reads a calendar strictly and checks its rules. Every error is an *[Error].
func ParseDayCalendar(src []byte, t SourceType) (*DayCalendar, error) {
	c := new(DayCalendar)
	d, err := parse(src, t, maxDayCalendar, c)
	if err != nil {
		return nil, err
	}
	d.id("id", c.ID)
	for i, text := range c.Days {
		if _, _, ok := days(text); !ok {
			d.add(Invalid, place("days", i), "expected YYYY-MM-DD or YYYY-MM-DD..YYYY-MM-DD, got %q", text)
		}
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// ParseDayCalendarDocument reads a stored calendar; see [ParseManifestDocument].
func ParseDayCalendarDocument(doc []byte) (*DayCalendar, error) {
	c := new(DayCalendar)
	return c, decodeLeniently(doc, c)
}

// Document is the calendar as it is stored; see [Manifest.Document].
func (c *DayCalendar) Document() ([]byte, error) { return document("calendar", c.ID, c) }

// days reads a day, or a span of days with both ends.
func days(text string) (first, last string, ok bool) {
	first, last, span := strings.Cut(text, "..")
	if !span {
		last = first
	}
	for _, day := range []string{first, last} {
		if _, err := time.Parse(time.DateOnly, day); err != nil {
			return "", "", false
		}
	}
	return first, last, first <= last
}

// holds reports whether a day, YYYY-MM-DD, is in the calendar.
func (c *DayCalendar) holds(day string) bool {
	return slices.ContainsFunc(c.Days, func(text string) bool {
		first, last, ok := days(text)
		return ok && first <= day && day <= last
	})
}
