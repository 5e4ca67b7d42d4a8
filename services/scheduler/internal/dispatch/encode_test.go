package dispatch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/catalog"
	"kanade/libs/catalog/fanout"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// commands of an exec to so many endpoints with a script.
func commands(n int, script string) fanout.Commands {
	pcs := make([]string, n)
	for i := range pcs {
		pcs[i] = fmt.Sprintf("pc-%04d", i)
	}
	return fanout.CommandsOf(
		events.ExecRequested{ExecID: "x", JobID: "j", Script: events.Script{Shell: "sh", Body: script}}, &catalog.Plan{},
		events.ExecPlanned{ExecID: "x", Waves: []events.PlannedWave{{Expected: pcs}}}, events.WaveReleased{ExecID: "x"},
	)
}

// A page is bounded by commands and by bytes, so that a long script to many endpoints does not fill the memory.
func TestPagesAreBounded(t *testing.T) {
	short, err := encodeBody(wire.Command{ID: "j", Script: "x"})
	require.NoError(t, err)
	three := commands(3*page, "x")
	messages, next := short.page(t.Context(), three, page, nil, time.Now())
	require.Len(t, messages, page)
	require.Equal(t, 2*page, next)
	require.Equal(t, three.At(page).Subject, messages[0].Subject)

	long, err := encodeBody(wire.Command{ID: "j", Script: strings.Repeat("x", 1<<20)})
	require.NoError(t, err)
	messages, next = long.page(t.Context(), three, 0, nil, time.Now())
	require.Len(t, messages, pageBytes>>20)
	require.Equal(t, pageBytes>>20, next)

	_, err = encodeBody(wire.Command{ID: "j", Script: strings.Repeat("x", events.MaxPayload)})
	require.True(t, bus.IsPermanent(err), err)
}

// What was sent before is not sent again, and does not count as a page.
func TestPagesLeaveOutWhatWasSent(t *testing.T) {
	b, err := encodeBody(wire.Command{ID: "j"})
	require.NoError(t, err)
	all := commands(page+10, "x")
	sent := map[string][]uint64{}
	for i := range 10 {
		sent[all.At(i).MessageID] = []uint64{1}
	}
	messages, next := b.page(t.Context(), all, 0, sent, time.Now())
	require.Len(t, messages, page)
	require.Equal(t, page+10, next)
	messages, next = b.page(t.Context(), fanout.Commands{}, 0, nil, time.Now())
	require.Empty(t, messages)
	require.Zero(t, next)
}

// What goes out is what the encoder of the wire makes of each command.
func TestCommandsAreEncodedWhole(t *testing.T) {
	all := commands(3, `echo "request_id":""`)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	all.Body.ID, all.Body.Version, all.Body.DeadlineAt = `j"request_id":""`, `"request_id":""`, &at
	all.Body.Env = map[string]string{"request_id": ""}
	b, err := encodeBody(all.Body)
	require.NoError(t, err)
	messages, _ := b.page(t.Context(), all, 0, nil, time.Now())
	require.Len(t, messages, all.Len())
	for i, m := range messages {
		c, whole := all.At(i), all.Body
		whole.RequestID = c.RequestID
		want, err := whole.MarshalJSON()
		require.NoError(t, err)
		require.Equal(t, string(want), string(m.Data))
		require.Equal(t, c.Subject, m.Subject)
		require.Equal(t, c.MessageID, m.Header.Get(events.HeaderMsgID))
	}
}
