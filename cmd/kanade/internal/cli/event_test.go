package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/cli"
	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

// until ends a command when it has printed something.
type until struct {
	bytes.Buffer
	says string
	end  context.CancelFunc
}

func (u *until) Write(p []byte) (int, error) {
	n, err := u.Buffer.Write(p)
	if strings.Contains(u.String(), u.says) {
		u.end()
	}
	return n, err
}

func tail(t *testing.T, says string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &until{says: says, end: cancel}
	require.Zero(t, cli.Run(ctx, append([]string{"events", "tail"}, args...), out, io.Discard))
	return out.String()
}

func TestEventsTail(t *testing.T) {
	system(t)
	ok(t, "job", "create", file(t, "a.yaml", script("a", "true")))
	lines := tail(t, "job.saved", "--from", "1")
	require.Regexp(t, regexp.MustCompile(`(?m)^ +\d+  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  job\.saved +a  user:`), lines)

	short := tail(t, "job.saved", "--from", "1", "--type", "job.saved,exec.killed.v1")
	require.Contains(t, short, "  job.saved ")
	require.NotContains(t, short, "agent.seen")
	unknown := kanade(t, "events", "tail", "--type", "exec.killd")
	require.Equal(t, 1, unknown.code)
	require.Regexp(t, `--type "exec\.killd": there is no such fact; there are job\.saved, .*exec\.killed, .* and undecodable\n`, unknown.err)

	raw := tail(t, "\n", "--from", "1", "--type", "kanade.job.saved.v1", "--json")
	var e struct {
		Sequence uint64
		Type     string
		Data     struct{ ID string }
	}
	require.NoError(t, json.Unmarshal([]byte(strings.Split(raw, "\n")[0]), &e))
	require.NotZero(t, e.Sequence)
	require.Equal(t, "kanade.job.saved.v1", e.Type)
	require.Equal(t, "a", e.Data.ID)
}

// The facts of housekeeping have their lines, too.
func TestEventsTailOfHousekeeping(t *testing.T) {
	s := system(t)
	token, err := os.ReadFile(s.Home.Path("broker-token"))
	require.NoError(t, err)
	b, err := bus.Connect(t.Context(), bus.Config{URL: s.BrokerURL, Token: strings.TrimSpace(string(token)), Name: "test", Logger: bustest.Logger(t)})
	require.NoError(t, err)
	defer b.Close()
	for _, p := range []events.Payload{events.ClockTicked{ID: events.ClockID, Day: "2026-11-23"}, events.ExecReduced{ExecID: "e1"}} {
		e, err := events.New(p, events.Meta{ID: p.AggregateID(), Source: "/kanade/test", Time: time.Now(), Actor: "service:scheduler"})
		require.NoError(t, err)
		_, err = b.Append(t.Context(), e, bus.Any)
		require.NoError(t, err)
	}
	lines := tail(t, "exec.reduced", "--from", "1", "--type", "clock.ticked,exec.reduced")
	require.Regexp(t, `  clock\.ticked +day  service:scheduler\n`, lines)
	require.Regexp(t, `  exec\.reduced +e1  service:scheduler\n`, lines)
}
