package catalog

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// Berlin puts its clock forward on 2026-03-29 at 02:00, and back on 2026-10-25 at 03:00.
func TestClockChange(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	parse := func(when string) *Schedule {
		s, err := ParseSchedule([]byte("id: s\njob_id: j\ntarget: {all: true}\ntz: Europe/Berlin\nwhen: "+when+"\n"), YAML)
		require.NoError(t, err)
		return s
	}
	spring, autumn := time.Date(2026, 3, 28, 22, 0, 0, 0, time.UTC), time.Date(2026, 10, 24, 21, 0, 0, 0, time.UTC)
	for _, x := range []struct {
		name, when string
		from       time.Time
		want       []ClockChange
	}{
		{"a time of the gap", `{calendar: {at: "02:30"}}`, spring, []ClockChange{ClockGap, "", ""}},
		{"the end of the gap itself", `{calendar: {at: "03:00"}}`, spring, []ClockChange{"", ""}},
		{"a time after the gap", `{calendar: {at: "08:00"}}`, spring.AddDate(0, 0, -1), []ClockChange{"", ClockOffset, ""}},
		{"a time that comes twice", `{calendar: {at: "02:30"}}`, autumn, []ClockChange{ClockFirst, ClockOffset, ""}},
		{"elapsed time over the gap", `{cron: "30 * * * *"}`, spring.Add(2 * time.Hour), []ClockChange{"", ClockOffset, ""}},
		{"elapsed time twice", `{cron: "30 * * * *"}`, autumn.Add(2 * time.Hour), []ClockChange{"", ClockFirst, ClockSecond, ""}},
		{"a date in the gap", `{calendar: {at: "2026-03-29 02:10"}}`, spring, []ClockChange{ClockGap}},
	} {
		s := parse(x.when)
		var got []ClockChange
		before := time.Time{}
		for _, at := range s.Between(x.from, x.from.AddDate(0, 0, 10), time.UTC, len(x.want)) {
			got = append(got, s.ClockChange(at, before, time.UTC))
			before = at
		}
		require.Equal(t, x.want, got, x.name)
	}
	require.Empty(t, parse("{per_pc: once}").ClockChange(spring, time.Time{}, berlin))
}

func TestDueAgain(t *testing.T) {
	at := time.Date(2026, 11, 23, 2, 30, 0, 0, time.UTC)
	later := at.Add(time.Minute)
	parse := func(when string) *Schedule {
		s, err := ParseSchedule([]byte("id: s\njob_id: j\ntarget: {all: true}\nwhen: "+when+"\n"), YAML)
		require.NoError(t, err)
		return s
	}
	fresh, done := events.Progress{}, events.Progress{Fired: &at, Succeeded: &at, Version: "1"}
	failed, open := events.Progress{Fired: &at, Failures: 1, NotBefore: &later}, events.Progress{ExecID: "e"}
	for _, x := range []struct {
		when, version string
		p             events.Progress
		at            time.Time
		ok            bool
	}{
		{"{per_pc: once}", "1", fresh, time.Time{}, true}, {"{per_pc: once}", "2", done, time.Time{}, false},
		{"{per_pc: once}", "1", failed, later, true}, {"{per_pc: once}", "1", open, time.Time{}, false},
		{"{per_pc: once_per_version}", "1", done, time.Time{}, false}, {"{per_pc: once_per_version}", "2", done, time.Time{}, true},
		{"{per_pc: once_per_version}", "", done, time.Time{}, false},
		{"{per_target: {every: 1h}}", "1", done, at.Add(time.Hour), true},
		{"{cron: '* * * * *'}", "1", fresh, time.Time{}, false},
	} {
		got, ok := parse(x.when).DueAgain(x.p, x.version)
		require.Equal(t, x.ok, ok, "%s %+v", x.when, x.p)
		require.Equal(t, x.at, got, "%s %+v", x.when, x.p)
	}
}
