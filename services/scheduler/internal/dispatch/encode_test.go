package dispatch

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/catalog/fanout"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// A page is bounded by commands and by bytes, so that a long script to many endpoints does not fill the memory.
func TestPagesAreBounded(t *testing.T) {
	commands := func(n, size int) []fanout.Command {
		all := make([]fanout.Command, n)
		for i := range all {
			all[i].Body = wire.Command{
				ID: "j", RequestID: "r", Shell: wire.ShellSh, Script: strings.Repeat("x", size), RunAs: wire.RunAsSystem,
				Staleness: wire.Staleness{Mode: wire.StalenessCached},
			}
		}
		return all
	}
	messages, err := encode(t.Context(), commands(3*page, 10), time.Now())
	require.NoError(t, err)
	require.Len(t, messages, page)
	messages, err = encode(t.Context(), commands(100, 1<<20), time.Now())
	require.NoError(t, err)
	require.Len(t, messages, pageBytes>>20)
	_, err = encode(t.Context(), commands(1, events.MaxPayload), time.Now())
	require.True(t, bus.IsPermanent(err), err)
}

// What goes out is what the encoder of the wire makes of each command.
func TestCommandsAreEncodedWhole(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	base := wire.Command{
		ID: `j"request_id":""`, Version: `"request_id":""`, ExecID: "x", Shell: wire.ShellSh, Script: `echo "request_id":""`, RunAs: wire.RunAsSystem,
		TimeoutSecs: 1, DeadlineAt: &at, Staleness: wire.Staleness{Mode: wire.StalenessCached}, Env: map[string]string{"request_id": ""},
	}
	commands := make([]fanout.Command, 3)
	for i := range commands {
		commands[i] = fanout.Command{Subject: fmt.Sprint("s", i), MessageID: fmt.Sprint("m", i), Body: base}
		commands[i].Body.RequestID = fanout.RequestID("x", fmt.Sprint(i))
	}
	messages, err := encode(t.Context(), commands, time.Now())
	require.NoError(t, err)
	require.Len(t, messages, len(commands))
	for i, c := range commands {
		want, err := c.Body.MarshalJSON()
		require.NoError(t, err)
		require.Equal(t, string(want), string(messages[i].Data))
		require.Equal(t, c.Subject, messages[i].Subject)
		require.Equal(t, c.MessageID, messages[i].Header.Get(events.HeaderMsgID))
	}
	messages, err = encode(t.Context(), nil, time.Now())
	require.NoError(t, err)
	require.Empty(t, messages)
}
