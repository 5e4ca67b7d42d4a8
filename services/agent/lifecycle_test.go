package agent

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events/wire"
	"kanade/libs/process"
)

// Ten agents in one process, each started and stopped many times at any moment of its life, leave nothing behind and run
// every command at most once.
func TestStartStopStress(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 3
	}
	br := bustest.Broker(t)
	b := bustest.Connect(t, br)
	before := goleak.IgnoreCurrent()
	var all sync.WaitGroup
	for i := range 10 {
		exec, dir := newScripted(), t.TempDir()
		all.Go(func() {
			for round := range rounds {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(round*i)*time.Millisecond)
				publishTo(t, b, fmt.Sprintf("pc-%d", i), fmt.Sprintf("r-%d-%d", i, round))
				err := Run(ctx, Config{ID: fmt.Sprintf("pc-%d", i), Data: dir}, Deps{Bus: b, Executor: exec, Logger: bustest.Logger(t)})
				cancel()
				if err != nil {
					t.Errorf("agent %d, round %d: %v", i, round, err)
				}
			}
			for name, n := range exec.started {
				if n > 1 {
					t.Errorf("run %s was started %d times", name, n)
				}
			}
		})
	}
	all.Wait()
	goleak.VerifyNone(t, before, bustest.Ignore())
}

func publishTo(t *testing.T, b *bus.Bus, pc, request string) {
	data, err := command(request).MarshalJSON()
	if err == nil {
		_, err = b.JetStream().Publish(t.Context(), wire.SubjectCommandPC(pc), data)
	}
	if err != nil {
		t.Error(err)
	}
}

func TestHealth(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	realAgent(t, Deps{Listener: l, Executor: newScripted()})
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		res, err := http.Get("http://" + l.Addr().String() + path)
		require.NoError(t, err)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusOK, res.StatusCode)
		if path == "/metrics" {
			require.Contains(t, string(body), "kanade_agent_outbox_messages")
		}
	}
	require.NoError(t, process.Healthcheck(t.Context(), l.Addr().String()))
	require.Error(t, process.Healthcheck(t.Context(), ""))
	http.DefaultClient.CloseIdleConnections()
}

func TestConfigIsChecked(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(token, []byte("s3cret\n"), 0o600))
	for name, c := range map[string]Config{
		"id":                     {ID: "a b"},
		"heartbeat":              {ID: "a", Heartbeat: time.Millisecond},
		"limit":                  {ID: "a", Limit: -1},
		"both KANADE_NATS_TOKEN": {ID: "a", NATSToken: "x", NATSTokenFile: token},
		"data directory":         {ID: "a", Data: filepath.Join(token, "below-a-file")},
	} {
		if c.Data == "" {
			c.Data = t.TempDir()
		}
		require.ErrorContains(t, Run(t.Context(), c, Deps{}), name)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, Run(done, Config{ID: "a", Data: t.TempDir(), NATSURL: "nats://127.0.0.1:1"}, Deps{Logger: bustest.Logger(t)}),
		"stopped before the broker was there")
}
