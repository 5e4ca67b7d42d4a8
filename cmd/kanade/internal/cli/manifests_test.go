package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/libs/catalog"
)

// What the manual shows is carried out.
func TestExamplesOfTheManual(t *testing.T) {
	text, err := os.ReadFile("../../../../docs/manifests.md")
	require.NoError(t, err)
	examples := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)```yaml\n# (\\w+)\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		examples[m[1]] = m[2]
	}
	require.Len(t, examples, 4)

	job, err := catalog.ParseManifest([]byte(examples["job"]), catalog.YAML)
	require.NoError(t, err)
	require.NoError(t, job.Unsupported())
	schedule, err := catalog.ParseSchedule([]byte(examples["schedule"]), catalog.YAML)
	require.NoError(t, err)
	require.NoError(t, schedule.Unsupported())
	_, err = job.Resolve(schedule.Params)
	require.NoError(t, err)

	calendar, err := catalog.ParseDayCalendar([]byte(examples["calendar"]), catalog.YAML)
	require.NoError(t, err)
	require.Contains(t, schedule.Calendars, calendar.ID)

	path := filepath.Join(t.TempDir(), "plan.yaml")
	require.NoError(t, os.WriteFile(path, []byte(examples["plan"]), 0o600))
	f := planFlags{Plan: path}
	body, err := f.body(nine)
	require.NoError(t, err)
	plan, err := catalog.ParsePlan(body)
	require.NoError(t, err)
	_, err = job.Resolve(plan.Params)
	require.NoError(t, err)
}
