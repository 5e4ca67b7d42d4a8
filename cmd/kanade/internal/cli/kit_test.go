package cli_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/cli"
	"kanade/cmd/kanade/internal/up"
	"kanade/libs/bus/bustest"
)

func TestMain(m *testing.M) {
	for _, name := range []string{
		"KANADE_BACKEND_URL", "KANADE_AUTH_TOKEN", "KANADE_AUTH_TOKEN_FILE", "KANADE_AGENT_ID",
		"KANADE_NATS_URL", "KANADE_NATS_TOKEN", "KANADE_NATS_TOKEN_FILE",
	} {
		os.Unsetenv(name)
	}
	bustest.Main(m)
}

// pc is the agent's id in these tests.
const pc = "pc-01"

// system starts a whole kanade and lets the command line find it.
func system(t *testing.T) *up.System {
	t.Helper()
	s, err := up.Start(t.Context(), up.Config{
		Data: filepath.Join(t.TempDir(), "data"), Listen: "127.0.0.1:0", NATSListen: "127.0.0.1:0", Agent: true, PC: pc,
		Log: bustest.Logger(t).Handler(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Stop()) })
	t.Setenv("KANADE_BACKEND_URL", s.URL)
	t.Setenv("KANADE_AUTH_TOKEN_FILE", s.Home.Path("api-token"))
	return s
}

type ran struct {
	code     int
	out, err string
}

// kanade runs a command line.
func kanade(t *testing.T, args ...string) ran {
	t.Helper()
	var out, err bytes.Buffer
	code := cli.Run(t.Context(), args, &out, &err)
	return ran{code, out.String(), err.String()}
}

// ok runs a command line that succeeds, and gives what it printed.
func ok(t *testing.T, args ...string) string {
	t.Helper()
	r := kanade(t, args...)
	require.Zero(t, r.code, "%s%s", r.out, r.err)
	require.Empty(t, r.err)
	return r.out
}

// okJSON decodes what a command line prints with --json.
func okJSON[T any](t *testing.T, args ...string) (v T) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(ok(t, append(args, "--json")...)), &v))
	return v
}

// file writes a file and gives its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}
