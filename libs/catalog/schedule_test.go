package catalog

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

const (
	scheduled = "id: s\njob_id: j\n"
	everyone  = "target: {all: true}\n"
)

func TestScheduleRefusals(t *testing.T) {
	const daily = scheduled + everyone + "when: {calendar: {at: '02:30'}}\n"
	when := func(w string) string { return scheduled + everyone + "when: {" + w + "}\n" }
	for _, c := range []struct {
		source string
		kind   Kind
		want   string
	}{
		{daily + "wobble: 1\n", Shape, "wobble: unknown key, expected one of id, when, job_id, target, rollout, jitter, deadline_at, expires_after, max_failures, max_parallel, params, retry, require_targets, active, constraints, on_failure, tz, starting_deadline, runs_on, enabled, catch_up, catch_up_window, overlap, calendars (line 5)"},
		{scheduled + everyone, Shape, "when: missing (line 1)"},
		{when("per_pc: twice"), Shape, `when.per_pc: expected once, once_per_version or a map with every, got "twice" (line 4)`},
		{when("per_pc: {often: 1h}"), Shape, "when.per_pc.often: unknown key, expected one of every (line 4); when.per_pc.every: missing (line 4)"},
		{when("calendar: {at: '02:30', hour: 1}"), Shape, "when.calendar.hour: unknown key, expected one of at, days (line 4)"},
		{when("per_pc: null"), Shape, "when.per_pc: must not be null (line 4)"},
		{daily + "jitter: 5\n", Shape, "jitter: expected text, got 5 (line 5)"},
		{scheduled + "when: {per_pc: once}\ntarget: {groups: [1]}\n", Shape, "target.groups[0]: expected text, got 1 (line 4)"},
		{daily + "deadline_at: tomorrow\n", Shape, `deadline_at: expected a time like 2026-01-31T08:00:00Z, got "tomorrow" (line 5)`},
		{daily + "runs_on: moon\n", Shape, `runs_on: expected backend or agent, got "moon" (line 5)`},
		{daily + "constraints: {windows: x}\n", Shape, "constraints.windows: unknown key, expected one of window, max_concurrent, skip_dates (line 5)"},

		{when("calendar: {at: '25:99'}"), Invalid, `when.calendar.at: expected HH:MM or YYYY-MM-DD HH:MM, got "25:99" (line 4)`},
		{when("calendar: {at: '02:30:00'}"), Invalid, `when.calendar.at: expected HH:MM or YYYY-MM-DD HH:MM, got "02:30:00" (line 4)`},
		{when("calendar: {at: '2026-02-30 02:30'}"), Invalid, `when.calendar.at: expected HH:MM or YYYY-MM-DD HH:MM, got "2026-02-30 02:30" (line 4)`},
		{when("calendar: {at: '2026-01-31T02:30', days: [mon]}"), Invalid, "when.calendar.days: can't stand beside a date (line 4)"},
		{when("calendar: {at: '02:30', days: [fri-mon]}"), Invalid, `when.calendar.days[0]: the range "fri-mon" runs backwards (line 4)`},
		{when("calendar: {at: '02:30', days: ['*', mon]}"), Invalid, "when.calendar.days[0]: * stands alone (line 4)"},
		{when("calendar: {at: '02:30', days: [someday, 8, 'mon,tue', 'tue#6', 'mon-tue-wed', '']}"), Invalid,
			`when.calendar.days[0]: expected mon..sun, 0-7, an ascending range like mon-fri, tue#2, friL or *, got "someday" (line 4); ` +
				`when.calendar.days[1]: expected mon..sun, 0-7, an ascending range like mon-fri, tue#2, friL or *, got "8" (line 4); ` +
				`when.calendar.days[2]: expected mon..sun, 0-7, an ascending range like mon-fri, tue#2, friL or *, got "mon,tue" (line 4); ` +
				`when.calendar.days[3]: expected mon..sun, 0-7, an ascending range like mon-fri, tue#2, friL or *, got "tue#6" (line 4); ` +
				`when.calendar.days[4]: expected mon..sun, 0-7, an ascending range like mon-fri, tue#2, friL or *, got "mon-tue-wed" (line 4); ` +
				`when.calendar.days[5]: expected mon..sun, 0-7, an ascending range like mon-fri, tue#2, friL or *, got "" (line 4)`},
		{when("calendar: {at: '02:30'}, per_pc: once"), Invalid, "when: exactly one of per_pc, per_target, calendar, cron must be set (line 4)"},
		{scheduled + everyone + "when: {}\n", Invalid, "when: exactly one of per_pc, per_target, calendar, cron must be set (line 4)"},
		{when("per_pc: {every: often}"), Invalid, `when.per_pc.every: expected a duration like 30s, got "often" (line 4)`},
		{when("per_target: {every: 0s}"), Invalid, "when.per_target.every: must be more than 0 (line 4)"},
		{when("per_target: once_per_version"), Invalid, "when.per_target: expected once or a map with every: once_per_version is for per_pc (line 4)"},
		{when("cron: '* * * *'"), Invalid, `when.cron: expected 5 fields, or 6 with seconds first, got 4 in "* * * *" (line 4)`},
		{when("cron: '@daily'"), Invalid, `when.cron: expected 5 fields, or 6 with seconds first, got 1 in "@daily" (line 4)`},
		{when("cron: 'TZ=UTC * * * * *'"), Invalid, "when.cron: not a cron expression: failed to parse int from \"tz=utc\": strconv.Atoi: parsing \"tz=utc\": invalid syntax (line 4)"},
		{when("cron: ', * * * *'"), Invalid, `when.cron: an entry is empty in "," (line 4)`},
		{scheduled + "when: {per_pc: once}\n", Invalid, "target: must name at least one of all, groups, pcs (or set rollout.waves) (line 1)"},
		{daily + "tz: Moon/Crater\n", Invalid, `tz: expected local, utc or a zone like Europe/Berlin, got "Moon/Crater" (line 5)`},
		{daily + "tz: Local\n", Invalid, `tz: expected local, utc or a zone like Europe/Berlin, got "Local" (line 5)`},
		{daily + "jitter: soon\nstarting_deadline: late\n", Invalid, `jitter: expected a duration like 30s, got "soon" (line 5); starting_deadline: expected a duration like 30s, got "late" (line 6)`},
		{daily + "active: {from: 2026-02-01, until: 2026-01-01}\n", Invalid, "active: from must be before until (line 5)"},
		{daily + "active: {from: soon}\n", Invalid, `active.from: expected YYYY-MM-DD or a time like 2026-01-31T08:00:00Z, got "soon" (line 5)`},
		{daily + "constraints: {window: 02:00}\n", Invalid, `constraints.window: expected HH:MM-HH:MM, got "02:00" (line 5)`},
		{daily + "constraints: {window: 02:00-02:00}\n", Invalid, "constraints.window: both ends are equal (line 5)"},
		{daily + "constraints: {window: 02:31-02:30}\n", Invalid, "when.calendar.at: 02:30 is outside of constraints.window 02:31-02:30: it would never run (line 4)"},
		{daily + "constraints: {max_concurrent: 0, skip_dates: [christmas]}\n", Invalid, `constraints.max_concurrent: must be at least 1 (line 5); constraints.skip_dates[0]: expected YYYY-MM-DD, got "christmas" (line 5)`},
		{daily + "on_failure: {retry: {max: 11, backoff: 999ms}}\n", Invalid, "on_failure.retry.max: 11 is outside of 1 to 10 (line 5); on_failure.retry.backoff: must be at least 1s (line 5)"},
		{daily + "retry: {max: 1, backoff: 1s}\non_failure: {retry: {max: 1, backoff: 1s}}\n", Invalid, "retry: excludes on_failure.retry, which means the same (line 5)"},
		{when("per_target: once") + "runs_on: agent\nconstraints: {max_concurrent: 1}\n", Invalid, "when.per_target: can't be used with runs_on: agent, which knows of one endpoint only (line 4); constraints.max_concurrent: can't be used with runs_on: agent, which knows of one endpoint only (line 6)"},
		{daily + "starting_deadline: 10m\nrollout: {waves: [{group: a, delay: 10m}]}\n", Invalid, "rollout.waves[0].delay: 10m is at or beyond starting_deadline: nothing of this wave could start (line 6)"},
	} {
		_, err := ParseSchedule([]byte(c.source), YAML)
		require.EqualError(t, err, c.want, c.source)
		require.Equal(t, c.kind, asError(t, err).Kind, c.want)
	}
}

func TestSchedulesThatPass(t *testing.T) {
	for source, text := range map[string]string{
		"when: {calendar: {at: '9:05'}}\n":                                                     "at 9:05",
		"when: {calendar: {at: '2026/01/31T09:05'}}\n":                                         "at 2026/01/31T09:05",
		"when: {calendar: {at: '23:30'}}\nconstraints: {window: 22:00-05:00}\n":                "at 23:30",
		"when: {calendar: {at: '02:30', days: [MON, 3, sat-sun, 6-7, 'tue#2', friL, 0-7]}}\n":  "at 02:30 [MON,3,sat-sun,6-7,tue#2,friL,0-7]",
		"when: {cron: '*/15 2-4 * * MON-FRI,THU'}\ntz: Europe/Berlin\n":                        "cron */15 2-4 * * MON-FRI,THU",
		"when: {cron: '30 0 0 L * *'}\ncatch_up: all\ncatch_up_window: 2d\noverlap: queue\n":   "cron 30 0 0 L * *",
		"when: {per_pc: once_per_version}\n":                                                   "per_pc once_per_version",
		"when: {per_target: {every: 1h 30m}}\nactive: {from: 2026-01-01}\ncalendars: [xmas]\n": "per_target every 1h 30m",
	} {
		s, err := ParseSchedule([]byte(scheduled+everyone+source), YAML)
		require.NoError(t, err, source)
		require.Equal(t, text, s.WhenText())
		doc, err := s.Document()
		require.NoError(t, err)
		again, err := ParseSchedule(doc, JSON)
		require.NoError(t, err)
		require.Equal(t, s, again)
		stored, err := ParseScheduleDocument(doc)
		require.NoError(t, err)
		require.Equal(t, s, stored)
	}
}

func TestScheduleDefaults(t *testing.T) {
	s, err := ParseSchedule([]byte(scheduled+everyone+"when: {per_pc: {every: 90m}}\n"), YAML)
	require.NoError(t, err)
	require.True(t, s.Enabled)
	require.Equal(t, Backend, s.RunsOn)
	require.Equal(t, CatchUpLast, s.CatchUpPolicy())
	require.Equal(t, time.Hour, s.CatchUpLimit())
	require.Equal(t, OverlapSkip, s.OverlapPolicy())
	every, ok := s.Every()
	require.True(t, ok)
	require.Equal(t, 90*time.Minute, every)
	_, ok = s.Next(time.Unix(0, 0), time.UTC)
	require.False(t, ok)
	doc, err := s.Document()
	require.NoError(t, err)
	require.Equal(t, `{"id":"s","when":{"per_pc":{"every":"90m"}},"job_id":"j","target":{"groups":[],"pcs":[],"all":true},"tz":"local","runs_on":"backend","enabled":true}`, string(doc))
	require.Equal(t, "6581d8f8ec2c66d14bf1118e374e6cc4ebb946432efd895e71dfab93cdd84f8a", Hash(doc))
}

func TestStoredDocumentsOfALaterVersionAreRead(t *testing.T) {
	s, err := ParseScheduleDocument([]byte(`{"id":"s","when":{"moon":"full"},"job_id":"j","target":{"all":true,"tags":["x"]},"tz":"utc","runs_on":"satellite","new":null}`))
	require.NoError(t, err)
	require.True(t, s.Enabled)
	require.Equal(t, "never", s.WhenText())
	require.EqualError(t, s.Unsupported(), "when: not supported yet (only per_pc, per_target, calendar and cron); runs_on: not supported yet (only backend or agent)")
	_, ok := s.Next(time.Unix(0, 0), time.UTC)
	require.False(t, ok)

	m, err := ParseManifestDocument([]byte(`{"id":"a","version":"1","execute":{"shell":"fish","script":"x","timeout":"1s","nice":3},"staleness":{"mode":"cached"}}`))
	require.NoError(t, err)
	require.Equal(t, System, m.Execute.RunAs)
	require.EqualError(t, m.Unsupported(), "execute.shell: not supported yet (only powershell, cmd, sh or pwsh)")

	_, err = ParseManifestDocument([]byte(`{"id":7}`))
	require.EqualError(t, err, "read stored manifest: id: expected text, got 7")
	_, err = ParseScheduleDocument([]byte(`[]`))
	require.EqualError(t, err, "read stored schedule: expected a map, got a list")
	_, err = ParsePlanDocument([]byte(`{`))
	require.Error(t, err)
}

func TestRetryPolicy(t *testing.T) {
	for source, want := range map[string]*events.Retry{
		"": nil,
		"on_failure: {retry: {max: 2, backoff: 90s}}\n": {Max: 2, BackoffSecs: 90},
		"retry: {max: 10, backoff: 1.9s}\n":             {Max: 10, BackoffSecs: 1},
		"on_failure: {}\n":                              nil,
	} {
		s, err := ParseSchedule([]byte(scheduled+everyone+"when: {cron: '0 4 * * *'}\n"+source), YAML)
		require.NoError(t, err)
		require.NoError(t, s.Unsupported())
		require.Equal(t, want, s.RetryPolicy().Resolve())
	}
}
