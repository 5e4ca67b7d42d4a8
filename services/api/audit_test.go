package api

import (
	"context"
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

type auditAnswer struct {
	ID                    uint64
	Actor, Action, Target string
	Payload               map[string]any
	OccurredAt            string `json:"occurred_at"`
	Sub, Type             string
}

func (s *system) audit(query string) (rows []auditAnswer) {
	s.t.Helper()
	s.read("/api/audit"+query).into(s.t, &rows)
	return rows
}

// Who did what from where is listed, of people through the API and of an old CLI through the broker.
func TestAudit(t *testing.T) {
	s := newSystem(t, parts{})
	require.Empty(t, s.audit(""))
	s.job()
	spa := []string{"X-Kanade-Source", "spa"}
	var saved struct{ When string }
	s.write(http.MethodPost, "/api/schedules", `{"id":"s","when":{"calendar":{"at":"09:00","days":["mon-fri"]}},"job_id":"hello","target":{"all":true}}`, spa...).into(t, &saved)
	s.write(http.MethodPost, "/api/schedules/s/disable?cascade=true", "", spa...)
	s.write(http.MethodPost, "/api/schedules/s/enable", "")
	s.write(http.MethodPost, "/api/schedules/s/enable", "") // changes nothing
	s.write(http.MethodPost, "/api/scripts/hello/unrevoke", `{"reason":"mended"}`)
	e := s.exec("hello", `{"target":{"pcs":["pc-0"]}}`, spa...)
	s.plan(e.ExecID, "pc-0")
	s.write(http.MethodPost, "/api/executions/"+e.ExecID+"/kill", `{"reason":"wrong"}`)
	s.write(http.MethodPut, "/api/agents/pc-0/groups", `{"groups":["a"]}`)
	old := `{"actor":"operator","action":"revoke","target":"a b","payload":{"source":"cli","sub":"ann"},"occurred_at":"2020-01-01T00:00:00.25Z"}`
	ack, err := s.bus.JetStream().Publish(context.Background(), "audit.operator.revoke", []byte(old))
	require.NoError(t, err)
	s.saw(ack.Sequence)

	rows := s.audit("")
	var words []string
	for _, a := range rows {
		words = append(words, a.Action+" "+a.Target)
	}
	require.Equal(t, []string{
		"group_set pc-0", "kill " + e.ExecID, "exec hello", "script_unrevoke hello", "schedule_enable s", "script_revoke hello", "schedule_disable s",
		"schedule_upsert s", "job_upsert hello", "revoke a b",
	}, words)
	require.Equal(t, map[string]any{"sub": "service-token", "reason": "wrong"}, rows[1].Payload)
	require.Equal(t, []any{"spa", "service-token", e.ExecID, []any{"commands.pc.pc-0"}, 1.0},
		[]any{rows[2].Payload["source"], rows[2].Payload["sub"], rows[2].Payload["exec_id"], rows[2].Payload["subjects"], rows[2].Payload["target_count"]})
	require.Equal(t, []any{"spa", nil}, []any{rows[6].Payload["source"], rows[4].Payload["source"]})
	require.Equal(t, []any{saved.When, "at 09:00 [mon-fri]", true}, []any{rows[7].Payload["when"], rows[7].Payload["when"], rows[7].Payload["enabled"]})
	require.Equal(t, auditAnswer{
		ID: ack.Sequence, Actor: "operator", Action: "revoke", Target: "a b", Payload: map[string]any{"source": "cli", "sub": "ann"},
		OccurredAt: "2020-01-01T00:00:00.250Z", Sub: "ann", Type: events.TypeWireAudit,
	}, rows[9])

	for query, n := range map[string]int{
		"?actor=operator": 10, "?actor=admin": 0, "?actor=": 10, "?sub=ann": 1, "?action=^exec$": 1, "?action=script": 2, "?target=^hello$": 4,
		"?payload=" + url.QueryEscape(`"reason":"wrong"`): 1, "?since=2020-01-01T00:00:00.25Z": 10, "?since=2020-01-01T00:00:00.3Z": 9,
		"?until=2020-01-01T00:00:00.25Z": 0, "?until=2021-01-01T00:00:00Z": 1, "?limit=0": 0, "?limit=3": 3, "?limit=20&target=hello&action=exec": 1,
	} {
		require.Len(t, s.audit(query), n, query)
	}
	for _, query := range []string{"?limit=", "?limit=-1", "?since=", "?since=2026-01-01", "?action=(", "?target=(", "?payload=(", "?actor=a&actor=b", "?until=x"} {
		require.Equal(t, http.StatusBadRequest, s.read("/api/audit"+query).status, query)
	}
}

// What the API appends says what its client calls itself.
func TestOriginOfFacts(t *testing.T) {
	s := newSystem(t, parts{})
	seq := s.write(http.MethodPut, "/api/freeze", `{"reason":"x"}`, "X-Kanade-Source", " spa ").sequence(t)
	m, ok, err := s.bus.Get(context.Background(), events.StreamLog, seq)
	require.NoError(t, err)
	require.True(t, ok)
	stored, err := m.Stored()
	require.NoError(t, err)
	require.Equal(t, []any{"spa", events.Actor("user:service-token")}, []any{stored.Origin, stored.Actor})
}
