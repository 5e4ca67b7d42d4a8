package view_test

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
	"kanade/libs/events/wire"
)

func TestFactsAreShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.tell(events.ScriptRevoked{JobID: "before", Reason: "r"})
		stop := w.run(0)
		revoked := w.tell(events.ScriptRevoked{JobID: "a/b.c"})
		grouped := w.tell(events.AgentGrouped{PCID: "pc", Groups: []string{"g", "h"}})
		pass(time.Second)
		requireShown := func(bucket, key, value string, seq uint64) {
			t.Helper()
			got, at := w.shown(bucket, key)
			require.Equal(t, value, got)
			require.Equal(t, seq, at)
		}
		requireShown(events.BucketScriptStatus, "before", "REVOKED", 1)
		requireShown(events.BucketScriptStatus, "a/b.c", "REVOKED", revoked)
		requireShown(events.BucketAgentGroups, "pc", `{"groups":["g","h"]}`, grouped)
		stop()
		w.tell(events.ScriptUnrevoked{JobID: "a/b.c"})
		w.tell(events.ScriptRevoked{JobID: "a/b.c"})
		active := w.tell(events.ScriptUnrevoked{JobID: "a/b.c"})
		none := w.tell(events.AgentGrouped{PCID: "pc", Groups: []string{}})
		w.run(0)
		w.run(0)
		pass(time.Second)
		requireShown(events.BucketScriptStatus, "a/b.c", "ACTIVE", active)
		requireShown(events.BucketAgentGroups, "pc", `{"groups":[]}`, none)
		require.Empty(t, w.adoptions(events.BucketAgentGroups), "our own writes are nobody's act")
	})
}

func TestFreezeIsShown(t *testing.T) {
	const old, whole = events.BucketFleetConfig, events.BucketCatalog
	cases := []struct {
		saved      events.FreezeSaved
		old, whole string
	}{
		{events.FreezeSaved{TZ: "local"}, `{"tz":"local"}`, `{"tz":"local"}`},
		{events.FreezeSaved{From: "2026-12-24", Until: "2027-01-02T06:00:00+02:00", Reason: "a & b", TZ: "utc"},
			`{"from":"2026-12-24","until":"2027-01-02T06:00:00+02:00","reason":"a & b","tz":"utc"}`, ""},
		{events.FreezeSaved{From: "2026-12-24", Until: "2027-07-02", TZ: "Europe/Berlin"},
			`{"from":"2026-12-23T23:00:00Z","until":"2027-07-01T22:00:00Z","tz":"utc"}`, `{"from":"2026-12-24","until":"2027-07-02","tz":"Europe/Berlin"}`},
		{events.FreezeSaved{Until: "2027-01-02T06:00:00.5+02:00", TZ: "Asia/Tokyo"},
			`{"until":"2027-01-02T04:00:00.5Z","tz":"utc"}`, `{"until":"2027-01-02T06:00:00.5+02:00","tz":"Asia/Tokyo"}`},
		{events.FreezeSaved{From: "soon", Until: "2027-01-02", TZ: "Asia/Tokyo"},
			`{"from":"soon","until":"2027-01-01T15:00:00Z","tz":"utc"}`, `{"from":"soon","until":"2027-01-02","tz":"Asia/Tokyo"}`},
		{events.FreezeSaved{From: "2026-12-24", TZ: "Mars/Olympus"}, `{"from":"2026-12-24","tz":"Mars/Olympus"}`, ""},
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.run(0)
		w.tell(events.FreezeCleared{ID: events.FleetID})
		for _, c := range cases {
			c.saved.ID = events.FleetID
			if c.whole == "" {
				c.whole = c.old
			}
			seq := w.tell(c.saved)
			pass(time.Second)
			for bucket, want := range map[string]string{old: c.old, whole: c.whole} {
				got, at := w.shown(bucket, "freeze")
				require.JSONEq(t, want, got, bucket)
				require.Equal(t, seq, at)
			}
			value, _ := w.shown(old, "freeze")
			_, err := wire.DecodeFreeze([]byte(value))
			require.Equal(t, c.saved.TZ == "Mars/Olympus", err != nil, "a 0.43.45 reader of %s: %v", value, err)
			require.True(t, json.Valid([]byte(value)))
		}
		w.tell(events.FreezeCleared{ID: events.FleetID})
		pass(time.Second)
		for _, bucket := range []string{old, whole} {
			got, _ := w.shown(bucket, "freeze")
			require.Equal(t, "-", got)
		}
	})
}

// No old CLI writes the freeze: one that is not ours is that of an old backend, and stays.
func TestForeignFreezeIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.put(events.BucketFleetConfig, "freeze", `{"tz":"utc"}`)
		w.run(0)
		w.tell(events.FreezeSaved{ID: events.FleetID, Reason: "ours", TZ: "utc"})
		pass(time.Second)
		entry, err := w.kv(events.BucketFleetConfig).Get(t.Context(), "freeze")
		require.NoError(t, err)
		require.Equal(t, `{"tz":"utc"}`, string(entry.Value()))
		got, _ := w.shown(events.BucketCatalog, "freeze")
		require.Equal(t, `{"reason":"ours","tz":"utc"}`, got)
	})
}
