package client

import (
	"context"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// pipes is a listener whose connections stay in the process, so that time can be simulated.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }
func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p.conns <- server
	return client, nil
}

// A stream that sends its comments lives for ever; one that falls silent is opened anew.
func TestFollowGivesUpASilentStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened, start := 0, time.Now()
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			opened++
			w.WriteHeader(http.StatusOK)
			if opened == 1 {
				for range 20 {
					_, _ = w.Write([]byte(": still there\n\n"))
					_ = http.NewResponseController(w).Flush()
					time.Sleep(15 * time.Second) // simulated
				}
				<-r.Context().Done() // the connection hangs
				return
			}
			_, _ = w.Write([]byte("id: 1\ndata: {\"sequence\":1}\n\n"))
		})}
		l := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
		served := make(chan error)
		go func() { served <- server.Serve(l) }()
		c, err := New("http://kanade.test", "", "")
		require.NoError(t, err)
		c.http.Transport = &http.Transport{DialContext: l.dial}

		breaks := 0
		err = c.Follow(t.Context(), Filter{From: 1}, func(error) { breaks++ }, func(e Event, _ []byte) (bool, error) { return false, nil })
		require.NoError(t, err)
		require.Equal(t, 2, opened)
		require.Equal(t, 1, breaks)
		require.Equal(t, 19*15*time.Second+silence+firstPause, time.Since(start))

		c.Close()
		require.NoError(t, server.Close())
		require.ErrorIs(t, <-served, http.ErrServerClosed)
	})
}
