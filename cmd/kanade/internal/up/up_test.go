package up_test

import (
	"context"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/home"
	"kanade/cmd/kanade/internal/up"
	"kanade/libs/bus/bustest"
)

func TestMain(m *testing.M) { bustest.Main(m) }

func start(t *testing.T, dir string) *up.System {
	t.Helper()
	s, err := up.Start(t.Context(), up.Config{
		Data: dir, Listen: "127.0.0.1:0", NATSListen: "127.0.0.1:0", Agent: true, PC: "pc-01", Log: bustest.Logger(t).Handler(),
	})
	require.NoError(t, err)
	return s
}

func status(t *testing.T, s *up.System, path, token string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
	require.NoError(t, err)
	r.Close = true
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(body)
}

// Systems share nothing: two at once, and one after the other on the same data.
func TestStartStop(t *testing.T) {
	dir := t.TempDir()
	other := start(t, t.TempDir())
	for range 3 {
		s := start(t, dir)
		_, err := home.Open(dir)
		require.ErrorIs(t, err, home.ErrInUse)
		code, _ := status(t, s, "/api/jobs", s.Home.APIToken)
		require.Equal(t, http.StatusOK, code)
		code, _ = status(t, s, "/api/jobs", "")
		require.Equal(t, http.StatusUnauthorized, code, "the token is demanded on loopback too")
		code, _ = status(t, s, "/api/jobs", other.Home.APIToken)
		require.Equal(t, http.StatusUnauthorized, code)
		_, metrics := status(t, s, "/metrics", "")
		for _, part := range []string{"api", "projector", "scheduler", "agent"} {
			require.Contains(t, metrics, `kanade_broker_connected{connection="kanade-`+part+`"} 1`)
		}
		require.NoError(t, s.Stop())
		require.NoError(t, s.Stop())
	}
	require.NoError(t, other.Stop())
}

func TestStartIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	_, err := up.Start(ctx, up.Config{Data: dir, Listen: "127.0.0.1:0", NATSListen: "127.0.0.1:0", Agent: true})
	require.ErrorIs(t, err, context.Canceled)
	h, err := home.Open(dir) // it has given the directory up
	require.NoError(t, err)
	require.NoError(t, h.Close())
}
