package catalog

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func zone(t require.TestingT, name string) *time.Location {
	loc, err := time.LoadLocation(name)
	require.NoError(t, err)
	return loc
}

// scheduleOf is a schedule with a calendar (a time of day, after it days) or, with more than one blank, a cron.
func scheduleOf(t require.TestingT, when, tz string) *Schedule {
	form := fmt.Sprintf("cron: %q", when)
	if at, days, _ := strings.Cut(when, " ["); strings.Count(at, " ") < 2 {
		form = fmt.Sprintf("calendar: {at: %q, days: [%s]}", at, strings.TrimSuffix(days, "]"))
	}
	s, err := ParseSchedule([]byte(scheduled+everyone+"tz: "+tz+"\nwhen: {"+form+"}\n"), YAML)
	require.NoError(t, err)
	return s
}

func TestDueWhereTheClockChanges(t *testing.T) {
	for _, c := range []struct {
		tz, when, day string
		want          string // instants of the day in the zone, with their offsets
	}{
		// Berlin 2026: 29 March 02:00 to 03:00, 25 October 03:00 back to 02:00.
		{"Europe/Berlin", "02:30", "2026-03-29", "03:00+02:00"},
		{"Europe/Berlin", "02:30", "2026-10-25", "02:30+02:00"},
		{"Europe/Berlin", "03:00", "2026-03-29", "03:00+02:00"},
		{"Europe/Berlin", "03:00", "2026-10-25", "03:00+01:00"},
		{"Europe/Berlin", "*/20 2 * * *", "2026-03-29", "03:00+02:00"},
		{"Europe/Berlin", "*/20 2 * * *", "2026-10-25", "02:00+02:00 02:20+02:00 02:40+02:00"},
		{"Europe/Berlin", "30 1-3 * * *", "2026-03-29", "01:30+01:00 03:00+02:00 03:30+02:00"},
		{"Europe/Berlin", "30 0-4/1 * * *", "2026-10-25", "00:30+02:00 01:30+02:00 02:30+02:00 03:30+01:00 04:30+01:00"},
		{"Europe/Berlin", "0 */6 * * *", "2026-03-29", "00:00+01:00 06:00+02:00 12:00+02:00 18:00+02:00"},
		{"Europe/Berlin", "0 */2 29 3 *", "2026-03-29", "00:00+01:00 03:00+02:00 04:00+02:00 06:00+02:00 08:00+02:00 10:00+02:00 12:00+02:00 14:00+02:00 16:00+02:00 18:00+02:00 20:00+02:00 22:00+02:00"},
		{"America/New_York", "02:30", "2026-03-08", "03:00-04:00"},
		{"America/New_York", "01:30", "2026-11-01", "01:30-04:00"},
		// Cairo 2026: 24 April 00:00 to 01:00, 30 October 00:00 back to 29 October 23:00.
		{"Africa/Cairo", "00:00", "2026-04-24", "01:00+03:00"},
		{"Africa/Cairo", "23:30", "2026-10-29", "23:30+03:00"},
		{"Africa/Cairo", "00:00 [fri]", "2026-04-24", "01:00+03:00"},
		// Lord Howe changes by half an hour: 4 October 02:00 to 02:30, 5 April 02:00 back to 01:30.
		{"Australia/Lord_Howe", "02:15", "2026-10-04", "02:30+11:00"},
		{"Australia/Lord_Howe", "01:45", "2026-04-05", "01:45+11:00"},
		{"Australia/Lord_Howe", "*/30 0-2 * * *", "2026-10-04", "00:00+10:30 00:30+10:30 01:00+10:30 01:30+10:30 02:30+11:00"},
		// Samoa left out 30 December 2011.
		{"Pacific/Apia", "09:00", "2011-12-31", "00:00+14:00 09:00+14:00"},
		{"utc", "02:30", "2026-03-29", "02:30Z"},
	} {
		s := scheduleOf(t, c.when, c.tz)
		loc, err := s.Location(nil)
		require.NoError(t, err)
		day, err := time.Parse(time.DateOnly, c.day)
		require.NoError(t, err)
		midnight, next := instant(day, loc), instant(day.AddDate(0, 0, 1), loc)
		var got []string
		for due := range s.Due(midnight.Add(-1), next.Add(-1), nil) {
			require.Equal(t, time.UTC, due.Location())
			got = append(got, due.In(loc).Format("15:04Z07:00"))
		}
		require.Equal(t, c.want, strings.Join(got, " "), "%s %s on %s", c.tz, c.when, c.day)
	}
}

func TestIntervalsFollowElapsedTime(t *testing.T) {
	for tz, day := range map[string]string{"Europe/Berlin": "2026-03-28 2026-10-24", "Australia/Lord_Howe": "2026-10-03 2026-04-04", "Africa/Cairo": "2026-04-23 2026-10-29"} {
		for _, date := range strings.Fields(day) {
			after, err := time.ParseInLocation(time.DateOnly, date, zone(t, tz))
			require.NoError(t, err)
			for when, every := range map[string]time.Duration{"*/15 * * * *": 15 * time.Minute, "*/30 * * * * *": 30 * time.Second} {
				due := scheduleOf(t, when, tz).Between(after, after.Add(72*time.Hour), nil, 1<<20)
				require.Len(t, due, int(72*time.Hour/every), "%s in %s", when, tz)
			}
		}
	}
	// One hour each, over both changes of Berlin's clock.
	for _, date := range []string{"2026-03-28", "2026-10-24"} {
		after, _ := time.ParseInLocation(time.DateOnly, date, zone(t, "Europe/Berlin"))
		due := scheduleOf(t, "30 * * * *", "Europe/Berlin").Between(after, after.Add(72*time.Hour), nil, 100)
		require.Len(t, due, 72)
	}
}

func TestDueForms(t *testing.T) {
	after := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) // a Thursday
	for when, want := range map[string]string{
		"09:05":                 "01T09:05 02T09:05 03T09:05",
		"09:05 [mon-fri]":       "01T09:05 02T09:05 05T09:05",
		"09:05 [sat-sun, 3]":    "03T09:05 04T09:05 07T09:05",
		"09:05 ['7']":           "04T09:05 11T09:05 18T09:05",
		"09:05 ['tue#2', friL]": "13T09:05 30T09:05 10T09:05",
		"09:05 ['*']":           "01T09:05 02T09:05 03T09:05",
		"2026-01-31 09:05":      "31T09:05",
		"2025-12-31 09:05":      "",
		"0 0 13 * FRI":          "02T00:00 09T00:00 13T00:00", // either, as cron always meant it
		"0 0 31 2 *":            "",
		"0 0 30 2 *":            "",
		"0 0 L * *":             "31T00:00 28T00:00 31T00:00",
		"30 0 0 * * THU":        "01T00:00 08T00:00 15T00:00",
		"0 22-2 * * *":          "01T01:00 01T02:00 01T22:00",
		"0 0 1 1 *":             "01T00:00 01T00:00 01T00:00",
		"0 12 29 2 *":           "29T12:00 29T12:00 29T12:00",
	} {
		var got []string
		for _, due := range scheduleOf(t, when, "utc").Between(after, after.AddDate(14, 0, 0), nil, 3) {
			got = append(got, due.Format("02T15:04"))
		}
		require.Equal(t, want, strings.Join(got, " "), when)
	}
}

func TestRareTimesAreFound(t *testing.T) {
	due, ok := scheduleOf(t, "0 0 29 2 *", "utc").Next(time.Date(2096, 3, 1, 0, 0, 0, 0, time.UTC), nil)
	require.True(t, ok)
	require.Equal(t, 2104, due.Year())
	require.Equal(t, time.February, due.Month())
	// The zone's own rule, after its table has ended, over the last day of a leap year.
	end := time.Date(2105, 1, 2, 0, 0, 0, 0, time.UTC)
	require.Len(t, scheduleOf(t, "0 * * * *", "Europe/Berlin").Between(end.Add(-96*time.Hour), end, nil, 1000), 96)
	_, ok = scheduleOf(t, "* */2 30 2 *", "Europe/Berlin").Next(due, nil)
	require.False(t, ok)
}

func TestLocalIsWhatTheCallerSays(t *testing.T) {
	s := scheduleOf(t, "09:05", "local")
	due, ok := s.Next(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), zone(t, "Asia/Tokyo"))
	require.True(t, ok)
	require.Equal(t, "2026-01-01T00:05:00Z", due.Format(time.RFC3339))
}

// wanted is a spec as the oracle understands it: sets of minutes, hours and weekdays.
type wanted struct {
	minutes, hours, days []int
	interval             bool
}

func (w wanted) matches(civil time.Time) bool {
	return slices.Contains(w.minutes, civil.Minute()) && slices.Contains(w.hours, civil.Hour()) && slices.Contains(w.days, int(civil.Weekday()))
}

// due walks every minute of a span, of instants and of readings, and applies the rules word by word.
func (w wanted) due(from, until time.Time, loc *time.Location) []time.Time {
	var due []time.Time
	first := map[time.Time]time.Time{}
	for at := from; at.Before(until); at = at.Add(time.Minute) {
		shown := reading(at, loc)
		if _, seen := first[shown]; !seen || w.interval {
			first[shown] = at
			if w.matches(shown) {
				due = append(due, at)
			}
		}
		for gap := reading(at.Add(-time.Minute), loc).Add(time.Minute); at.After(from) && gap.Before(shown); gap = gap.Add(time.Minute) {
			late := at
			if w.interval {
				late = at.Add(gap.Sub(reading(at.Add(-time.Minute), loc)) - time.Minute)
			}
			if w.matches(gap) {
				due = append(due, late)
			}
		}
	}
	slices.SortFunc(due, time.Time.Compare)
	return slices.Compact(due)
}

func some(t *rapid.T, from, to int, label string) []int {
	return rapid.SliceOfNDistinct(rapid.IntRange(from, to), 1, 4, rapid.ID).Draw(t, label)
}

func TestDueAgainstAWalkOverMinutes(t *testing.T) {
	zones := []string{"Europe/Berlin", "America/New_York", "Africa/Cairo", "Australia/Lord_Howe", "UTC", "Antarctica/Troll", "America/Sao_Paulo", "Pacific/Apia", "Africa/Casablanca"}
	every := func(n, below int) (all []int) {
		for i := 0; i < below; i += n {
			all = append(all, i)
		}
		return all
	}
	list := func(numbers []int) string {
		return strings.Trim(strings.ReplaceAll(fmt.Sprint(numbers), " ", ","), "[]")
	}
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.SampledFrom(zones).Draw(t, "zone")
		loc := zone(t, name)
		// A day and a half on both sides of a change of the clock, if there is one.
		middle := time.Unix(rapid.Int64Range(1_300_000_000, 1_900_000_000).Draw(t, "middle"), 0).Truncate(time.Minute).UTC()
		if _, end := middle.In(loc).ZoneBounds(); !end.IsZero() {
			middle = end.UTC().Truncate(time.Minute)
		}
		from, until := middle.Add(-36*time.Hour), middle.Add(36*time.Hour)

		w := wanted{days: every(1, 7)}
		minute, hour, dow := "", "", "*"
		if rapid.Bool().Draw(t, "minutes by step") {
			step := rapid.SampledFrom([]int{1, 5, 15, 20, 30}).Draw(t, "minute step")
			w.minutes, minute = every(step, 60), fmt.Sprintf("*/%d", step)
		} else {
			w.minutes = some(t, 0, 59, "minutes")
			minute = list(w.minutes)
		}
		if w.interval = rapid.Bool().Draw(t, "interval"); w.interval {
			step := rapid.SampledFrom([]int{1, 2, 3, 4, 6, 12}).Draw(t, "hour step")
			w.hours, hour = every(step, 24), fmt.Sprintf("*/%d", step)
		} else {
			w.hours = some(t, 0, 4, "hours")
			hour = list(w.hours)
		}
		if rapid.Bool().Draw(t, "on some days") {
			w.days = some(t, 0, 6, "days")
			dow = list(w.days)
		}

		s := scheduleOf(t, fmt.Sprintf("%s %s * * %s", minute, hour, dow), name)
		want := w.due(from.Add(-48*time.Hour), until.Add(48*time.Hour), loc)
		want = slices.DeleteFunc(want, func(at time.Time) bool { return !at.After(from) || at.After(until) })
		got := s.Between(from, until, nil, 1<<20)
		if !slices.Equal(got, want) {
			extra := slices.DeleteFunc(slices.Clone(got), func(at time.Time) bool { return slices.Contains(want, at) })
			lost := slices.DeleteFunc(slices.Clone(want), func(at time.Time) bool { return slices.Contains(got, at) })
			t.Fatalf("%s in %s around %s: %d too many, %d lost; first %v, %v", s.WhenText(), name, middle, len(extra), len(lost), extra[:min(1, len(extra))], lost[:min(1, len(lost))])
		}
		after := from.Add(time.Duration(rapid.Int64Range(0, int64(72*time.Hour)).Draw(t, "after")))
		at := slices.IndexFunc(want, func(due time.Time) bool { return due.After(after) })
		if next, ok := s.Next(after, nil); at >= 0 && (!ok || !next.Equal(want[at])) {
			t.Fatalf("%s in %s after %s: got %s, want %s", s.WhenText(), name, after, next, want[at])
		}
	})
}

// BenchmarkDue gives due times a second, by form: one after the other, as a preview of a schedule or the end of an outage
// asks for them (due/s), and one at a time, as the scheduler does (next/s).
func BenchmarkDue(b *testing.B) {
	for _, c := range []struct{ name, when string }{
		{"daily", "02:30"},
		{"workdays", "02:30 [mon-fri]"},
		{"last friday", "02:30 [friL]"},
		{"every minute", "* * * * *"},
		{"quarter hours", "*/15 * * * *"},
		{"six hours", "0 */6 * * *"},
		{"every second", "* * * * * *"},
		{"leap days", "0 12 29 2 *"},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := scheduleOf(b, c.when, "Europe/Berlin")
			s.Remember(map[string]*time.Location{})
			after, n := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), 0
			for b.Loop() {
				for range s.Due(after, after.AddDate(8, 0, 0), nil) {
					if n++; n%1000 == 0 {
						break
					}
				}
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "due/s")
			began, single := time.Now(), 0
			for at := after; time.Since(began) < 200*time.Millisecond; single++ {
				at, _ = s.Next(at, nil)
				if at.IsZero() || at.Year() > 2035 {
					at = after
				}
			}
			b.ReportMetric(float64(single)/time.Since(began).Seconds(), "next/s")
		})
	}
}
