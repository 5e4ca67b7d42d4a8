package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// sse is one client of the event stream.
type sse struct {
	t      testing.TB
	lines  *bufio.Scanner
	body   io.Closer
	cancel context.CancelFunc
}

type sseEvent struct {
	id   uint64
	name string
	data map[string]any
}

func (s *system) stream(query string, headers ...string) *sse {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://api/api/events/stream"+query, nil)
	require.NoError(s.t, err)
	r.Header.Set("Authorization", "Bearer "+testToken)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	a, err := s.client.Do(r)
	require.NoError(s.t, err)
	require.Equal(s.t, http.StatusOK, a.StatusCode)
	require.Equal(s.t, "text/event-stream", a.Header.Get("Content-Type"))
	x := &sse{t: s.t, lines: bufio.NewScanner(a.Body), body: a.Body, cancel: cancel}
	x.lines.Buffer(nil, 1<<24)
	s.t.Cleanup(x.close)
	return x
}

func (x *sse) close() { x.cancel(); _ = x.body.Close() }

// next is the next event; comments are passed over.
func (x *sse) next() sseEvent {
	x.t.Helper()
	e, ok := x.read()
	require.True(x.t, ok, "the stream has ended")
	return e
}

func (x *sse) read() (e sseEvent, ok bool) {
	for x.lines.Scan() {
		name, value, _ := strings.Cut(x.lines.Text(), ": ")
		switch name {
		case "id":
			e.id, _ = strconv.ParseUint(value, 10, 64)
		case "event":
			e.name = value
		case "data":
			if err := json.Unmarshal([]byte(value), &e.data); err != nil {
				x.t.Error(err)
			}
		case "":
			if e.name != "" {
				return e, true
			}
		}
	}
	return e, false
}

func TestEventStream(t *testing.T) {
	s := newSystem(t, parts{noProjector: true})
	s.job()
	all := s.stream("?from=1")
	fresh := s.stream("")
	first := all.next()
	require.Equal(t, uint64(1), first.id)
	require.Equal(t, "kanade.job.saved.v1", first.name)
	require.Equal(t, "hello", first.data["subject"])
	require.Equal(t, "user:service-token", first.data["actor"])
	require.Equal(t, 1.0, first.data["sequence"])
	require.Equal(t, "1.0.0", first.data["data"].(map[string]any)["version"])

	e := s.exec("hello", `{"target":{"pcs":["pc-01"]}}`)
	other := s.exec("hello", `{"target":{"pcs":["pc-01"]}}`)
	require.Equal(t, e.Sequence, fresh.next().id)
	require.Equal(t, other.Sequence, fresh.next().id)
	require.Equal(t, e.Sequence, all.next().id)

	one := s.stream("?from=1&exec=" + e.ExecID)
	types := s.stream("?from=1&type=kanade.run.started.v1,undecodable")
	s.run(events.Run{PCID: "pc-01", ExecID: other.ExecID, RequestID: "x", ResultID: "x"}, "", nil, events.Output{})
	started := s.append(events.RunStarted{Run: events.Run{PCID: "pc-01", ExecID: e.ExecID, RequestID: "q", ResultID: "q"}})
	_, err := s.bus.JetStream().Publish(t.Context(), "events.started."+e.ExecID+".pc-02",
		fmt.Appendf(nil, `{"result_id":"r","request_id":"q","exec_id":%q,"pc_id":"pc-02","started_at":"2026-01-01T00:00:00Z","manifest_id":"hello","version":"1"}`, e.ExecID))
	require.NoError(t, err)
	_, err = s.bus.JetStream().Publish(t.Context(), "events.job.hello.saved", []byte("\xffgarbage"))
	require.NoError(t, err)
	require.Equal(t, e.Sequence, one.next().id)
	require.Equal(t, started, one.next().id)
	old := one.next()
	require.Equal(t, "wire.started", old.name)
	require.Equal(t, "events.started."+e.ExecID+".pc-02", old.data["subject"])
	require.NotEmpty(t, old.data["time"])

	require.Equal(t, started-1, types.next().id)
	require.Equal(t, started, types.next().id)
	broken := types.next()
	require.Equal(t, "undecodable", broken.name)
	require.Contains(t, broken.data["data"], "garbage")
	require.NotEmpty(t, broken.data["error"])

	again := s.stream("?from=1", "Last-Event-ID", fmt.Sprint(e.Sequence))
	require.Equal(t, other.Sequence, again.next().id)
}

func TestEventStreamBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, parts{noProjector: true})
		s.job()
		x := s.stream("?from=2")
		beats := 0
		began := time.Now()
		for beats < 4 && x.lines.Scan() {
			if strings.HasPrefix(x.lines.Text(), ":") {
				beats++
			}
		}
		require.InDelta(t, 45, time.Since(began).Seconds(), 1) // the first one says hello
	})
}

func TestEventStreamSurvivesTheBroker(t *testing.T) {
	s := newSystem(t, parts{noProjector: true})
	s.job()
	x := s.stream("?from=1")
	require.Equal(t, uint64(1), x.next().id)
	s.broker.Shutdown()
	require.Eventually(t, func() bool { return !s.bus.Connected() }, 10*time.Second, time.Millisecond)
	require.NoError(t, s.broker.Restart())
	require.Eventually(t, s.bus.Connected, 10*time.Second, time.Millisecond)
	require.Equal(t, s.exec("hello", `{"target":{"all":true}}`).Sequence, x.next().id)
}

// TestSlowClientHoldsNobody: one client reads nothing at all; the others see everything.
func TestSlowClientHoldsNobody(t *testing.T) {
	s := newSystem(t, parts{noProjector: true})
	s.job()
	s.stream("?from=1") // nobody reads it, and a pipe holds nothing
	const facts = 300
	var all sync.WaitGroup
	for range 20 {
		x := s.stream("?from=2")
		all.Go(func() {
			last := uint64(1)
			for range facts {
				e, ok := x.read()
				if !ok || e.id != last+1 {
					t.Errorf("got %d after %d", e.id, last)
					return
				}
				last = e.id
			}
		})
	}
	for range facts {
		s.append(events.RunStarted{Run: events.Run{PCID: "pc-01", ExecID: "x", RequestID: "x", ResultID: "x"}})
	}
	all.Wait()
}
