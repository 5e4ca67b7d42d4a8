package domain_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
	"kanade/services/scheduler/internal/domain"
)

func instant(t tester, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	require.NoError(t, err)
	return at
}

func zone(t tester, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	require.NoError(t, err)
	return loc
}

func TestFreezeAt(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	for _, c := range []struct {
		saved events.FreezeSaved
		now   string
		want  bool
	}{
		{events.FreezeSaved{}, "2026-01-01T00:00:00Z", true},
		{events.FreezeSaved{TZ: "local"}, "2026-01-01T00:00:00Z", true},
		{events.FreezeSaved{From: "2026-12-24", TZ: "local"}, "2026-12-23T22:59:59Z", false},
		{events.FreezeSaved{From: "2026-12-24", TZ: "local"}, "2026-12-23T23:00:00Z", true},
		{events.FreezeSaved{From: "2026-12-24", TZ: "utc"}, "2026-12-23T23:59:59.999999999Z", false},
		{events.FreezeSaved{From: "2026-12-24", TZ: "utc"}, "2026-12-24T00:00:00Z", true},
		{events.FreezeSaved{Until: "2026-12-24", TZ: "Asia/Tokyo"}, "2026-12-23T14:59:59Z", true},
		{events.FreezeSaved{Until: "2026-12-24", TZ: "Asia/Tokyo"}, "2026-12-23T15:00:00Z", false},
		{events.FreezeSaved{From: "2026-01-01T06:00:00+02:00", Until: "2026-01-01T04:30:00Z", TZ: "Asia/Tokyo"}, "2026-01-01T04:00:00Z", true},
		{events.FreezeSaved{From: "2026-01-01T06:00:00+02:00", Until: "2026-01-01T04:30:00Z", TZ: "Asia/Tokyo"}, "2026-01-01T04:30:00Z", false},
		{events.FreezeSaved{From: "2026-02-01", Until: "2026-01-01", TZ: "utc"}, "2026-01-15T00:00:00Z", false},
		// What can't be read is frozen, whatever the rest says.
		{events.FreezeSaved{From: "soon", Until: "2025-01-01", TZ: "utc"}, "2026-01-01T00:00:00Z", true},
		{events.FreezeSaved{From: "2030-01-01", Until: "2030-02-30", TZ: "utc"}, "2026-01-01T00:00:00Z", true},
		{events.FreezeSaved{Until: "2025-01-01", TZ: "Mars/Olympus"}, "2026-01-01T00:00:00Z", true},
		{events.FreezeSaved{Until: "2025-01-01", TZ: "Local"}, "2026-01-01T00:00:00Z", true},
	} {
		var f domain.Freeze
		f.Save(c.saved, start)
		require.Equal(t, c.want, f.At(instant(t, c.now), berlin), "%+v at %s", c.saved, c.now)
		f.Clear()
		require.False(t, f.At(instant(t, c.now), berlin))
	}
}

func TestFreezeHeldTicks(t *testing.T) {
	var f domain.Freeze
	nominal := instant(t, "2026-05-01T02:30:00Z")
	require.False(t, f.Held(nominal, time.UTC))
	f.Save(events.FreezeSaved{Until: "2026-05-01T03:00:00Z", TZ: "utc"}, nominal.Add(-time.Hour))
	require.True(t, f.Held(nominal, time.UTC))
	require.True(t, f.Held(nominal.Add(-time.Hour), time.UTC))
	require.False(t, f.Held(nominal.Add(-time.Hour-1), time.UTC), "it was due before anybody knew")
	require.False(t, f.Held(nominal.Add(30*time.Minute), time.UTC))
}

func TestFreezeOpens(t *testing.T) {
	var f domain.Freeze
	minute := instant(t, "2026-05-01T02:30:00Z")
	requireOpen := func(want string) {
		t.Helper()
		at, ok := f.Open(minute, time.UTC)
		require.Equal(t, want != "", ok)
		if ok {
			require.Equal(t, want, at.Format(time.RFC3339))
		}
	}
	requireOpen("2026-05-01T02:30:00Z")
	for until, want := range map[string]string{
		"": "", "soon": "", "2026-05-01T02:30:00Z": "2026-05-01T02:30:00Z", "2026-05-01T02:45:00Z": "2026-05-01T02:45:00Z",
		"2026-05-01T02:45:00.1Z": "2026-05-01T02:46:00Z", "2026-05-02": "2026-05-02T00:00:00Z",
	} {
		f.Save(events.FreezeSaved{Until: until, TZ: "local"}, start)
		requireOpen(want)
	}
}

func TestFreezeIsSaved(t *testing.T) {
	var f, loaded domain.Freeze
	f.Save(events.FreezeSaved{ID: events.FleetID, From: "2026-12-24", Reason: "r", TZ: "Europe/Berlin"}, start)
	for range 2 {
		data, err := json.Marshal(f)
		require.NoError(t, err)
		loaded = domain.Freeze{}
		require.NoError(t, json.Unmarshal(data, &loaded))
		require.Equal(t, f, loaded)
		f.Clear()
	}
}
