package api

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// reduce makes an exec one of which the log knows no more than what it was. Before a week has passed its other facts are
// still there.
func (s *system) reduce(execID string, gone bool) {
	s.t.Helper()
	s.append(events.ExecExpired{ExecID: execID, Outcome: events.OutcomeExpired})
	seq := s.append(events.ExecReduced{ExecID: execID, ExecSummary: events.ExecSummary{JobID: "hello", Outcome: events.OutcomeExpired}})
	if gone {
		facts, err := s.bus.Load(s.t.Context(), events.AggregateExec, execID, 0)
		require.NoError(s.t, err)
		for _, f := range facts {
			if f.Seq < seq {
				_, err := s.bus.Delete(s.t.Context(), f.Seq)
				require.NoError(s.t, err)
			}
		}
	}
}

// Whatever is asked of an exec that is older than the history is refused with that reason, and nothing is written.
func TestExecutionThatWasReduced(t *testing.T) {
	for name, gone := range map[string]bool{"its facts are gone": true, "its facts are there": false} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t, parts{})
			s.job()
			s.endpoint("pc-01")
			const plan = `{"target":{"pcs":["pc-01"]}}`
			e := s.exec("hello", plan, "Idempotency-Key", "k1")
			s.plan(e.ExecID, "pc-01")
			s.reduce(e.ExecID, gone)
			const older = "older than the history"
			for _, intent := range []string{"kill", "cancel", "pause", "resume", "release", "retry"} {
				s.refused(e.ExecID, intent, "", http.StatusConflict, older)
			}
			before := s.lastSeq()
			explained := s.read("/api/executions/" + e.ExecID + "/targets/pc-01/explain")
			require.Equal(t, http.StatusNotFound, explained.status, explained.text())
			require.Contains(t, explained.text(), older)

			again := s.do(http.MethodPost, "/api/exec/hello", plan, "Idempotency-Key", "k1")
			if gone {
				require.Equal(t, http.StatusConflict, again.status, again.text())
				require.Contains(t, again.text(), "take a new key")
			} else {
				var same execAnswer
				again.into(t, &same)
				require.Equal(t, e, same)
			}
			s.refused(events.DeriveID("nobody"), "kill", "", http.StatusNotFound, "not found")
			require.Equal(t, before, s.lastSeq())
			require.NotEqual(t, e.ExecID, s.exec("hello", plan, "Idempotency-Key", "k2").ExecID)
		})
	}
}

// The id that a client chose for a run stays taken for as long as the log knows what the exec was.
func TestIDOfARunThatWasReduced(t *testing.T) {
	s := newSystem(t, parts{})
	s.endpoint("pc-01")
	id := uuid.NewString()
	s.append(events.ExecRequested{ExecID: id, JobID: "adhoc", Version: "0"})
	s.reduce(id, true)
	before := s.lastSeq()
	got := s.do(http.MethodPost, "/api/run", `{"pc_id":"pc-01","script":"true","shell":"sh","exec_id":"`+id+`"}`)
	require.Equal(t, http.StatusConflict, got.status, got.text())
	require.Contains(t, got.text(), "take another id")
	require.Equal(t, before, s.lastSeq())
}

// Ids that the api draws are told apart from those that agents of kanade 0.43 draw.
func TestDrawnIDs(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	id, err := uuid.Parse(s.exec("hello", `{"target":{"pcs":["pc-01"]}}`).ExecID)
	require.NoError(t, err)
	require.EqualValues(t, 7, id.Version())
}

// A dry run says that no exec outlives the history.
func TestDryRunWithinTheHistory(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	s.endpoint("pc-01")
	var got struct {
		DeadlineAt time.Time `json:"deadline_at"`
		ExpiresAt  time.Time `json:"expires_at"`
	}
	s.do(http.MethodPost, "/api/exec/hello?dry_run=true", `{"target":{"all":true},"expires_after":"300d"}`).into(t, &got)
	history := events.DefaultLimits().History
	require.InDelta(t, history, time.Until(got.ExpiresAt), float64(time.Minute))
	require.Equal(t, got.ExpiresAt, got.DeadlineAt)
}
