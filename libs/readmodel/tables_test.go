package readmodel

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// everyFact is a log that leaves rows in every table: each fact that there is, twice, among the lives of some execs.
func everyFact(t testing.TB) []Message {
	j := &journal{t: t}
	j.messages = lives(t, 3)
	for range 2 {
		for _, info := range events.Types() {
			j.append(info.Sample, "user:op")
		}
	}
	for _, info := range events.Types() {
		if regexp.MustCompile(`saved\.v1$|\.progressed\.v1$`).MatchString(info.Name) { // what was deleted is there again
			j.append(info.Sample, "user:op")
		}
	}
	return j.messages
}

// TestProveTables takes every table through a restart, messages that come again, and a beginning from nothing, at every
// point of a log that fills all of them: the rows are those of one clean pass.
func TestProveTables(t *testing.T) {
	long(t)
	log := everyFact(t)
	clean := open(t, t.TempDir())
	apply(t, clean, log)
	want := digest(t, clean)
	for _, r := range logRelations() {
		var rows int
		require.NoError(t, clean.db.conn.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM "+r.name).Scan(&rows))
		require.Positive(t, rows, "no row of table %s", r.name)
	}
	step := max(1, len(log)/40)
	if os.Getenv("KANADE_PROVE") == "full" {
		step = 1
	}
	points := 0
	for at := 1; at < len(log); at += step {
		dir := t.TempDir()
		w := open(t, dir)
		apply(t, w, log[:at])
		require.NoError(t, w.Close())
		w = open(t, dir)
		apply(t, w, log[max(0, at-at%7-3):min(len(log), at+at%11)])
		apply(t, w, log)
		apply(t, w, log[at:])
		require.Equal(t, want, digest(t, w), "restarted at %d", at)
		require.NoError(t, w.Remove())
		w = open(t, dir) // reset
		for next := 0; next < len(log); next += at {
			apply(t, w, log[next:min(len(log), next+at)])
		}
		require.Equal(t, want, digest(t, w), "in batches of %d", at)
		require.NoError(t, w.Close())
		points++
	}
	t.Logf("PROVED %s: %d tables, %d messages, restarted, repeated and begun anew at %d points", t.Name(), len(want), len(log), points)
}
