package process

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func TestSecret(t *testing.T) {
	file, empty := filepath.Join(t.TempDir(), "token"), filepath.Join(t.TempDir(), "empty")
	require.NoError(t, os.WriteFile(file, []byte(" s3cret\n"), 0o600))
	require.NoError(t, os.WriteFile(empty, []byte("\n"), 0o600))
	for _, c := range []struct{ value, file, want, err string }{
		{"", "", "", ""},
		{"x", "", "x", ""},
		{"", file, "s3cret", ""},
		{"x", file, "", "give one"},
		{"", empty, "", "is empty"},
		{"", file + "-gone", "", "no such file"},
	} {
		got, err := Secret("KANADE_TOKEN", c.value, c.file)
		require.Equal(t, c.want, got)
		if c.err == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, c.err)
			require.ErrorContains(t, err, "KANADE_TOKEN")
		}
	}
}

func TestHealth(t *testing.T) {
	l, err := Listen("127.0.0.1:0", "--listen")
	require.NoError(t, err)
	_, err = Listen(l.Addr().String(), "--listen")
	require.ErrorContains(t, err, "is in use by another process; choose another with --listen")
	var ready atomic.Bool
	h := Health{Metrics: prometheus.NewRegistry(), Ready: func(context.Context) (any, bool) {
		return map[string]bool{"caught_up": ready.Load()}, ready.Load()
	}}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- h.Serve(ctx, l) }()
	require.ErrorContains(t, Healthcheck(t.Context(), l.Addr().String()), `"caught_up":false`)
	ready.Store(true)
	require.NoError(t, Healthcheck(t.Context(), l.Addr().String()))
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	require.NoError(t, Healthcheck(t.Context(), "0.0.0.0:"+port), "an address of all interfaces is asked on this machine")
	cancel()
	require.NoError(t, <-served)
	require.Error(t, Healthcheck(t.Context(), l.Addr().String()))
	require.ErrorContains(t, Healthcheck(t.Context(), ""), "address")
}

type config struct {
	Listen string `name:"listen" env:"TEST_LISTEN" default:"127.0.0.1:1" help:"Address."`
	Token  string `name:"token" env:"TEST_TOKEN" help:"Token."`
}

func TestMainReadsFlagsAndEnvironment(t *testing.T) {
	t.Setenv("TEST_TOKEN", "from-env")
	var got config
	s := Service[config]{
		Name: "test", Run: func(_ context.Context, c config) error { got = c; return nil },
		Listen: func(c config) string { return c.Listen },
	}
	require.Equal(t, 0, s.Main([]string{"--listen", "127.0.0.1:2"}))
	require.Equal(t, config{Listen: "127.0.0.1:2", Token: "from-env"}, got)
	require.Equal(t, 2, s.Main([]string{"--no-such-flag"}))
	require.Equal(t, 1, s.Main([]string{"healthcheck"}), "nobody listens there")
	s.Run = func(context.Context, config) error { return os.ErrPermission }
	require.Equal(t, 1, s.Main(nil))
}

func TestTracingIsOffUnlessAsked(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	stop, err := Tracing(t.Context(), "test")
	require.NoError(t, err)
	require.NoError(t, stop(t.Context()))
}
