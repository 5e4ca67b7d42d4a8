package dispatch

import (
	"strings"
	"testing"

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
	messages, err := encode(t.Context(), commands(3*page, 10))
	require.NoError(t, err)
	require.Len(t, messages, page)
	messages, err = encode(t.Context(), commands(100, 1<<20))
	require.NoError(t, err)
	require.Len(t, messages, pageBytes>>20)
	_, err = encode(t.Context(), commands(1, events.MaxPayload))
	require.True(t, bus.IsPermanent(err), err)
}
