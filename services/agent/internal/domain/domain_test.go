package domain

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/events"
)

// The commands that a backend of kanade 0.43.45 sent, as recorded.
func TestParseRecordedCommands(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "commands.json"))
	require.NoError(t, err)
	var recorded []struct {
		Subject string
		JSON    json.RawMessage
	}
	require.NoError(t, json.Unmarshal(data, &recorded))
	require.NotEmpty(t, recorded)
	for _, r := range recorded {
		c, err := ParseCommand(r.JSON)
		require.NoError(t, err, string(r.JSON))
		require.NotEmpty(t, c.RequestID)
		require.GreaterOrEqual(t, c.Timeout, time.Second)
		require.Equal(t, []int{0}, c.SuccessCodes)
	}
}

func TestJudge(t *testing.T) {
	c := Command{Timeout: 30 * time.Second, SuccessCodes: []int{0, 3}}
	code := func(n int) *int { return &n }
	notStarted := fmt.Errorf("%w: no such directory", ErrNotStarted)
	for name, x := range map[string]struct {
		exit       Exit
		err, cause error
		want       Ending
	}{
		"zero":              {Exit{}, nil, nil, Ending{State: events.StateSucceeded, ExitCode: code(0)}},
		"a success code":    {Exit{Code: 3}, nil, nil, Ending{State: events.StateSucceeded, ExitCode: code(3)}},
		"another":           {Exit{Code: 127}, nil, nil, Ending{State: events.StateFailed, ExitCode: code(127)}},
		"timeout":           {Exit{Signal: "killed"}, nil, ErrTimeout, Ending{State: events.StateTimedOut, Reason: "timeout after 30s"}},
		"kill":              {Exit{Signal: "killed"}, nil, ErrKilled, Ending{State: events.StateKilled, Reason: "killed by remote signal"}},
		"stop":              {Exit{}, errors.New("context"), ErrStopped, Ending{State: events.StateKilled, Reason: "agent stopped"}},
		"ended just before": {Exit{Code: 1}, nil, ErrTimeout, Ending{State: events.StateFailed, ExitCode: code(1)}},
		"somebody's signal": {Exit{Signal: "killed"}, nil, nil, Ending{State: events.StateFailed, Reason: "ended by signal killed"}},
		"could not be started": {Exit{}, notStarted, nil, Ending{
			State: events.StateFailed, Reason: events.ReasonNotStarted, Detail: "the script could not be started: no such directory",
		}},
		"killed before it was": {Exit{}, notStarted, ErrKilled, Ending{State: events.StateKilled, Reason: "killed by remote signal"}},
		"lost sight of":        {Exit{}, errors.New("wait"), nil, Ending{State: events.StateFailed, Reason: "wait"}},
	} {
		require.Equal(t, x.want, c.Judge(x.exit, x.err, x.cause), name)
	}
}

func TestAgain(t *testing.T) {
	c := Command{Attempts: 3}
	failed, killed := Ending{State: events.StateFailed}, Ending{State: events.StateKilled}
	require.True(t, c.Again(1, failed))
	require.True(t, c.Again(2, Ending{State: events.StateTimedOut}))
	require.False(t, c.Again(3, failed))
	require.False(t, c.Again(1, killed))
	require.False(t, c.Again(1, Ending{State: events.StateSucceeded}))
}

// Whatever a script writes, its text is valid, within the limit, and the whole where that fits.
func TestText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SampledFrom([]string{"a", "é", "日本", "\xff", "a\xff", "\U0001f600", "\n"}).Draw(t, "unit")
		all := []byte(strings.Repeat(unit, rapid.IntRange(0, 80_000/len(unit)).Draw(t, "n")))
		head, tail := all[:min(len(all), events.MaxInlineOutput)], all[max(0, len(all)-events.MaxInlineOutput/2):]
		text, truncated := Text(head, tail, int64(len(all)))
		if len(text) > events.MaxInlineOutput {
			t.Fatalf("%d bytes", len(text))
		}
		if text != strings.ToValidUTF8(text, "?") {
			t.Fatal("not valid")
		}
		if whole := strings.ToValidUTF8(string(all), "\ufffd"); len(all) <= events.MaxInlineOutput && len(whole) <= events.MaxInlineOutput {
			if truncated || text != whole {
				t.Fatal("cut although it fits")
			}
		} else if !truncated || !strings.Contains(text, "bytes left out") {
			t.Fatal("the cut is not marked")
		}
	})
}

func TestKeepUntil(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	require.Equal(t, now.AddDate(0, 0, 14), NewEntry(Command{RequestID: "r"}, "", "pc", now).KeepUntil)
	deadline := now.AddDate(0, 0, 7)
	require.Equal(t, now.AddDate(0, 0, 21), NewEntry(Command{RequestID: "r", Deadline: &deadline}, "", "pc", now).KeepUntil)
}

// Staleness strict skips without a connection, when the last one began too long ago; with one, or in another mode, never.
func TestStaleness(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	parse := func(staleness string) Command {
		c, err := ParseCommand([]byte(`{"id":"j","version":"1","request_id":"r","shell":"sh","script":"true","timeout_secs":1` + staleness + `}`))
		require.NoError(t, err)
		return c
	}
	strict := parse(`,"staleness":{"mode":"strict","max_cache_age":"300s"}`)
	gone := Gates{Now: now, ConnectedAt: now.Add(-6 * time.Minute), ShellSupported: true}
	skip, yes := strict.Decide(gone)
	require.True(t, yes)
	require.Equal(t, events.SkipReasonStale, skip.Reason)
	require.Equal(t, 127, skip.Code)
	there, lately := gone, gone
	there.Connected, lately.ConnectedAt = true, now.Add(-time.Minute)
	for name, g := range map[string]Gates{"a connection": there, "a recent one": lately} {
		_, yes = strict.Decide(g)
		require.False(t, yes, name)
	}
	for _, other := range []string{"", `,"staleness":{"mode":"unchecked"}`} {
		_, yes = parse(other).Decide(gone)
		require.False(t, yes, other)
	}
}
