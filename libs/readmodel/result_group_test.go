package readmodel

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

func TestResultGroups(t *testing.T) {
	dir := t.TempDir()
	w, r := open(t, dir), read(t, dir)
	j := &journal{t: t}
	end := func(exec string, pc int, state events.TargetState, stderr string) {
		f := finished(run(exec, pc), state)
		f.Stdout, f.Stderr = events.Output{Text: "out"}, events.Output{Text: stderr}
		j.append(f, "agent:pc")
	}
	for pc := 19; pc >= 0; pc-- {
		end("e1", pc, events.StateFailed, "no disk")
	}
	end("e1", 20, events.StateFailed, "no disc")
	end("e1", 21, events.StateTimedOut, "no disk")
	end("e1", 22, events.StateTimedOut, "no disk")
	end("e1", 23, events.StateSucceeded, "no disk")
	j.append(events.RunSkipped{Run: run("e1", 24), SkippedAt: begin, Code: 126, Reason: events.SkipReasonRevoked}, "agent:pc")
	end("e2", 0, events.StateFailed, "no disk")
	apply(t, w, j.messages)
	failed := func(exec string, limit int) []ResultGroup {
		t.Helper()
		groups, _, err := r.ResultGroups(t.Context(), GroupFilter{ExecID: exec, Status: ResultFailure, Limit: limit})
		require.NoError(t, err)
		for i := range groups {
			sample, err := r.Result(t.Context(), groups[i].ResultID)
			require.NoError(t, err)
			require.Equal(t, groups[i].Digest, sample.Digest)
			groups[i].Digest, groups[i].ResultID = "", ""
		}
		return groups
	}
	all := failed("e1", All)
	three := 3
	var first []string
	for pc := range GroupPCs {
		first = append(first, fmt.Sprintf("pc-%02d", pc))
	}
	require.Equal(t, []ResultGroup{
		{State: events.StateFailed, ExitCode: &three, Stdout: "out", Stderr: "no disk", Count: 20, PCs: first},
		{State: events.StateTimedOut, Stdout: "out", Stderr: "no disk", Count: 2, PCs: []string{"pc-21", "pc-22"}},
		{State: events.StateFailed, ExitCode: &three, Stdout: "out", Stderr: "no disc", Count: 1, PCs: []string{"pc-20"}},
	}, all)
	require.Equal(t, all[:1], failed("e1", 1))
	require.Empty(t, failed("e3", All))

	every, n, err := r.ResultGroups(t.Context(), GroupFilter{JobID: "hello", Limit: All})
	require.NoError(t, err)
	require.Equal(t, 26, n, "of every exec")
	require.Len(t, every, 5)
	require.Equal(t, 21, every[0].Count)
	require.Len(t, every[0].PCs, GroupPCs)
	late, n, err := r.ResultGroups(t.Context(), GroupFilter{JobID: "hello", Since: begin.Add(time.Second), Status: ResultSuccess, Limit: All})
	require.NoError(t, err)
	require.Equal(t, 1, n)
	require.Equal(t, []string{"pc-23"}, late[0].PCs)
}

// Of an output that was cut the text is head and tail only: two that differ in between are not equal.
func TestCutOutputsAreNotEqual(t *testing.T) {
	one := Result{State: events.StateSucceeded, Stdout: events.Output{Text: "a…z", Truncated: true, SHA256: "1"}}
	other := one
	other.Stdout.SHA256 = "2"
	require.NotEqual(t, one.digest(), other.digest())
	other.Stdout = events.Output{Text: "a…z"}
	require.NotEqual(t, one.digest(), other.digest())
	other = one
	other.Stdout, other.Stderr = other.Stderr, other.Stdout
	require.NotEqual(t, one.digest(), other.digest())
}
