package api

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/readmodel"
)

// ready is what /readyz says of the read model.
type ready struct {
	Ready     bool
	ReadModel struct {
		Schema string
		Lag    uint64
		Slots  []struct {
			Slot, File      string
			Served, Asked   bool
			AppliedSequence uint64     `json:"applied_sequence"`
			AppliedAt       *time.Time `json:"applied_at"`
			Lag             *uint64
			AgeSecs         *float64 `json:"age_secs"`
			StillSecs       *float64 `json:"still_secs"`
		}
	} `json:"read_model"`
}

// Of every copy it is said which file it is, how far it is, and how old that is: also of one that nobody feeds, and while the
// broker is away.
func TestReadinessOfSlots(t *testing.T) {
	s := newSystem(t, parts{})
	s.feed()
	s.job()
	s.exec("hello", `{"target":{"all":true}}`)
	s.read("/api/jobs")
	last := s.lastSeq()
	schema := readmodel.SchemaID()
	ask := func(want int) (r ready) {
		t.Helper()
		a := s.do(http.MethodGet, "/readyz", "")
		require.Equal(t, want, a.status, a.text())
		a.status = http.StatusOK
		a.into(t, &r)
		require.Equal(t, schema, r.ReadModel.Schema)
		require.Len(t, r.ReadModel.Slots, 2)
		return r
	}
	r := ask(http.StatusOK)
	require.True(t, r.Ready)
	fed, still := r.ReadModel.Slots[0], r.ReadModel.Slots[1]
	require.Contains(t, fed.File, "model-"+schema)
	require.Equal(t, []any{"slot-0", true, true, last, uint64(0)}, []any{fed.Slot, fed.Served, fed.Asked, fed.AppliedSequence, *fed.Lag})
	require.WithinDuration(t, time.Now(), *fed.AppliedAt, time.Minute)
	require.Less(t, *fed.AgeSecs+*fed.StillSecs, 60.0)
	require.Equal(t, []any{"slot-1", true, false, uint64(0), last}, []any{still.Slot, still.Served, still.Asked, still.AppliedSequence, *still.Lag})
	require.Nil(t, still.AgeSecs, "it shows nothing")
	require.NotNil(t, still.StillSecs)

	metric := func(name, slot string) string {
		return fmt.Sprintf(`kanade_read_model_%s{schema="%s",served="true",slot="%s"} `, name, schema, slot)
	}
	shown := s.do(http.MethodGet, "/metrics", "").text()
	for _, line := range []string{
		metric("applied_sequence", "slot-0") + fmt.Sprint(last), metric("lag_messages", "slot-0") + "0", metric("applied_sequence", "slot-1") + "0",
		metric("lag_messages", "slot-1") + fmt.Sprint(last), metric("age_seconds", "slot-1") + "NaN",
	} {
		require.Contains(t, shown, line+"\n")
	}
	for _, part := range []string{metric("age_seconds", "slot-0"), metric("still_seconds", "slot-0"), metric("still_seconds", "slot-1")} {
		require.Contains(t, shown, part)
	}

	s.broker.Shutdown()
	require.Eventually(t, func() bool { return !s.bus.Connected() }, 5*time.Second, time.Millisecond)
	fed = ask(http.StatusServiceUnavailable).ReadModel.Slots[0]
	require.Nil(t, fed.Lag, "nobody knows")
	require.NotNil(t, fed.AgeSecs)
	require.Contains(t, s.do(http.MethodGet, "/metrics", "").text(), metric("lag_messages", "slot-0")+"NaN\n")
}

// The position of a copy that nobody feeds stands still, that of another one moves.
func TestSlotStandsStill(t *testing.T) {
	s := newSystem(t, parts{})
	s.feed()
	s.job()
	s.read("/api/jobs")
	at := func(slot int) (seconds float64) {
		var r ready
		s.do(http.MethodGet, "/readyz", "").into(t, &r)
		return *r.ReadModel.Slots[slot].StillSecs
	}
	require.Eventually(t, func() bool {
		s.exec("hello", `{"target":{"all":true}}`)
		s.read("/api/executions")
		return at(0)+0.2 < at(1)
	}, 10*time.Second, 50*time.Millisecond)
}
