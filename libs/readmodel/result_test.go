package readmodel

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// An expression that can only match one text is looked up; every other one is searched for.
func TestExactExpressions(t *testing.T) {
	for expression, want := range map[string]string{
		"^pc-01$": "pc-01", `^a\.b$`: "a.b", `\Apc\z`: "pc",
		"pc-01": "", "^pc-01": "", "pc-01$": "", "^pc.01$": "", "(?i)^pc-01$": "", "(?m)^pc-01$": "", "^a|b$": "", "^$": "", "": "",
	} {
		text, ok := exact(regexp.MustCompile(expression))
		require.Equal(t, want, text, expression)
		require.Equal(t, want != "", ok, expression)
	}
	_, ok := exact(nil)
	require.False(t, ok)
}

// A run that begins in a batch is taken for new. Where it was known after all, from an end that came first or from a start
// that is told again, the row is what it would have been, and the batch's other rows with it.
func TestRunThatIsNotNew(t *testing.T) {
	w := open(t, t.TempDir())
	known, other := run("e1", 1), run("e1", 2)
	j := &journal{t: t}
	j.append(requested("e1", "hello"), "user:op")
	j.append(finished(known, events.StateFailed), "agent:x")
	apply(t, w, j.messages)
	before := len(j.messages)
	j.append(events.RunStarted{Run: other, StartedAt: begin}, "agent:x")
	j.append(events.RunStarted{Run: known, StartedAt: begin}, "agent:x")
	j.append(finished(other, events.StateSucceeded), "agent:x")
	apply(t, w, j.messages[before:])
	require.False(t, w.db.careful)
	checkRows(t, w, "results", 2)
	clean := open(t, t.TempDir())
	for i := range j.messages {
		apply(t, clean, j.messages[i:i+1])
	}
	require.Equal(t, digest(t, clean), digest(t, w))
}
