package api

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

func TestRevoke(t *testing.T) {
	s := newSystem(t, parts{})
	require.JSONEq(t, `{}`, s.read("/api/scripts/status").text())
	revoked := s.write(http.MethodPost, "/api/scripts/a%2Fb/revoke", `{"reason":"deletes too much"}`)
	require.Equal(t, http.StatusNoContent, revoked.status)
	require.Equal(t, events.ScriptRevoked{JobID: "a/b", Reason: "deletes too much"}, s.fact(revoked.sequence(t)))
	require.JSONEq(t, `{"a/b":"REVOKED"}`, s.read("/api/scripts/status").text())
	before := s.lastSeq()
	require.Equal(t, revoked.sequence(t), s.write(http.MethodPost, "/api/scripts/a%2Fb/revoke", "").sequence(t))
	require.Equal(t, uint64(0), s.write(http.MethodPost, "/api/scripts/other/unrevoke", "").sequence(t))
	require.Equal(t, before, s.lastSeq())
	unrevoked := s.write(http.MethodPost, "/api/scripts/a%2Fb/unrevoke", "", "Idempotency-Key", "k")
	require.JSONEq(t, `{"a/b":"ACTIVE"}`, s.read("/api/scripts/status").text())
	s.write(http.MethodPost, "/api/scripts/a%2Fb/revoke", "")
	require.Equal(t, unrevoked.sequence(t), s.write(http.MethodPost, "/api/scripts/a%2Fb/unrevoke", "", "Idempotency-Key", "k").sequence(t))
	require.JSONEq(t, `{"a/b":"REVOKED"}`, s.read("/api/scripts/status").text(), "a repeated request does not undo what came after it")
}

// TestDeletedJobIsRevoked: the deletion of a job is two facts, and whoever repeats the request makes up for the second.
func TestDeletedJobIsRevoked(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	before := s.lastSeq()
	deleted := s.write(http.MethodDelete, "/api/jobs/hello", "")
	require.Equal(t, before+2, s.lastSeq())
	require.Equal(t, events.JobDeleted{ID: "hello"}, s.fact(before+1))
	require.Equal(t, events.ScriptRevoked{JobID: "hello", Reason: "job deleted"}, s.fact(before+2))
	require.Equal(t, before+2, deleted.sequence(t))
	s.write(http.MethodDelete, "/api/jobs/hello", "")
	s.write(http.MethodDelete, "/api/jobs/never", "")
	require.Equal(t, before+2, s.lastSeq())
	require.JSONEq(t, `{"hello":"REVOKED"}`, s.read("/api/scripts/status").text(), "what was never there is not revoked")

	s.write(http.MethodPost, "/api/scripts/hello/unrevoke", "")
	s.write(http.MethodDelete, "/api/jobs/hello", "")
	require.JSONEq(t, `{"hello":"ACTIVE"}`, s.read("/api/scripts/status").text(), "what an operator has said since then stands")
	s.job()
	s.append(events.JobDeleted{ID: "hello"}) // and here the request broke off
	require.JSONEq(t, `{"hello":"ACTIVE"}`, s.read("/api/scripts/status").text())
	s.write(http.MethodDelete, "/api/jobs/hello", "")
	require.JSONEq(t, `{"hello":"REVOKED"}`, s.read("/api/scripts/status").text())
	s.job()
	require.JSONEq(t, `{"hello":"REVOKED"}`, s.read("/api/scripts/status").text(), "it comes back revoked")
}

func TestFreeze(t *testing.T) {
	s := newSystem(t, parts{})
	require.Equal(t, "null", s.read("/api/freeze").text())
	require.Equal(t, http.StatusNoContent, s.write(http.MethodDelete, "/api/freeze", "").status)
	require.Equal(t, uint64(0), s.lastSeq())
	const yearEnd = `{"until":"2026-12-31T00:00:00Z","reason":"year end","tz":"local"}`
	saved := s.write(http.MethodPut, "/api/freeze", `{"reason":"year end","until":"2026-12-31T00:00:00Z"}`)
	require.Equal(t, yearEnd, saved.text())
	require.Equal(t, events.FreezeSaved{ID: "fleet", Until: "2026-12-31T00:00:00Z", Reason: "year end", TZ: "local"}, s.fact(saved.sequence(t)))
	require.Equal(t, yearEnd, s.read("/api/freeze").text())
	require.Equal(t, saved.sequence(t), s.write(http.MethodPut, "/api/freeze", yearEnd).sequence(t), "it is so already")
	require.Equal(t, `{"tz":"utc"}`, s.write(http.MethodPut, "/api/freeze", `{"from":null,"tz":"utc"}`).text())
	cleared := s.write(http.MethodDelete, "/api/freeze", "")
	require.Equal(t, http.StatusNoContent, cleared.status)
	require.Equal(t, events.FreezeCleared{ID: "fleet"}, s.fact(cleared.sequence(t)))
	require.Equal(t, "null", s.read("/api/freeze").text())
	before := s.lastSeq()
	require.Equal(t, before, s.write(http.MethodDelete, "/api/freeze", "").sequence(t))
	require.Equal(t, before, s.lastSeq())
	s.write(http.MethodPut, "/api/freeze", yearEnd)
	unknown := s.do(http.MethodDelete, "/api/freeze", `{"why":"x"}`)
	require.Equal(t, http.StatusUnprocessableEntity, unknown.status, unknown.text())
	cleared = s.write(http.MethodDelete, "/api/freeze", `{"reason":"books are closed"}`)
	require.Equal(t, events.FreezeCleared{ID: "fleet", Reason: "books are closed"}, s.fact(cleared.sequence(t)))
}
