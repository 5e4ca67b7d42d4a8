package catalog

import (
	"fmt"
	"time"
	_ "time/tzdata" // containers without a zone database know all zones too
)

// Zone is the zone that a document's tz names: local (also when empty), which is what the caller says, utc, or one of
// IANA's names.
func Zone(name string, local *time.Location) (*time.Location, error) {
	unknown := func() error { return fmt.Errorf("expected local, utc or a zone like Europe/Berlin, got %q", name) }
	switch name {
	case "", "local":
		return local, nil
	case "utc":
		return time.UTC, nil
	case "Local":
		return nil, unknown() // the name of the host's zone in the library, which nobody means
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, unknown()
	}
	return loc, nil
}

// Bound reads an end of a span of time: RFC 3339, or a date for the first instant of that day in a zone. An empty one is
// the zero time, which is open.
func Bound(text string, zone *time.Location) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	day, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("expected YYYY-MM-DD or a time like 2026-01-31T08:00:00Z, got %q", text)
	}
	return instant(day, zone), nil
}
