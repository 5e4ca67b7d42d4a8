//go:build unix

package executor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"kanade/services/agent/internal/domain"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func run(t *testing.T, ctx context.Context, s domain.Script) (domain.Exit, string, string, error) {
	t.Helper()
	p, err := New(filepath.Join(t.TempDir(), "scripts"))
	require.NoError(t, err)
	if s.Shell == "" {
		s.Shell = "sh"
	}
	var stdout, stderr bytes.Buffer
	exit, err := p.Run(ctx, "r1", s, []string{"KANADE_PC_ID=pc-01"}, &stdout, &stderr)
	left, readErr := os.ReadDir(p.dir)
	require.NoError(t, readErr)
	require.Empty(t, left, "script files")
	return exit, stdout.String(), stderr.String(), err
}

func TestRun(t *testing.T) {
	t.Setenv("KANADE_NATS_TOKEN", "secret")
	dir := t.TempDir()
	for name, c := range map[string]struct {
		script         domain.Script
		code           int
		stdout, stderr string
	}{
		"output and code":  {domain.Script{Body: "echo out; echo err >&2; exit 7"}, 7, "out\n", "err\n"},
		"arguments":        {domain.Script{Body: `echo "$1|$2"`, Args: []string{"a b", "$c"}}, 0, "a b|$c\n", ""},
		"input":            {domain.Script{Body: "cat", Stdin: "hello"}, 0, "hello", ""},
		"no input":         {domain.Script{Body: "cat; echo end"}, 0, "end\n", ""},
		"environment":      {domain.Script{Body: `echo "$A $KANADE_PC_ID"`, Env: map[string]string{"A": "b"}}, 0, "b pc-01\n", ""},
		"no secrets":       {domain.Script{Body: `echo "<$KANADE_NATS_TOKEN>"`}, 0, "<>\n", ""},
		"directory":        {domain.Script{Body: "pwd -P", Cwd: dir}, 0, resolve(t, dir) + "\n", ""},
		"command unknown":  {domain.Script{Body: "exec 2>/dev/null; no-such-command"}, 127, "", ""},
		"a megabyte of it": {domain.Script{Body: "echo a\n" + strings.Repeat("# padding\n", 100_000) + "echo b\n"}, 0, "a\nb\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			exit, stdout, stderr, err := run(t, t.Context(), c.script)
			require.NoError(t, err)
			require.Equal(t, domain.Exit{Code: c.code}, exit)
			require.Equal(t, c.stdout, stdout)
			require.Equal(t, c.stderr, stderr)
		})
	}
}

func resolve(t *testing.T, dir string) string {
	real, err := filepath.EvalSymlinks(dir)
	require.NoError(t, err)
	return real
}

func TestCannotStart(t *testing.T) {
	_, _, _, err := run(t, t.Context(), domain.Script{Body: "true", Cwd: "/no/such/directory"})
	require.ErrorContains(t, err, "/no/such/directory")
	require.ErrorIs(t, err, domain.ErrNotStarted)
	_, _, _, err = run(t, t.Context(), domain.Script{Body: "true", Shell: "cmd"})
	require.ErrorContains(t, err, `"cmd"`)
	require.ErrorIs(t, err, domain.ErrNotStarted)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	_, stdout, _, err := run(t, done, domain.Script{Body: "echo ran"})
	require.ErrorIs(t, err, domain.ErrNotStarted)
	require.Empty(t, stdout)
}

func TestEndedBySignal(t *testing.T) {
	exit, _, _, err := run(t, t.Context(), domain.Script{Body: "kill -TERM $$"})
	require.NoError(t, err)
	require.Equal(t, domain.Exit{Signal: "terminated"}, exit)
}

// A kill reaches the script's descendants, and the result does not wait for them.
func TestKillReachesGrandchildren(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begun := time.Now()
	exit, stdout, _, err := run(t, ctx, domain.Script{Body: fmt.Sprintf("(sleep 600 & echo $! >%s; wait) & echo begun; wait", pidFile)})
	require.NoError(t, err)
	require.Equal(t, domain.Exit{Signal: "killed"}, exit)
	require.Equal(t, "begun\n", stdout)
	require.Less(t, time.Since(begun), 1300*time.Millisecond)
	text, err := os.ReadFile(pidFile)
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return gone(pid) }, 2*time.Second, 10*time.Millisecond)
}

// gone: the process has ended; that nobody has asked for its exit code (a container without an init) does not count.
func gone(pid int) bool {
	if syscall.Kill(pid, 0) == syscall.ESRCH {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

// What a script leaves running on purpose stays, and does not hold the result although it keeps the output open.
func TestLeftBehindDoesNotHoldTheResult(t *testing.T) {
	begun := time.Now()
	exit, stdout, _, err := run(t, t.Context(), domain.Script{Body: "sleep 600 & echo $!"})
	require.NoError(t, err)
	require.Equal(t, domain.Exit{}, exit)
	require.Less(t, time.Since(begun), 2*time.Second)
	pid, err := strconv.Atoi(strings.TrimSpace(stdout))
	require.NoError(t, err)
	require.False(t, gone(pid))
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
}

func TestSupports(t *testing.T) {
	p, err := New(t.TempDir() + "/scripts")
	require.NoError(t, err)
	require.True(t, p.Supports("sh"))
	require.False(t, p.Supports("cmd"))
	t.Setenv("PATH", t.TempDir())
	require.False(t, p.Supports("pwsh"))
}
