package readmodel

import (
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

func TestScripts(t *testing.T) {
	dir := t.TempDir()
	w, r := open(t, dir), read(t, dir)
	j := &journal{t: t}
	j.append(events.ScriptRevoked{JobID: "hello", Reason: "deletes too much"}, "user:op")
	j.append(events.ScriptRevoked{JobID: "a"}, "cli:script_status")
	j.append(events.ScriptUnrevoked{JobID: "a", Reason: "mended"}, "user:op2")
	apply(t, w, j.messages)
	all, err := r.Scripts(t.Context())
	require.NoError(t, err)
	require.Equal(t, []Script{
		{JobID: "a", Reason: "mended", Actor: "user:op2", At: begin.Add(2e6), Sequence: 3},
		{JobID: "hello", Revoked: true, Reason: "deletes too much", Actor: "user:op", At: begin, Sequence: 1},
	}, all)
	one, err := r.Script(t.Context(), "hello")
	require.NoError(t, err)
	require.Equal(t, all[1], one)
	_, err = r.Script(t.Context(), "never")
	require.ErrorIs(t, err, ErrNotFound)
}

func TestFreeze(t *testing.T) {
	dir := t.TempDir()
	w, r := open(t, dir), read(t, dir)
	_, frozen, err := r.Freeze(t.Context())
	require.NoError(t, err)
	require.False(t, frozen)
	j := &journal{t: t}
	j.append(events.FreezeSaved{ID: events.FleetID, From: "2026-12-24", Until: "2027-01-02", Reason: "holidays", TZ: "utc"}, "user:op")
	apply(t, w, j.messages)
	z, frozen, err := r.Freeze(t.Context())
	require.NoError(t, err)
	require.True(t, frozen)
	require.Equal(t, Freeze{
		ID: events.FleetID, From: "2026-12-24", Until: "2027-01-02", Reason: "holidays", TZ: "utc", Sequence: 1, SavedAt: begin, Actor: "user:op",
	}, z)
	j.append(events.FreezeCleared{ID: events.FleetID}, "user:op")
	apply(t, w, j.messages)
	_, frozen, err = r.Freeze(t.Context())
	require.NoError(t, err)
	require.False(t, frozen)
}
