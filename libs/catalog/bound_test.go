package catalog

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A date begins at the first instant that bears it, also where its midnight is missing, is there twice, or the whole day
// never was.
func TestBoundsAreFirstInstants(t *testing.T) {
	for _, c := range []struct{ zone, date, want string }{
		{"Africa/Cairo", "2026-04-24", "2026-04-23T22:00:00Z"},     // 00:00 is 01:00
		{"America/Havana", "2026-11-01", "2026-11-01T04:00:00Z"},   // 01:00 is 00:00
		{"America/Santiago", "2026-09-06", "2026-09-06T04:00:00Z"}, // 00:00 is 01:00
		{"Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00Z"},
		{"Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z"},
	} {
		at, err := Bound(c.date, zone(t, c.zone))
		require.NoError(t, err)
		require.Equal(t, c.want, at.UTC().Format(time.RFC3339), "%s in %s", c.date, c.zone)
	}
	rapid.Check(t, func(t *rapid.T) {
		loc := zone(t, rapid.SampledFrom([]string{"Africa/Cairo", "America/Havana", "America/Santiago", "Asia/Beirut", "Europe/Berlin", "Atlantic/Azores", "UTC"}).Draw(t, "zone"))
		day := time.Date(2000, 1, rapid.IntRange(1, 13_000).Draw(t, "day"), 0, 0, 0, 0, time.UTC)
		at, err := Bound(day.Format(time.DateOnly), loc)
		require.NoError(t, err)
		require.Equal(t, day.Format(time.DateOnly), at.In(loc).Format(time.DateOnly))
		require.Less(t, at.Add(-1).In(loc).Format(time.DateOnly), day.Format(time.DateOnly))
	})
}

func FuzzBound(f *testing.F) {
	for _, text := range []string{"", "2026-12-24", "2026-12-24T00:00:00Z", "2026-12-24T00:00:00+14:00", "0000-01-01", "soon"} {
		f.Add(text, "Africa/Cairo")
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		loc, err := Zone(name, time.UTC)
		if err != nil {
			return
		}
		at, err := Bound(text, loc)
		again, errAgain := Bound(at.UTC().Format(time.RFC3339Nano), time.UTC)
		if err == nil && text != "" && at.UTC().Year() >= 0 && at.UTC().Year() <= 9999 && (errAgain != nil || !again.Equal(at)) {
			t.Errorf("%q in %s is %s, which reads as %s", text, name, at, again)
		}
	})
}
