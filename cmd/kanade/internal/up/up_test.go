package up_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/home"
	"kanade/cmd/kanade/internal/up"
	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

func TestMain(m *testing.M) { bustest.Main(m) }

func start(t *testing.T, dir string) *up.System {
	t.Helper()
	s, err := up.Start(t.Context(), up.Config{
		Data: dir, Listen: "127.0.0.1:0", NATSListen: "127.0.0.1:0", Agent: true, PC: "pc-01", Log: bustest.Logger(t).Handler(),
	})
	require.NoError(t, err)
	return s
}

func status(t *testing.T, s *up.System, path, token string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
	require.NoError(t, err)
	r.Close = true
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	answer, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return answer.StatusCode, string(body)
}

// Systems share nothing: two at once, and one after the other on the same data.
func TestStartStop(t *testing.T) {
	dir := t.TempDir()
	other := start(t, t.TempDir())
	for range 3 {
		s := start(t, dir)
		_, err := home.Open(dir)
		require.ErrorIs(t, err, home.ErrInUse)
		code, _ := status(t, s, "/api/jobs", s.Home.APIToken)
		require.Equal(t, http.StatusOK, code)
		code, _ = status(t, s, "/api/jobs", "")
		require.Equal(t, http.StatusUnauthorized, code, "the token is demanded on loopback too")
		code, _ = status(t, s, "/api/jobs", other.Home.APIToken)
		require.Equal(t, http.StatusUnauthorized, code)
		_, metrics := status(t, s, "/metrics", "")
		for _, part := range []string{"api", "projector", "scheduler", "agent"} {
			require.Contains(t, metrics, `kanade_broker_connected{connection="kanade-`+part+`"} 1`)
		}
		require.NoError(t, s.Stop())
		require.NoError(t, s.Stop())
	}
	require.NoError(t, other.Stop())
}

// After a change of the schema it builds first, then serves: whoever asks meanwhile is told to come again or has the whole,
// and who asks when it has started has the whole. The file of the version before stays: it may be gone back to.
func TestStartAfterAnotherSchema(t *testing.T) {
	const execs = 3000
	dir := t.TempDir()
	s := start(t, dir)
	b, err := bus.Connect(t.Context(), bus.Config{URL: s.BrokerURL, Token: s.Home.BrokerToken, Name: t.Name(), Logger: bustest.Logger(t)})
	require.NoError(t, err)
	var last uint64
	for n := range execs {
		id := fmt.Sprint("e", n)
		e, err := events.New(events.ExecRequested{ExecID: id, JobID: "job", Version: "1", Plan: json.RawMessage(`{}`)},
			events.Meta{ID: events.DeriveID(id), Source: "/kanade/test", Time: time.Now().UTC(), Actor: "user:op"})
		require.NoError(t, err)
		last, err = b.Append(t.Context(), e, bus.Any)
		require.NoError(t, err)
	}
	b.Close()
	require.NoError(t, s.Stop())
	files, err := filepath.Glob(filepath.Join(dir, "readmodel", "slot-0", "model-*.db"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	before := strings.Replace(files[0], readmodel.SchemaID(), "0123456789ab", 1)
	require.NoError(t, os.Rename(files[0], before))

	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())
	applied := func() (uint64, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/api/executions?limit=1", nil)
		if err != nil {
			return 0, err
		}
		r.Close = true
		r.Header.Set("Authorization", "Bearer "+s.Home.APIToken)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return 0, err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return 0, errors.New(answer.Status)
		}
		return strconv.ParseUint(answer.Header.Get("Kanade-Applied-Sequence"), 10, 64)
	}
	started, refused := make(chan struct{}), 0
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			select {
			case <-started:
				return
			default:
			}
			if at, err := applied(); err != nil {
				refused++
			} else if at < last {
				t.Errorf("answered as of %d of %d while it is being built", at, last)
				return
			}
		}
	})
	again, err := up.Start(t.Context(), up.Config{Data: dir, Listen: address, NATSListen: "127.0.0.1:0", Log: bustest.Logger(t).Handler()})
	require.NoError(t, err)
	at, err := applied()
	require.NoError(t, err)
	require.GreaterOrEqual(t, at, last)
	close(started)
	asking.Wait()
	require.Positive(t, refused, "nobody has asked while it was being built")
	require.FileExists(t, before)
	require.NoError(t, again.Stop())
}

func TestStartIsInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	_, err := up.Start(ctx, up.Config{Data: dir, Listen: "127.0.0.1:0", NATSListen: "127.0.0.1:0", Agent: true})
	require.ErrorIs(t, err, context.Canceled)
	h, err := home.Open(dir) // it has given the directory up
	require.NoError(t, err)
	require.NoError(t, h.Close())
}
