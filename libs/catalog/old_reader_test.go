package catalog

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What kanade 0.43.45 has stored it reads; what only we understand it does not.
func TestOldReadable(t *testing.T) {
	sources(t, "jobs", func(t *testing.T, doc, _ string) {
		m, err := ParseManifestDocument([]byte(doc))
		require.NoError(t, err)
		require.True(t, m.OldReadable())
	})
	sources(t, "schedules", func(t *testing.T, doc, _ string) {
		s, err := ParseScheduleDocument([]byte(doc))
		require.NoError(t, err)
		require.True(t, s.OldReadable())
	})
	for execute, want := range map[string]bool{
		"shell: cmd, script: x, timeout: 1s":                              true,
		"shell: sh, script: x, timeout: 1s":                               false,
		"shell: cmd, script: x, timeout: 1s, env: {A: b}":                 false,
		"shell: cmd, script: x, timeout: 1s, success_codes: [0]":          false,
		"shell: cmd, script: x, timeout: 1s, stdin: ''":                   false,
		"shell: cmd, script: x, timeout: 1s, params: {p: {type: string}}": false,
	} {
		m, err := ParseManifest([]byte("id: a\nversion: '1'\nexecute: {"+execute+"}\n"), YAML)
		require.NoError(t, err, execute)
		require.Equal(t, want, m.OldReadable(), execute)
	}
	for source, want := range map[string]bool{
		"when: {per_pc: once}\ncatch_up: all\n":                               true,
		"when: {per_pc: once}\nactive: {from: 2026-01-01}\ntz: utc\n":         true,
		"when: {per_pc: once}\ntz: Asia/Tokyo\n":                              false,
		"when: {per_pc: once_per_version}\n":                                  false,
		"when: {cron: '0 4 * * *'}\n":                                         false,
		"when: {calendar: {at: '02:30', days: [sat-sun]}}\n":                  true,
		"when: {calendar: {at: '02:30', days: ['sat#2']}}\n":                  false,
		"when: {per_pc: once}\nconstraints: {skip_dates: [2026-01-01]}\n":     false,
		"when: {per_target: {every: 6h}}\nconstraints: {max_concurrent: 5}\n": true,
	} {
		s, err := ParseSchedule([]byte(scheduled+everyone+source), YAML)
		require.NoError(t, err, source)
		require.Equal(t, want, s.OldReadable(), source)
	}
}
