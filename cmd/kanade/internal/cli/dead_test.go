package cli_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/client"
	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
)

// What can't be read is listed, shown and retried; the copy, as bad as the first, is parked as well.
func TestDead(t *testing.T) {
	s := system(t)
	token, err := os.ReadFile(s.Home.Path("broker-token"))
	require.NoError(t, err)
	b, err := bus.Connect(t.Context(), bus.Config{URL: s.BrokerURL, Token: strings.TrimSpace(string(token)), Name: "test", Logger: bustest.Logger(t)})
	require.NoError(t, err)
	defer b.Close()
	letters := func(n int) (rows []client.Letter) {
		t.Helper()
		require.Eventually(t, func() bool {
			rows = okJSON[[]client.Letter](t, "dead", "list", "--handler", "projector")
			return len(rows) >= n
		}, 10*time.Second, time.Millisecond)
		require.Len(t, rows, n)
		return rows
	}
	require.Equal(t, "DEAD  PARKED  HANDLER  FROM  SUBJECT  RETRIED  REASON\n", ok(t, "dead", "list"))
	for _, body := range []string{"poison\x1b[2J", "\xff\xfe"} {
		_, err := b.JetStream().Publish(t.Context(), "events.started.e1.pc-01", []byte(body))
		require.NoError(t, err)
		letters(map[bool]int{true: 1, false: 2}[strings.HasPrefix(body, "poison")])
	}
	rows := letters(2)
	text, bytes := fmt.Sprint(rows[1].Sequence), fmt.Sprint(rows[0].Sequence)
	require.Regexp(t, `(?m)^`+text+` +\S+ \S+ +projector +LOG \d+ +events\.started\.e1\.pc-01 +- +decode`, ok(t, "dead", "list"))
	require.Len(t, okJSON[[]client.Letter](t, "dead", "list", "--limit", "1"), 1)
	require.Empty(t, okJSON[[]client.Letter](t, "dead", "list", "--limit", "0"))
	shown := ok(t, "dead", "show", text)
	require.Contains(t, shown, "  body:\n    poison[2J\n")
	require.Contains(t, shown, "events.started.e1.pc-01")
	require.Contains(t, ok(t, "dead", "show", bytes), "2 bytes that are no text; --json prints them as base64")
	require.Equal(t, "//4=", *okJSON[client.Letter](t, "dead", "show", bytes).Body)

	require.Regexp(t, `^dead letter `+text+` is appended anew \(log \d+\)\n$`, ok(t, "dead", "retry", text))
	require.Contains(t, ok(t, "dead", "show", text), " by user:service-token")
	copied := letters(3)[0]
	require.Equal(t, text, okJSON[client.Letter](t, "dead", "show", fmt.Sprint(copied.Sequence)).Headers[bus.HeaderRetryOf])
	again := okJSON[[]client.Retried](t, "dead", "retry", text)
	require.Equal(t, []client.Retried{{DeadSequence: rows[1].Sequence, Sequence: copied.StreamSequence, Again: true}}, again)

	r := kanade(t, "dead", "retry", "99", text)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.out, "had been retried before: it is in the log once")
	require.Contains(t, r.err, "dead letter 99 not found")
	require.Contains(t, r.err, "kanade dead list")
}
