package catalog

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// keys lists the paths that a gate named.
func keys(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	e := asError(t, err)
	require.Equal(t, Unsupported, e.Kind)
	var paths []string
	for _, p := range e.Problems {
		require.True(t, strings.HasPrefix(p.Message, "not supported yet"), p.Message)
		paths = append(paths, p.Path)
	}
	return strings.Join(paths, " ")
}

func TestManifestSupport(t *testing.T) {
	for source, want := range map[string]string{
		minJob: "",
		head + "execute: {shell: pwsh, script: x, timeout: 10s, run_as: system, env: {}, args: [], success_codes: [0]}\n" +
			"staleness: {mode: cached}\nrequire_approval: false\ntags: [a]\ncheck: null\n": "",
		head + "execute: {shell: cmd, script_object: a/b, timeout: 10s, run_as: user, cwd: /, env: {a: b}, args: [a], stdin: '', success_codes: [0, 1], params: {p: {}}}\n" +
			"staleness: {mode: unchecked}\nrequire_approval: true\ncheck: {name: a}\ninventory: {display: []}\nclient: {name: a, category: catalog}\n": "require_approval inventory check client",
		minJob + "emit: {type: events}\n": "emit",
	} {
		m, err := ParseManifest([]byte(source), YAML)
		require.NoError(t, err)
		require.Equal(t, want, keys(t, m.Unsupported()), source)
	}
}

// Everything that a schedule can say is carried out; what a later version stored is not.
func TestScheduleSupport(t *testing.T) {
	for _, source := range []string{
		"when: {calendar: {at: '2026-01-31 02:30'}}\nruns_on: agent\n", "when: {per_pc: once_per_version}\n", "when: {per_target: {every: 6h}}\n",
		"when: {per_pc: {every: 6h}}\njitter: 1s\nactive: {from: 2026-01-01}\nconstraints: {window: 01:00-02:00, max_concurrent: 1, skip_dates: [2026-01-01]}\n" +
			"on_failure: {retry: {max: 1, backoff: 1s}}\nstarting_deadline: 1h\ncatch_up: none\noverlap: allow\ncalendars: [a]\n",
	} {
		s, err := ParseSchedule([]byte(scheduled+everyone+source), YAML)
		require.NoError(t, err, source)
		require.NoError(t, s.Unsupported(), source)
	}
	agents, err := ParseSchedule([]byte(scheduled+everyone+"when: {calendar: {at: '02:30', days: [friL]}}\nruns_on: agent\ntz: utc\ncalendars: [a]\noverlap: allow\nretry: {max: 1, backoff: 1s}\n"), YAML)
	require.NoError(t, err)
	require.Equal(t, "when.calendar.days retry overlap calendars", keys(t, agents.Unsupported()))
	later, err := ParseScheduleDocument([]byte(`{"id":"s","when":{"per_pc":"twice"},"job_id":"j","target":{"all":true},"catch_up":"some","overlap":"merge"}`))
	require.NoError(t, err)
	require.Equal(t, "when.per_pc catch_up overlap", keys(t, later.Unsupported()))
	later, err = ParseScheduleDocument([]byte(`{"id":"s","when":{"per_target":"once_per_version"},"job_id":"j","target":{"all":true}}`))
	require.NoError(t, err)
	require.Equal(t, "when.per_target", keys(t, later.Unsupported()))
}
