package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/client"
)

func tell(w http.ResponseWriter, seq int, size int) {
	fmt.Fprintf(w, ": still there\n\nid: %d\nevent: kanade.exec.requested.v1\ndata: {\"sequence\":%d,\"type\":\"kanade.exec.requested.v1\",\"data\":%q}\n\n",
		seq, seq, strings.Repeat("x", size))
}

// The stream is cut after every second event, and in the middle of one.
func TestFollowTakesUpTheStreamAgain(t *testing.T) {
	var opened []string
	c := api(t, func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "e1", r.URL.Query().Get("exec"))
		opened = append(opened, r.URL.Query().Get("from")+"/"+r.Header.Get("Last-Event-ID"))
		next, _ := strconv.Atoi(r.Header.Get("Last-Event-ID"))
		if len(opened) == 2 {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
			return
		}
		tell(w, next+1, 100<<10)
		tell(w, next+2, 1)
		fmt.Fprintf(w, "id: %d\ndata: {\"seq", next+3)
	})
	var seen []uint64
	breaks := 0
	err := c.Follow(t.Context(), client.Filter{From: 1, Exec: "e1"}, func(error) { breaks++ }, func(e client.Event, raw []byte) (bool, error) {
		require.Equal(t, "kanade.exec.requested.v1", e.Type)
		require.NotEmpty(t, raw)
		seen = append(seen, e.Sequence)
		return len(seen) < 4, nil
	})
	require.NoError(t, err)
	require.Equal(t, []uint64{1, 2, 3, 4}, seen)
	require.Equal(t, []string{"1/", "1/2", "1/2"}, opened)
	require.Equal(t, 2, breaks)
}

func TestFollowEnds(t *testing.T) {
	stop := errors.New("enough of this")
	status := http.StatusOK
	c := api(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		tell(w, 1, 1)
	})
	follow := func(ctx context.Context, fn func(client.Event, []byte) (bool, error)) error {
		return c.Follow(ctx, client.Filter{}, nil, fn)
	}
	require.ErrorIs(t, follow(t.Context(), func(client.Event, []byte) (bool, error) { return true, stop }), stop)

	ctx, cancel := context.WithCancel(t.Context())
	require.ErrorIs(t, follow(ctx, func(client.Event, []byte) (bool, error) { cancel(); return true, nil }), context.Canceled)

	status = http.StatusUnauthorized
	var refused *client.Refused
	require.ErrorAs(t, follow(t.Context(), nil), &refused)
}

func TestCopy(t *testing.T) {
	c := api(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/whole":
			_, _ = io.WriteString(w, strings.Repeat("x", 1<<20))
		case "/broken":
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "x")
		default:
			w.Header().Set("Kanade-Applied-Sequence", "7")
			http.Error(w, "not here", http.StatusNotFound)
		}
	})
	var b bytes.Buffer
	require.NoError(t, c.Copy(t.Context(), client.Request{Method: "GET", Path: "/whole"}, &b))
	require.Equal(t, 1<<20, b.Len())
	var refused *client.Refused
	require.ErrorAs(t, c.Copy(t.Context(), client.Request{Method: "GET", Path: "/nothing"}, &b), &refused)
	require.EqualValues(t, 7, refused.Sequence)
	var unreachable *client.Unreachable
	require.ErrorAs(t, c.Copy(t.Context(), client.Request{Method: "GET", Path: "/broken"}, &b), &unreachable)
	full, w := io.Pipe()
	require.NoError(t, full.Close())
	require.ErrorIs(t, c.Copy(t.Context(), client.Request{Method: "GET", Path: "/whole"}, w), io.ErrClosedPipe)
}
