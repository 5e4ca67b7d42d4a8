package cli_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSchedulesOfOperators(t *testing.T) {
	needsShell(t)
	system(t)
	eventually(t, pc, "agent", "list")
	ok(t, "job", "create", file(t, "a.yaml", script("a", "echo a")))
	ok(t, "calendar", "create", file(t, "c.yaml", "id: holidays\ndays: [2027-12-24, 2027-12-25, 2027-12-26, 2027-12-31]\n"))
	eventually(t, "2027-12-24,2027-12-25,2027-12-26,and 1 more", "calendar", "list")
	require.Contains(t, ok(t, "calendar", "show", "holidays"), "days: [2027-12-24")
	const nightly = "id: nightly\njob_id: a\nwhen: {calendar: {at: '02:30'}}\ntarget: {all: true}\ncalendars: [holidays]\ntz: utc\nenabled: false\n"
	path := file(t, "nightly.yaml", nightly)
	ok(t, "schedule", "create", path)
	eventually(t, "nightly", "schedule", "list")
	require.Contains(t, kanade(t, "calendar", "delete", "holidays").err, "named by schedule 'nightly'")

	preview := ok(t, "schedule", "preview", "nightly", "--from", "2027-12-24T00:00:00Z", "--count", "2")
	require.Regexp(t, `\n2027-12-24T02:30:00Z +skip: disabled +UTC +- +the schedule is disabled\n`, preview)
	require.Equal(t, 1, strings.Count(ok(t, "schedule", "upcoming"), "\n"), "what is disabled does not come")
	on := file(t, "on.yaml", strings.Replace(nightly, "enabled: false", "enabled: true", 1))
	simulated := ok(t, "schedule", "simulate", on, "--from", "2027-12-23T00:00:00Z", "--to", "2027-12-28T00:00:00Z")
	require.Contains(t, simulated, "nightly: 2 would fire, 3 would be skipped\n+ 2027-12-23T02:30:00Z\n+ 2027-12-27T02:30:00Z\n")
	require.Contains(t, ok(t, "schedule", "simulate", "nightly"), "The stored schedule fires at the same times.")
	ok(t, "schedule", "create", on)
	eventually(t, "nightly", "schedule", "upcoming", "--days", "2")

	run := ok(t, "schedule", "run-now", "nightly", "--reason", "to see it", "--wait")
	require.Contains(t, run, "1 succeeded")
	require.Contains(t, kanade(t, "schedule", "run-now", "nightly", "--pc", "pc-99").err, "'pc-99' is not in the target of the schedule")

	now := time.Now().UTC().Truncate(24 * time.Hour)
	from, to := now.AddDate(0, 0, -2).Format(time.RFC3339), now.Format(time.RFC3339)
	require.Contains(t, ok(t, "schedule", "backfill", "nightly", from, to, "--dry-run"), "2 execs would be requested, 0 known already, 0 held back\n")
	require.Contains(t, ok(t, "schedule", "backfill", "nightly", from, to), "2 execs requested, 0 known already, 0 held back\n")
	eventually(t, "0 execs would be requested, 2 known already", "schedule", "backfill", "nightly", from, to, "--dry-run")

	status := eventually(t, "last success  20", "schedule", "status", "nightly")
	require.Regexp(t, `\nenabled +yes\n`, status)
	require.Contains(t, status, "failing       0 endpoints")
	eventually(t, "nightly of 1 endpoint: 1 ok\nby exec ", "schedule", "coverage", "nightly")
	require.Regexp(t, `\n`+pc+` +ok`, ok(t, "schedule", "coverage", "nightly", "--state", "ok"))
	require.Equal(t, 1.0, okJSON[map[string]any](t, "schedule", "coverage", "nightly")["total"])
}
