package events

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

type recorded struct {
	Subject string          `json:"subject"`
	JSON    json.RawMessage `json:"json"`
}

func recordings(t *testing.T, file string) []recorded {
	data, err := os.ReadFile(filepath.Join("wire", "testdata", file))
	require.NoError(t, err)
	var all []recorded
	require.NoError(t, json.Unmarshal(data, &all))
	require.NotEmpty(t, all)
	return all
}

// Every recorded result and started event of a real 0.43.45 is a run fact in our words.
func TestRunFactOfRecordings(t *testing.T) {
	states := map[TargetState]int{}
	for _, file := range []string{"results.json", "started.json"} {
		for _, r := range recordings(t, file) {
			e, err := Decode(r.Subject, nil, r.JSON)
			require.NoError(t, err)
			f, ok, err := RunFactOf(e)
			require.NoError(t, err)
			require.True(t, ok)
			require.NotEmpty(t, f.PCID)
			require.NotEmpty(t, f.ResultID)
			require.False(t, f.At.IsZero())
			states[f.TargetState()]++
			if f.TargetState() == StateSkipped {
				require.Contains(t, []string{SkipReasonDeadline, SkipReasonRevoked}, f.Reason)
				require.NotEmpty(t, f.Detail)
			}
		}
	}
	for _, want := range []TargetState{StateRunning, StateSucceeded, StateFailed, StateSkipped, StateKilled, StateTimedOut} {
		require.NotZero(t, states[want], "no recording is %s", want)
	}
}

func TestRunFactOfOurs(t *testing.T) {
	for _, p := range []Payload{sampleRunReceived, sampleRunStarted, sampleRunFinished, sampleRunSkipped} {
		e, err := New(p, Meta{ID: "x", Time: sampleTime})
		require.NoError(t, err)
		f, ok, err := RunFactOf(e)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, sampleRun, f.Run)
		require.Equal(t, e.Fact(), string(f.Kind))
	}
	e, err := New(sampleJobDeleted, Meta{ID: "x", Time: sampleTime})
	require.NoError(t, err)
	_, ok, err := RunFactOf(e)
	require.NoError(t, err)
	require.False(t, ok)
	bad := sampleRunFinished
	bad.State = StateRunning
	e, err = New(bad, Meta{ID: "x", Time: sampleTime})
	require.NoError(t, err)
	_, _, err = RunFactOf(e)
	var decode *DecodeError
	require.ErrorAs(t, err, &decode)
}

// Scripts end with the reserved codes too: a shell's 127 is a failure, not a skip.
func TestShellExit127IsNoSkip(t *testing.T) {
	e, err := Decode("results.7", nil, []byte(`{"result_id":"r","request_id":"q","exec_id":"e","pc_id":"p","exit_code":127,"stdout":"",
		"stderr":"sh: nope: not found","started_at":"2026-11-23T17:42:04Z","finished_at":"2026-11-23T17:42:05Z"}`))
	require.NoError(t, err)
	f, _, err := RunFactOf(e)
	require.NoError(t, err)
	require.Equal(t, StateFailed, f.TargetState())
	require.Equal(t, 127, *f.Code)
}
