package api

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// copyLog makes a read model of what the log holds now, and closes it.
func (s *system) copyLog() {
	s.t.Helper()
	w, err := readmodel.OpenWriter(context.Background(), s.dir)
	require.NoError(s.t, err)
	for seq := uint64(1); seq <= s.lastSeq(); seq++ {
		m, found, err := s.bus.Get(context.Background(), events.StreamLog, seq)
		require.NoError(s.t, err)
		require.True(s.t, found)
		_, err = w.Apply(context.Background(), events.StreamLog, []readmodel.Message{readmodel.Message(m)})
		require.NoError(s.t, err)
	}
	require.NoError(s.t, w.Close())
}

// A broker that comes back with another log, shorter or longer than the one that the read model is of, is found out before
// anything is answered from there: a fact would be missed under the very number that its writer was told.
func TestAnotherLogIsNotAnswered(t *testing.T) {
	s := newSystem(t, parts{noProjector: true})
	s.job()
	s.exec("hello", `{"target":{"all":true}}`)
	s.copyLog()
	require.Equal(t, http.StatusOK, s.read("/api/jobs").status)

	s.broker.Shutdown()
	stores, err := filepath.Glob(filepath.Join(s.broker.StoreDir(), "*"))
	require.NoError(t, err)
	require.NotEmpty(t, stores)
	for _, path := range stores {
		require.NoError(t, os.RemoveAll(path))
	}
	require.NoError(t, s.broker.Restart())
	require.Eventually(t, func() bool { return s.bus.Ensure(t.Context(), bustest.Limits()) == nil }, 10*time.Second, time.Millisecond)

	refused := func(says string, headers ...string) {
		t.Helper()
		a := s.do(http.MethodGet, "/api/jobs", "", headers...)
		require.Equal(t, http.StatusServiceUnavailable, a.status, a.text())
		require.NotEmpty(t, a.header.Get("Retry-After"))
		require.Contains(t, a.text(), says)
		require.Contains(t, a.text(), "--rebuild")
		a = s.do(http.MethodGet, "/readyz", "")
		require.Equal(t, http.StatusServiceUnavailable, a.status)
		require.Contains(t, a.text(), says)
	}
	refused("the broker's log ends at 0")
	s.job()
	refused("the broker's log ends at 1", "Kanade-Min-Sequence", "1")
	for range 3 {
		s.exec("hello", `{"target":{"all":true}}`)
	}
	refused("the broker's log holds another fact there", "Kanade-Min-Sequence", "2")

	require.NoError(t, os.RemoveAll(filepath.Join(s.dir, "slot-0"))) // as a rebuild does in the end
	s.copyLog()
	require.Eventually(t, func() bool { return s.read("/api/jobs").status == http.StatusOK }, 10*time.Second, time.Millisecond)
	require.Equal(t, http.StatusOK, s.do(http.MethodGet, "/readyz", "").status)
}
