package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/backup"
	"kanade/cmd/kanade/internal/cli"
	"kanade/cmd/kanade/internal/up"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

// A backup of a running system becomes another one in an empty data directory, with jobs, results and the groups of
// endpoints.
func TestBackupAndRestore(t *testing.T) {
	s := system(t)
	t.Setenv("KANADE_NATS_URL", s.BrokerURL)
	manifest := file(t, "hello.yaml", "id: hello\nversion: \"1\"\nexecute: {shell: sh, script: echo hello, timeout: 30s}\n")
	ok(t, "job", "create", manifest)
	ok(t, "group", "add", "g", pc)
	require.Contains(t, ok(t, "exec", "hello", "--pc", pc, "--wait"), "succeeded: 1 succeeded")
	before := ok(t, "result", "list", "--json")

	dir := filepath.Join(t.TempDir(), "backup")
	r := kanade(t, "backup", dir)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "refuses the token")
	require.Contains(t, r.err, "--nats-token-file")
	t.Setenv("KANADE_NATS_TOKEN_FILE", s.Home.Path("broker-token"))
	require.Regexp(t, `^backup of \d+ streams, \d+\.\d MB, the log up to \d+, taken in .*: `, ok(t, "backup", dir))
	r = kanade(t, "backup", dir)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, dir+": it is not empty")

	r = kanade(t, "restore", dir)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "the broker is not empty, it holds DEAD, EXEC, KV_")
	r = kanade(t, "restore", dir, "--data", s.Home.Dir)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "in use by another process")

	data := filepath.Join(t.TempDir(), "data")
	out := ok(t, "restore", dir, "--data", data)
	require.Regexp(t, `^restored \d+ streams, \d+\.\d MB, the log up to \d+, as of 20`, out)
	require.Contains(t, out, filepath.Join(data, "readmodel"))
	other, err := up.Start(t.Context(), up.Config{
		Data: data, Listen: "127.0.0.1:0", NATSListen: "127.0.0.1:0", Agent: true, PC: pc, Log: bustest.Logger(t).Handler(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, other.Stop()) })
	t.Setenv("KANADE_BACKEND_URL", other.URL)
	t.Setenv("KANADE_AUTH_TOKEN_FILE", other.Home.Path("api-token"))
	require.JSONEq(t, before, ok(t, "result", "list", "--json"))
	require.Contains(t, ok(t, "job", "list"), "hello")
	require.Contains(t, ok(t, "group", "list"), pc)
	require.Contains(t, ok(t, "exec", "hello", "--group", "g", "--wait"), "succeeded: 1 succeeded")
}

func TestRestoreWithoutBroker(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	var says bytes.Buffer
	require.Equal(t, 1, cli.Run(ctx, []string{"restore", t.TempDir(), "--nats-url", "nats://127.0.0.1:1"}, io.Discard, &says))
	require.Contains(t, says.String(), "no broker answers at nats://127.0.0.1:1; name it with --nats-url")
	require.Contains(t, says.String(), "name that with --data")
}

// The manifest says what is in a backup.
func TestBackupAsJSON(t *testing.T) {
	s := system(t)
	dir := filepath.Join(t.TempDir(), "backup")
	printed := okJSON[backup.Manifest](t, "backup", dir, "--nats-url", s.BrokerURL, "--nats-token-file", s.Home.Path("broker-token"))
	text, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	require.NoError(t, err)
	var stored backup.Manifest
	require.NoError(t, json.Unmarshal(text, &stored))
	require.Equal(t, stored.TakenAt, printed.TakenAt)
	require.Equal(t, stored.Of(events.StreamLog).SHA256, printed.Of(events.StreamLog).SHA256)
	require.NotEmpty(t, stored.Durables)
}
