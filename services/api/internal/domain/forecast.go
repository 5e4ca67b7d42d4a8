package domain

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

// Installation is what due times depend on beside the schedule.
type Installation struct {
	catalog.Gates
	// Zoned: the installation says what the zone local means. Without it, it is UTC.
	Zoned bool
	// Freeze is nil when there is none. It holds nothing back that was due before Since.
	Freeze *catalog.Freeze
	Since  time.Time
}

// Frozen reports whether the freeze holds back what is due at an instant, as it is known now.
func (in *Installation) Frozen(at time.Time) bool {
	return in.Freeze != nil && !at.Before(in.Since) && in.Freeze.Holds(at, in.Local)
}

// Held is the reason of a tick that would be skipped at an instant, by the gates and calendars as they are now; empty: it
// would fire. Overlap and limits are not judged: they depend on what runs then.
func (in *Installation) Held(s *catalog.Schedule, at time.Time) string {
	switch {
	case !s.Enabled:
		return events.TickReasonDisabled
	case in.Frozen(at):
		return events.TickReasonFrozen
	}
	return s.Closed(at, in.Gates)
}

// Forecast is what would become of one nominal time, or of a minute at which endpoints of a cadence are due.
type Forecast struct {
	// At is zero where nobody can say when: endpoints that are away.
	At time.Time
	// Local is what the schedule's wall clock shows then, with its offset; Zone is that clock's name.
	Local, Zone string
	// Outcome is fired or skipped, Reason that of a skip.
	Outcome events.TickOutcome
	Reason  string
	Clock   catalog.ClockChange
	// Endpoints counts those that are due then, of a cadence; PCs are the first of them by id.
	Endpoints int
	PCs       []string
	// Notes are sentences for people about what above stands as words, and what does not.
	Notes []string
}

// forecastPCs bounds how many endpoints a forecast names.
const forecastPCs = 10

// Forecasts are the nominal times of a schedule in (from, until], at most limit; more tells that there are others. None
// for a schedule with a cadence.
func Forecasts(s *catalog.Schedule, in *Installation, from, until time.Time, limit int) (list []Forecast, more bool) {
	before := from
	for at := range s.Due(from, until, in.Local) {
		if len(list) == limit {
			return list, true
		}
		list, before = append(list, forecast(s, in, at, before)), at
	}
	return list, false
}

// overdueAfter is how long after its nominal time a tick is on record at the latest, where a scheduler is there.
const overdueAfter = time.Minute

// maxOverdue bounds the nominal times that are looked at.
const maxOverdue = 1000

// Overdue is the first nominal time of a schedule of which it should be on record what became of it, and is not; zero if there
// is none. known is the last that is on record, or when the schedule was saved. What a window or skip dates hold back is
// written later, and one that waits for an earlier run is when that has ended: busy.
func Overdue(s *catalog.Schedule, in *Installation, known, now time.Time, busy bool) time.Time {
	if !s.Enabled || s.RunsOn == catalog.Agent || busy && s.OverlapPolicy() == catalog.OverlapQueue {
		return time.Time{}
	}
	list, _ := Forecasts(s, in, known, now.Add(-overdueAfter), maxOverdue)
	for i := range list {
		if r := list[i].Reason; r != events.TickReasonWindow && r != events.TickReasonSkipDate {
			return list[i].At
		}
	}
	return time.Time{}
}

func forecast(s *catalog.Schedule, in *Installation, at, before time.Time) Forecast {
	f := Forecast{At: at, Outcome: events.TickFired, Clock: s.ClockChange(at, before, in.Local)}
	f.place(s, in)
	if f.Reason = in.Held(s, at); f.Reason != "" {
		f.Outcome = events.TickSkipped
		f.Notes = append(f.Notes, in.heldNote(s, f.Reason, at))
	}
	if note := clockNote(f); note != "" {
		f.Notes = append(f.Notes, note)
	}
	f.Notes = append(f.Notes, Reservations(s, in)...)
	return f
}

// place fills in the wall clock.
func (f *Forecast) place(s *catalog.Schedule, in *Installation) {
	zone, err := s.Location(in.Local)
	if err != nil {
		zone = time.UTC
	}
	f.Zone = zone.String()
	if !f.At.IsZero() {
		f.Local = f.At.In(zone).Format(time.RFC3339)
	}
}

// Reservations are what forecasts of a schedule do not know, as sentences.
func Reservations(s *catalog.Schedule, in *Installation) []string {
	var notes []string
	if (s.TZ == "" || s.TZ == "local") && !in.Zoned {
		notes = append(notes, "the installation has no zone yet; this is UTC")
	}
	if s.RunsOn == catalog.Agent {
		notes = append(notes, "each agent decides by itself, and local is the zone of its host")
	}
	for _, id := range s.Calendars {
		if in.Calendars[id] == nil {
			notes = append(notes, fmt.Sprintf("there is no calendar '%s': it closes nothing", id))
		}
	}
	return notes
}

func (in *Installation) heldNote(s *catalog.Schedule, reason string, at time.Time) string {
	switch reason {
	case events.TickReasonDisabled:
		return "the schedule is disabled"
	case events.TickReasonFrozen:
		return "the fleet is frozen"
	case events.TickReasonWindow:
		window := ""
		if s.Constraints != nil {
			window = " " + s.Constraints.Window
		}
		return "outside of the window" + window
	case events.TickReasonSkipDate:
		return "the day is one of its skip dates"
	case events.TickReasonCalendar:
		return "held back by a calendar: " + strings.Join(s.ClosedBy(at, in.Gates), ", ")
	}
	return reason
}

func clockNote(f Forecast) string {
	switch f.Clock {
	case catalog.ClockGap:
		return "the clock is put forward over its time of day: this is when it comes instead"
	case catalog.ClockFirst:
		return "its time of day comes twice that day: this is the first"
	case catalog.ClockSecond:
		return "its time of day comes twice that day: this is the second"
	case catalog.ClockOffset:
		return "the clock has changed since the time before: the offset is " + f.Local[len("2006-01-02T15:04:05"):]
	}
	return ""
}

// Member is an endpoint of a schedule's target.
type Member struct {
	PCID  string
	Alive bool
}

// Memory is what a schedule remembers: by endpoint, or of its whole target under the empty id; open runs in it.
type Memory map[string]events.Progress

// ForecastCadence says when the endpoints of a schedule with a cadence are due next, in groups of a minute, the earliest
// first, at most limit groups. What endpoints do until then changes it: each is judged by what it has done so far. Those
// that are away are due when they are heard again; they are the last group, without a time. jobVersion is the present one.
func ForecastCadence(s *catalog.Schedule, in *Installation, members []Member, m Memory, jobVersion string, now time.Time, limit int) []Forecast {
	next := now.Truncate(time.Minute).Add(time.Minute)
	groups := map[time.Time][]string{}
	due := func(id string) (time.Time, bool) {
		at, ok := s.DueAgain(m[id], jobVersion)
		if at.Before(next) {
			at = next
		}
		return at, ok
	}
	var away []string
	if s.When.PerTarget != nil {
		if at, ok := due(""); ok {
			for _, x := range members {
				if x.Alive {
					groups[at] = append(groups[at], x.PCID)
				} else {
					away = append(away, x.PCID)
				}
			}
		}
	} else {
		for _, x := range members {
			at, ok := due(x.PCID)
			switch {
			case ok && x.Alive:
				groups[fullMinute(at)] = append(groups[fullMinute(at)], x.PCID)
			case ok:
				away = append(away, x.PCID)
			}
		}
	}
	opened := map[time.Time]*Forecast{}
	for _, at := range slices.SortedFunc(maps.Keys(groups), time.Time.Compare) {
		f := in.opens(s, fullMinute(at))
		if x := opened[f.At]; x != nil && x.Reason == f.Reason {
			f = x
		} else {
			opened[f.At] = f
		}
		f.add(groups[at])
	}
	list := make([]Forecast, 0, len(opened)+1)
	for _, f := range opened {
		list = append(list, *f)
	}
	slices.SortFunc(list, func(a, b Forecast) int { return a.At.Compare(b.At) })
	if len(away) > 0 {
		f := Forecast{Outcome: events.TickFired, Notes: []string{"away: due when they are heard again"}}
		f.place(s, in)
		f.add(away)
		list = append(list, f)
	}
	list = list[:min(len(list), limit)]
	for i := range list {
		if c := s.Constraints; c != nil && c.MaxConcurrent != nil && list[i].Endpoints > *c.MaxConcurrent {
			list[i].Notes = append(list[i].Notes, fmt.Sprintf("at most %d at a time", *c.MaxConcurrent))
		}
		list[i].Notes = append(list[i].Notes, Reservations(s, in)...)
	}
	return list
}

func (f *Forecast) add(pcs []string) {
	f.Endpoints += len(pcs)
	f.PCs = append(f.PCs, pcs[:min(len(pcs), forecastPCs-len(f.PCs))]...)
}

// opens is the first minute, from one on, at which a cadence finds its gates open; with a reason where there is none.
func (in *Installation) opens(s *catalog.Schedule, minute time.Time) *Forecast {
	f := Forecast{At: minute, Outcome: events.TickFired}
	at, ok := minute, true
	for range 100 { // a freeze may end while a gate is closed, and the other way round
		if at, ok = s.NextOpen(at, in.Gates); !ok || !in.Frozen(at) {
			break
		}
		_, until, readable := in.Freeze.Span(in.Local)
		if ok = readable && !until.IsZero(); !ok {
			break
		}
		at = fullMinute(until)
	}
	switch {
	case !s.Enabled:
		f.Reason = events.TickReasonDisabled
	case ok:
		f.At = at
	default:
		f.Reason = cmp.Or(in.Held(s, minute), events.TickReasonWindow)
	}
	f.place(s, in)
	switch {
	case f.Reason != "":
		f.Outcome = events.TickSkipped
		f.Notes = append(f.Notes, in.heldNote(s, f.Reason, minute))
	case f.At.After(minute):
		f.Notes = append(f.Notes, "due at "+minute.UTC().Format(time.RFC3339)+" and held back until then")
	}
	return &f
}

func fullMinute(t time.Time) time.Time {
	if m := t.Truncate(time.Minute); m.Before(t) {
		return m.Add(time.Minute).UTC()
	}
	return t.UTC()
}

// Difference is what two schedules fire differently in a span: nominal times that fire by one of them only.
type Difference struct{ Added, Removed []time.Time }

// Differ compares what would fire by a document with what would fire by the stored one.
func Differ(document, stored []Forecast) Difference {
	fires := func(list []Forecast) map[time.Time]bool {
		set := map[time.Time]bool{}
		for _, f := range list {
			if f.Outcome == events.TickFired {
				set[f.At] = true
			}
		}
		return set
	}
	a, b := fires(document), fires(stored)
	only := func(x, y map[time.Time]bool) []time.Time {
		list := []time.Time{}
		for at := range x {
			if !y[at] {
				list = append(list, at)
			}
		}
		slices.SortFunc(list, time.Time.Compare)
		return list
	}
	return Difference{Added: only(a, b), Removed: only(b, a)}
}
