package home_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/home"
)

func TestOpenKeepsTokens(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "deep", "kanade")
	h, err := home.Open(dir)
	require.NoError(t, err)
	require.Len(t, h.APIToken, 64)
	require.NotEqual(t, h.APIToken, h.BrokerToken)
	require.NoError(t, h.Close())

	again, err := home.Open(dir)
	require.NoError(t, err)
	defer again.Close()
	require.Equal(t, h.APIToken, again.APIToken)
	require.Equal(t, h.BrokerToken, again.BrokerToken)

	token, path, err := home.APIToken(dir)
	require.NoError(t, err)
	require.Equal(t, h.APIToken, token)
	require.Equal(t, filepath.Join(dir, "api-token"), path)
	token, path, err = home.BrokerToken(dir)
	require.NoError(t, err)
	require.Equal(t, h.BrokerToken, token)
	require.Equal(t, filepath.Join(dir, "broker-token"), path)
}

func TestOpenForItsOwnerAlone(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("file modes are not Windows's")
	}
	dir := filepath.Join(t.TempDir(), "kanade")
	h, err := home.Open(dir)
	require.NoError(t, err)
	defer h.Close()
	for path, mode := range map[string]os.FileMode{dir: 0o700, h.Path("api-token"): 0o600, h.Path("broker-token"): 0o600} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode().Perm(), path)
	}
}

func TestOpenTwice(t *testing.T) {
	dir := t.TempDir()
	h, err := home.Open(dir)
	require.NoError(t, err)
	_, err = home.Open(dir)
	require.ErrorIs(t, err, home.ErrInUse)
	require.ErrorContains(t, err, "pid "+strconv.Itoa(os.Getpid()))
	require.ErrorContains(t, err, "--data")

	require.NoError(t, h.Close())
	h, err = home.Open(dir)
	require.NoError(t, err)
	require.NoError(t, h.Close())
}

func TestOpenRefusesAnEmptyToken(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "api-token"), nil, 0o600))
	_, err := home.Open(dir)
	require.ErrorContains(t, err, "delete it")
	require.NoError(t, os.Remove(filepath.Join(dir, "api-token")))
	h, err := home.Open(dir) // the refused one has given the directory up
	require.NoError(t, err)
	require.NoError(t, h.Close())
}

func TestAPITokenWithoutAHome(t *testing.T) {
	token, _, err := home.APIToken(filepath.Join(t.TempDir(), "nothing"))
	require.NoError(t, err)
	require.Empty(t, token)
}

func TestDefault(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("other systems, other places")
	}
	t.Setenv("HOME", "/home/me")
	t.Setenv("XDG_DATA_HOME", "")
	dir, err := home.Default()
	require.NoError(t, err)
	require.Equal(t, "/home/me/.local/share/kanade", dir)
	t.Setenv("XDG_DATA_HOME", "/data")
	dir, err = home.Default()
	require.NoError(t, err)
	require.Equal(t, "/data/kanade", dir)
	t.Setenv("XDG_DATA_HOME", "relative")
	dir, err = home.Default()
	require.NoError(t, err)
	require.Equal(t, "/home/me/.local/share/kanade", dir)
}
