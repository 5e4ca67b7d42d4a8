package home_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/home"
)

func TestLogPutsAFullFileAside(t *testing.T) {
	h, err := home.Open(t.TempDir())
	require.NoError(t, err)
	defer h.Close()
	size := func(name string) int64 {
		info, err := os.Stat(h.Path(name))
		if err != nil {
			return -1
		}
		return info.Size()
	}
	megabyte := bytes.Repeat([]byte("x"), 1<<20)
	l, err := h.Log()
	require.NoError(t, err)
	for range 9 {
		_, err = l.Write(megabyte)
		require.NoError(t, err)
	}
	require.NoError(t, l.Close())

	l, err = h.Log() // goes on where the file ended
	require.NoError(t, err)
	defer l.Close()
	_, err = l.Write(megabyte)
	require.NoError(t, err)
	require.EqualValues(t, -1, size("kanade.log.old"))
	_, err = l.Write(megabyte)
	require.NoError(t, err)
	require.EqualValues(t, 10<<20, size("kanade.log.old"))
	require.EqualValues(t, 1<<20, size("kanade.log"))
}
