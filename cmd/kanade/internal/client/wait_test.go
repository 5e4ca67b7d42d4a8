package client

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The API holds some requests on purpose, for longer than an answer may otherwise take to begin.
func TestDoWaitsForWhatTheAPIHolds(t *testing.T) {
	held := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-held:
		case <-r.Context().Done():
		}
	}))
	defer s.Close()
	c, err := New(s.URL, "", "")
	require.NoError(t, err)
	defer c.Close()
	bound := c.http.Transport.(*http.Transport)
	bound.ResponseHeaderTimeout = time.Nanosecond

	_, err = c.Do(t.Context(), Request{Method: http.MethodPost, Path: "/x"})
	var unreachable *Unreachable
	require.ErrorAs(t, err, &unreachable)

	close(held)
	_, err = c.Do(t.Context(), Request{Method: http.MethodPost, Path: "/x", Wait: time.Minute})
	require.NoError(t, err)
	require.Equal(t, time.Nanosecond, bound.ResponseHeaderTimeout)
}
