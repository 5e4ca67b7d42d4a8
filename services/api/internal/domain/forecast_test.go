package domain

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/catalog"
)

// A tick of which nothing is on record a minute after its time is overdue, but for what is written later.
func TestOverdue(t *testing.T) {
	day := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		keys       string
		known, now time.Duration
		busy       bool
		want       time.Duration // 0: none
	}{
		{"", time.Hour, time.Hour + 59*time.Minute, false, 0},
		{"", time.Hour, 2*time.Hour + 59*time.Second, false, 0},
		{"", time.Hour, 2*time.Hour + time.Minute, false, 2 * time.Hour},
		{"", 2*time.Hour + time.Second, 5 * time.Hour, false, 3 * time.Hour},
		{"enabled: false\n", time.Hour, 5 * time.Hour, false, 0},
		{"overlap: queue\n", time.Hour, 5 * time.Hour, true, 0},
		{"overlap: queue\n", time.Hour, 5 * time.Hour, false, 2 * time.Hour},
		{"constraints: {window: 04:00-06:00}\n", time.Hour, 3 * time.Hour, false, 0},
		{"constraints: {window: 04:00-06:00}\n", time.Hour, 5 * time.Hour, false, 4 * time.Hour},
		{"constraints: {skip_dates: [2026-11-26]}\n", time.Hour, 30 * time.Hour, false, 24 * time.Hour},
	} {
		s, err := catalog.ParseSchedule([]byte("id: s\njob_id: j\nwhen: {cron: \"0 * * * *\"}\ntz: utc\ntarget: {all: true}\n"+c.keys), catalog.YAML)
		require.NoError(t, err)
		got := Overdue(s, &Installation{Gates: catalog.Gates{Local: time.UTC}}, day.Add(c.known), day.Add(c.now), c.busy)
		if c.want == 0 {
			require.Zero(t, got, "%+v", c)
			continue
		}
		require.Equal(t, day.Add(c.want), got, "%+v", c)
	}
}
