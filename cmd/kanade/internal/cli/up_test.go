package cli_test

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/cli"
	"kanade/cmd/kanade/internal/home"
)

// upArgs are those of a system that is in nobody's way.
func upArgs(dir string, more ...string) []string {
	return append([]string{"up", "--data", dir, "--listen", "127.0.0.1:0", "--nats-listen", "127.0.0.1:0"}, more...)
}

func TestDemoOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	out := ok(t, upArgs(dir, "--demo", "--once", "--agent-id", pc)...)
	for _, says := range []string{
		"kanade is up, in one process: broker, api, projector, scheduler, agent pc-01.", dir,
		"job       hello, from examples/jobs/", "schedule  disk-free-every-5-minutes, from examples/schedules/",
		"planned: 1 expected", "pc-01             succeeded (exit 0)", "pc-01: succeeded, exit code 0, took ",
		"  stdout:\n    Hello from ", "  exec.requested\n", "  exec.planned\n", "  run.started\n", "  run.finished\n", "  exec.closed\n",
		"The next ticks of the schedule disk-free-every-5-minutes:\n  20",
		"KANADE_BACKEND_URL", "exec disk-free --all --wait",
	} {
		require.Contains(t, out, says)
	}

	// The second run finds what the first one left.
	again := ok(t, upArgs(dir, "--demo", "--once", "--agent-id", pc)...)
	saved := func(out string) string {
		from := strings.Index(out, "  job  ")
		return out[from:strings.Index(out, "  exec  ")]
	}
	require.Equal(t, saved(out), saved(again), "the same jobs at the same place in the log")
	require.Contains(t, again, "succeeded: 1 succeeded")
}

func TestUpEndsCleanly(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		out := &until{says: "Ctrl-C ends it", end: cancel}
		require.Zero(t, cli.Run(ctx, upArgs(dir, "--no-agent"), out, io.Discard))
		cancel()
		require.Contains(t, out.String(), "no agent")
		require.Contains(t, out.String(), "Ending…")
	}
}

func TestUpSaysWhatIsInTheWay(t *testing.T) {
	dir := t.TempDir()
	h, err := home.Open(dir)
	require.NoError(t, err)
	r := kanade(t, upArgs(dir)...)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "in use by another process (pid ")
	require.NoError(t, h.Close())

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	for _, flag := range []string{"--listen", "--nats-listen"} {
		r := kanade(t, upArgs(dir, flag, l.Addr().String())...)
		require.Equal(t, 1, r.code)
		require.Contains(t, r.err, l.Addr().String())
		require.Contains(t, r.err, " with "+flag)
		require.Contains(t, r.err, "in use")
		r = kanade(t, upArgs(dir, flag, "nonsense")...)
		require.Equal(t, 1, r.code)
		require.Contains(t, r.err, flag)
	}
	path := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.Equal(t, 1, kanade(t, upArgs(filepath.Join(path, "data"))...).code)
	require.Equal(t, 1, kanade(t, upArgs(dir, "--agent-id", "a b")...).code)
}

func TestBroker(t *testing.T) {
	dir := t.TempDir()
	conf := file(t, "nats.conf", "listen: \"127.0.0.1:-1\"\nauthorization { token: secret }\njetstream { store_dir: \""+filepath.ToSlash(dir)+"\" }\n")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	says := &until{says: "broker listens at nats://127.0.0.1:", end: cancel}
	require.Zero(t, cli.Run(ctx, []string{"broker", "--config", conf}, io.Discard, says))
	require.Contains(t, says.String(), "streams are in "+filepath.ToSlash(dir))

	r := kanade(t, "broker", "--config", file(t, "bad.conf", "listen: {"))
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "bad.conf")
}
