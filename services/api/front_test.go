package api

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus/bustest"
)

// Before the broker has been reached every request is answered at once, with a reason.
func TestAnswersBeforeTheBrokerIsThere(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{NATSURL: "nats://127.0.0.1:1", AuthToken: "x", ReadModelDir: t.TempDir()},
			Deps{Listener: l, Logger: bustest.Logger(t)})
	}()
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/api/jobs": 503} {
		answer, err := http.Get("http://" + l.Addr().String() + path)
		require.NoError(t, err)
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Equal(t, want, answer.StatusCode, path)
		if want == 503 {
			require.Contains(t, string(body), "has not reached the broker")
		}
	}
	cancel()
	require.NoError(t, <-ended)
	http.DefaultClient.CloseIdleConnections()
}
