package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

type dueAnswer struct {
	At                                  time.Time
	Local, Zone, Outcome, Reason, Clock string
	Note                                string
	Notes, PCs                          []string
	Endpoints                           int
	ScheduleID                          string `json:"schedule_id"`
}

// schedule stores a schedule of the job "hello" for everybody, with some more lines.
func (s *system) schedule(id, lines string) answer {
	s.t.Helper()
	return s.write(http.MethodPost, "/api/schedules", "id: "+id+"\njob_id: hello\ntarget: {all: true}\n"+lines, "Content-Type", yamlType)
}

func (s *system) due(path string) []dueAnswer {
	s.t.Helper()
	var rows []dueAnswer
	s.read(path).into(s.t, &rows)
	return rows
}

func TestPreviewSaysWhatHoldsBack(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	s.write(http.MethodPut, "/api/calendars/holidays", holidaysYAML, "Content-Type", yamlType)
	s.schedule("gated", `when: {calendar: {at: "02:30"}}
tz: Europe/Berlin
calendars: [holidays]
active: {until: "2027-01-03"}
constraints: {skip_dates: ["2026-12-28"]}
`)
	rows := s.due("/api/schedules/gated/preview?from=2026-12-23T12:00:00Z&count=30")
	held := map[string]string{}
	for _, d := range rows {
		require.Equal(t, "Europe/Berlin", d.Zone)
		held[d.Local[:10]] = d.Reason
		require.Equal(t, d.Reason == "", d.Outcome == "fired")
	}
	require.Equal(t, map[string]string{
		"2026-12-24": "calendar", "2026-12-25": "calendar", "2026-12-26": "calendar", "2026-12-27": "", "2026-12-28": "skip_date",
		"2026-12-29": "", "2026-12-30": "", "2026-12-31": "", "2027-01-01": "calendar", "2027-01-02": "",
	}, held, "it has no ticks behind its last day")
	require.Equal(t, "held back by a calendar: holidays", rows[0].Note)
	require.Equal(t, "2026-12-24T02:30:00+01:00", rows[0].Local)

	s.write(http.MethodPut, "/api/freeze", `{"from":"2026-12-29","until":"2026-12-31","tz":"utc"}`)
	rows = s.due("/api/schedules/gated/preview?from=2026-12-28T12:00:00Z&count=3")
	require.Equal(t, []string{"frozen", "frozen", ""}, []string{rows[0].Reason, rows[1].Reason, rows[2].Reason})
	s.write(http.MethodPost, "/api/schedules/gated/disable", "")
	require.Equal(t, "disabled", s.due("/api/schedules/gated/preview?from=2026-12-28T12:00:00Z")[0].Reason)

	s.schedule("night", "when: {cron: \"0 */6 * * *\"}\ntz: utc\nconstraints: {window: \"22:00-06:00\"}\n")
	rows = s.due("/api/schedules/night/preview?from=2027-02-01T01:00:00Z&count=4")
	require.Equal(t, []string{"outside_window", "outside_window", "outside_window", ""}, []string{rows[0].Reason, rows[1].Reason, rows[2].Reason, rows[3].Reason})
	require.Equal(t, "outside of the window 22:00-06:00", rows[0].Note)
}

func TestPreviewSaysWhatTheClockDoes(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	s.append(events.InstallationSaved{ID: events.InstallationID, Zone: "Europe/Berlin"})
	s.schedule("night", "when: {calendar: {at: \"02:30\"}}\n")
	rows := s.due("/api/schedules/night/preview?from=2027-03-27T12:00:00Z&count=2")
	require.Equal(t, "gap", rows[0].Clock)
	require.Equal(t, "2027-03-28T03:00:00+02:00", rows[0].Local)
	require.Contains(t, rows[0].Note, "the clock is put forward over its time of day")
	require.Empty(t, rows[1].Clock)
	rows = s.due("/api/schedules/night/preview?from=2027-10-30T12:00:00Z&count=2")
	require.Equal(t, []string{"first_of_two", "offset"}, []string{rows[0].Clock, rows[1].Clock})
	require.Equal(t, "2027-10-31T00:30:00Z", rows[0].At.Format(time.RFC3339))
	require.Contains(t, rows[1].Note, "the offset is +01:00")
}

// What a cadence does next is known of each endpoint by what it has done.
func TestPreviewOfCadence(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	for _, pc := range []string{"pc-1", "pc-2", "pc-3"} {
		s.endpoint(pc)
	}
	s.append(events.AgentSeen{PCID: "pc-away", AgentVersion: "1"})
	s.schedule("every", "when: {per_pc: {every: 6h}}\ntz: utc\n")
	now := time.Now().UTC().Truncate(time.Minute)
	fired, later := now.Add(-time.Hour), now.Add(20*time.Minute)
	s.append(events.ScheduleProgressed{ID: "every", Changes: []events.Progress{
		{PCID: "pc-1", Fired: &fired, Succeeded: &fired, Version: "1.0.0"},
		{PCID: "pc-2", Fired: &fired, Failures: 3, NotBefore: &later},
	}})
	rows := s.due("/api/schedules/every/preview?count=10")
	require.Len(t, rows, 4)
	require.Equal(t, []string{"pc-3"}, rows[0].PCs, "never fired, so at once")
	require.Equal(t, later, rows[1].At)
	require.Equal(t, []string{"pc-2"}, rows[1].PCs)
	require.Equal(t, fired.Add(6*time.Hour), rows[2].At)
	require.True(t, rows[3].At.IsZero())
	require.Equal(t, []string{"pc-away"}, rows[3].PCs)
	require.Equal(t, http.StatusBadRequest, s.read("/api/schedules/every/preview?from=2027-01-01T00:00:00Z").status)

	// A later change of an earlier fire says nothing.
	earlier := fired.Add(-time.Hour)
	s.append(events.ScheduleProgressed{ID: "every", Changes: []events.Progress{{PCID: "pc-1", Fired: &earlier, Failures: 9}}})
	require.Equal(t, fired.Add(6*time.Hour), s.due("/api/schedules/every/preview?count=10")[2].At)
	s.write(http.MethodDelete, "/api/schedules/every", "")
	s.schedule("every", "when: {per_pc: {every: 6h}}\ntz: utc\n")
	require.Equal(t, []string{"pc-1", "pc-2", "pc-3"}, s.due("/api/schedules/every/preview")[0].PCs, "what it remembered has gone with it")

	hour := now.Add(time.Hour).Format("15:04")
	s.schedule("window", fmt.Sprintf("when: {per_pc: once}\ntz: utc\nconstraints: {window: \"%s-%s\"}\n", hour, now.Add(3*time.Hour).Format("15:04")))
	rows = s.due("/api/schedules/window/preview?count=1")
	require.Equal(t, now.Add(time.Hour), rows[0].At)
	require.Equal(t, 3, rows[0].Endpoints)
	require.Contains(t, rows[0].Note, "held back until then")
}

func TestUpcoming(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	s.endpoint("pc-1")
	s.schedule("daily", "when: {calendar: {at: \"02:30\"}}\ntz: utc\n")
	s.schedule("hourly", "when: {cron: \"0 * * * *\"}\ntz: utc\n")
	s.schedule("off", "when: {cron: \"* * * * *\"}\nenabled: false\n")
	s.schedule("every", "when: {per_pc: {every: 6h}}\ntz: utc\n")
	rows := s.due("/api/schedules/upcoming?days=2&limit=1000")
	seen := map[string]int{}
	for i, d := range rows {
		seen[d.ScheduleID]++
		require.True(t, i == 0 || !d.At.Before(rows[i-1].At))
	}
	require.Equal(t, map[string]int{"daily": 2, "hourly": 48, "every": 1}, seen)
	require.Equal(t, "every", rows[0].ScheduleID)
	require.Len(t, s.due("/api/schedules/upcoming?limit=3"), 3)
}

type simulated struct {
	Fired, Skipped int
	More           bool
	Notes          []string
	Ticks          []dueAnswer
	Stored         *struct{ Added, Removed []time.Time }
}

func TestSimulate(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	s.write(http.MethodPut, "/api/calendars/holidays", holidaysYAML, "Content-Type", yamlType)
	s.schedule("nightly", "when: {calendar: {at: \"02:30\"}}\ntz: utc\n")
	const span = "?from=2026-12-23T00:00:00Z&to=2026-12-28T00:00:00Z"
	simulate := func(path, body string) (x simulated) {
		t.Helper()
		s.do(http.MethodPost, path, body, "Content-Type", yamlType, "Kanade-Min-Sequence", fmt.Sprint(s.seen.Load())).into(t, &x)
		return x
	}
	before := s.lastSeq()
	stored := simulate("/api/schedules/nightly/simulate"+span, "")
	require.Equal(t, 5, stored.Fired)
	require.Empty(t, stored.Stored.Added)
	require.Empty(t, stored.Stored.Removed)

	const changed = "id: nightly\njob_id: hello\ntarget: {all: true}\ntz: utc\ncalendars: [holidays, other]\nwhen: {calendar: {at: \"02:30\"}}\n"
	for _, path := range []string{"/api/schedules/simulate", "/api/schedules/nightly/simulate"} {
		x := simulate(path+span, changed)
		require.Equal(t, []int{2, 3}, []int{x.Fired, x.Skipped})
		require.Equal(t, "calendar", x.Ticks[1].Reason)
		require.Len(t, x.Stored.Removed, 3)
		require.Equal(t, []string{"there is no calendar 'other': it closes nothing"}, x.Notes)
	}
	moved := simulate("/api/schedules/simulate"+span+"&limit=2", strings.Replace(changed, "02:30", "03:30", 1))
	require.True(t, moved.More)
	require.Equal(t, []int{1, 1}, []int{moved.Fired, moved.Skipped})
	require.Len(t, moved.Stored.Added, 1)
	require.Len(t, moved.Stored.Removed, 2, "up to the last one that is listed")
	none := simulate("/api/schedules/simulate"+span+"&limit=0", changed)
	require.True(t, none.More)
	require.Empty(t, none.Stored.Removed)
	fresh := simulate("/api/schedules/simulate"+span, strings.Replace(changed, "id: nightly", "id: fresh", 1))
	require.Nil(t, fresh.Stored)
	require.Contains(t, simulate("/api/schedules/simulate"+span, "id: e\njob_id: hello\ntarget: {all: true}\nwhen: {per_pc: once}\n").Notes[0], "no zone yet")
	require.Equal(t, before, s.lastSeq(), "nothing is written")

	for _, x := range []struct{ query, body, says string }{
		{"?from=2026-12-23T00:00:00Z&to=2026-12-22T00:00:00Z", changed, "to: must be later"},
		{"?form=2026-12-23T00:00:00Z", changed, "form: unknown parameter"},
		{"", "id: nightly\n", "job_id"},
	} {
		a := s.do(http.MethodPost, "/api/schedules/simulate"+x.query, x.body, "Content-Type", yamlType)
		require.Equal(t, http.StatusBadRequest, a.status)
		require.Contains(t, a.text(), x.says)
	}
}
