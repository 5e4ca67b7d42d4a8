package up

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

func TestValidID(t *testing.T) {
	for name, want := range map[string]string{
		"pc-01": "pc-01", "PC.example.com": "PC.example.com", "PC.example.com.": "PC.example.com", "Anna's Mac": "Anna-s-Mac",
		"-x": "x", "päckchen": "p-ckchen", "": "this-machine", "...": "this-machine", "日本": "this-machine",
	} {
		require.Equal(t, want, validID(name), name)
	}
	require.NoError(t, events.ValidID(validID(strings.Repeat("x.", 200))))
	require.NoError(t, events.ValidID(hostID()))
}

func TestReachable(t *testing.T) {
	for address, want := range map[string]string{
		"0.0.0.0:8080": "127.0.0.1:8080", "[::]:8080": "127.0.0.1:8080", "127.0.0.1:80": "127.0.0.1:80", "192.0.2.1:80": "192.0.2.1:80", "[::1]:80": "[::1]:80",
	} {
		a, err := net.ResolveTCPAddr("tcp", address)
		require.NoError(t, err)
		require.Equal(t, want, reachable(a))
	}
}

// One service that ends, in error or not, ends the system, and Stop says which it was.
func TestServiceThatEnds(t *testing.T) {
	for _, test := range []struct {
		err  error
		says string
	}{{errors.New("disk is gone"), "projector: disk is gone"}, {nil, "projector: ended by itself"}} {
		s := &System{done: make(chan struct{}), logger: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		s.cancel = cancel
		s.run(ctx, "projector", func(context.Context) error { return test.err })
		s.run(ctx, "api", func(ctx context.Context) error { <-ctx.Done(); return nil })
		<-s.Done()
		require.EqualError(t, s.Stop(), test.says)
		require.EqualError(t, s.Stop(), test.says)
	}
}
