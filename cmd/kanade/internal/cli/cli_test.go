package cli_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/cli"
)

// nowhere is an address where nobody listens.
func nowhere(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return "http://" + l.Addr().String()
}

func TestNobodyListens(t *testing.T) {
	t.Setenv("KANADE_BACKEND_URL", nowhere(t))
	for _, args := range []string{"job list", "exec hello --all --wait", "kill e1", "job kill a", "exec show e1 --watch", "run pc-01 -- true", "freeze clear", "group add g pc-01 pc-02", "events tail"} {
		r := kanade(t, strings.Fields(args)...)
		require.Equal(t, 1, r.code)
		require.Empty(t, r.out)
		require.Contains(t, r.err, "kanade: nothing listens at http://127.0.0.1:")
		require.Contains(t, r.err, "kanade up")
	}
}

func TestUsage(t *testing.T) {
	tests := []struct{ args, says string }{
		{"nonsense", "unexpected argument nonsense"},
		{"exec", "see `kanade exec"},
		{"exec hello", "Say --all, --group GROUP or --pc PC"},
		{"exec hello --all --timeout soon", "--timeout"},
		{"exec hello --all --wave group=a,x", "expected parts like group=canary"},
		{"kill", "see `kanade kill --help`"},
		{"run pc-01", "see `kanade run --help`"},
		{"retry e1 --timeout soon", "--timeout"},
		{"exec list --status odd", "--status must be one of"},
		{"job create", "see `kanade job create --help`"},
		{"job list --backend-url ftp://x", "expected http://host:port"},
		{"job list --backend-url 127.0.0.1:8080", "http:// is missing: did you mean http://127.0.0.1:8080?"},
		{"job list --backend-url localhost:8080", "did you mean http://localhost:8080?"},
		{"up --once", "--once needs --demo"},
		{"up --demo --no-agent", "leave --no-agent out"},
		{"broker", "--config"},
		{"completion tcsh", "must be one of"},
		{"job list --auth-token-file /nothing", "read the API's token"},
	}
	for _, test := range tests {
		r := kanade(t, strings.Fields(test.args)...)
		require.Equal(t, 1, r.code, test.args)
		require.Empty(t, r.out, test.args)
		require.Contains(t, r.err, test.says, test.args)
	}
}

func TestHelp(t *testing.T) {
	require.Contains(t, ok(t), "Usage: kanade <command>")
	require.Contains(t, ok(t, "--help"), "up ")
	require.Contains(t, ok(t, "exec", "--help"), "kanade exec hello --all --wait")
	require.Contains(t, ok(t, "exec", "run", "--help"), "--timeout")
	require.Contains(t, ok(t, "exec", "run", "--help"), "percent=40,after,delay=30m")
	require.Contains(t, ok(t, "version"), "kanade ")
	require.Contains(t, okJSON[map[string]string](t, "version")["system"], "/")
}

func TestTokenIsFound(t *testing.T) {
	var sent []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent = append(sent, r.Header.Get("Authorization"))
		_, _ = w.Write([]byte("[]"))
	}))
	defer s.Close()
	dir := t.TempDir()
	t.Setenv("HOME", dir)
	t.Setenv("XDG_DATA_HOME", filepath.Join(dir, "data"))
	t.Setenv("LocalAppData", filepath.Join(dir, "data"))
	t.Setenv("KANADE_BACKEND_URL", s.URL)
	t.Setenv("KANADE_AUTH_TOKEN", "")
	t.Setenv("KANADE_AUTH_TOKEN_FILE", "")
	ok(t, "agent", "list") // no kanade was ever started here

	home := filepath.Join(dir, "data", "kanade")
	if runtime.GOOS == "darwin" {
		home = filepath.Join(dir, "Library", "Application Support", "kanade")
	}
	require.NoError(t, os.MkdirAll(home, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(home, "api-token"), []byte("found\n"), 0o600))
	ok(t, "agent", "list")
	ok(t, "agent", "list", "--auth-token-file", file(t, "token", "named\n"))
	t.Setenv("KANADE_AUTH_TOKEN", "given")
	ok(t, "agent", "list")
	require.Equal(t, []string{"", "Bearer found", "Bearer named", "Bearer given"}, sent)
}

func TestCompletionScripts(t *testing.T) {
	for shell, says := range map[string]string{"bash": "complete -o default", "zsh": "bashcompinit", "fish": "function __complete_kanade"} {
		require.Contains(t, ok(t, "completion", shell), says)
	}
	if bash, err := exec.LookPath("bash"); err == nil {
		check := exec.Command(bash, "-n")
		check.Stdin = strings.NewReader(ok(t, "completion", "bash"))
		require.NoError(t, check.Run())
	}
}

// completes gives what a shell is told to offer after a line.
func completes(t *testing.T, line string) []string {
	t.Helper()
	t.Setenv("COMP_LINE", line)
	var out, err bytes.Buffer
	require.Zero(t, cli.Run(context.Background(), nil, &out, &err))
	require.NoError(t, os.Unsetenv("COMP_LINE"))
	return strings.Fields(out.String())
}

func TestCompletionOfWords(t *testing.T) {
	t.Setenv("KANADE_BACKEND_URL", nowhere(t))
	require.Equal(t, []string{"schedule"}, completes(t, "kanade sch"))
	require.ElementsMatch(t, []string{"create", "list", "show", "delete", "kill"}, completes(t, "kanade job "))
	require.Contains(t, completes(t, "kanade exec hello --"), "--wait")
	require.Empty(t, completes(t, "kanade job show x"))
}
