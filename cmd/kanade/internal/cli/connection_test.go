package cli

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// The token of the data directory goes to this machine alone.
func TestTokenStaysOnThisMachine(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("other systems, other places")
	}
	dir := t.TempDir()
	t.Setenv("XDG_DATA_HOME", dir)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "kanade"), 0o700))
	path := filepath.Join(dir, "kanade", "api-token")
	require.NoError(t, os.WriteFile(path, []byte("secret\n"), 0o600))
	for url, want := range map[string]string{
		"http://127.0.0.1:8080": "secret", "http://localhost:1": "secret", "http://[::1]:8080": "secret",
		"http://192.0.2.1:8080": "", "http://localhost.example": "", "http://127.0.0.1.example": "", "http://[::1": "",
	} {
		token, source, err := (&connection{BackendURL: url}).token()
		require.NoError(t, err)
		require.Equal(t, want, token, url)
		if want != "" {
			require.Equal(t, path, source)
		}
	}
}
