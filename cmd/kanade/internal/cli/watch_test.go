package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/client"
)

// stage is an API that plays one exec: each picture follows the one before when that has been asked for.
type stage struct {
	t     *testing.T
	mu    sync.Mutex
	play  []map[string]string // what the routes answer, as JSON
	scene int
	asked chan struct{} // one for each picture that was read to its end
	// away makes the API refuse the first reading of a scene.
	away map[int]int
}

func newStage(t *testing.T, play ...map[string]string) *stage {
	return &stage{t: t, play: play, asked: make(chan struct{}, 100), away: map[int]int{}}
}

func (s *stage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/api/events/stream" {
		s.stream(w, r)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	scene := s.play[s.scene]
	if status := s.away[s.scene]; status != 0 {
		delete(s.away, s.scene)
		http.Error(w, "not now", status)
		return
	}
	w.Header().Set("Kanade-Applied-Sequence", strconv.Itoa(s.scene+1))
	answer := map[string]string{
		"/api/executions/e1": `{"execution":` + scene["exec"] + `,"results":[]}`, "/api/executions": "[" + scene["exec"] + "]",
		"/api/executions/e1/waves": scene["waves"], "/api/executions/e1/failures": "[]",
	}[r.URL.Path]
	if answer == "" {
		http.NotFound(w, r)
		return
	}
	fmt.Fprint(w, answer)
	if strings.HasSuffix(r.URL.Path, "/failures") {
		s.asked <- struct{}{}
	}
}

// stream tells of the next scene when this one was read.
func (s *stage) stream(w http.ResponseWriter, r *http.Request) {
	require.Equal(s.t, "2", r.URL.Query().Get("from"), "after what was read first")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	for i := 1; i < len(s.play); i++ {
		select {
		case <-s.asked:
		case <-r.Context().Done():
			return
		}
		s.mu.Lock()
		s.scene = i
		s.mu.Unlock()
		fmt.Fprintf(w, "id: %d\ndata: {\"sequence\":%d,\"type\":\"kanade.run.started.v1\"}\n\n", i+1, i+1)
		_ = http.NewResponseController(w).Flush()
	}
	<-r.Context().Done()
}

func scene(status string, ended int, states string) map[string]string {
	exec := fmt.Sprintf(`{"exec_id":"e1","job_id":"patch","status":%q,"ended_sequence":%d,"sequence":1,"totals":{"expected":{%s}}}`, status, ended, states)
	waves := fmt.Sprintf(`[{"wave":0,"label":"10%%","state":"sent","size":1,"released_at":"2026-11-23T09:00:00Z","totals":{"expected":{%s}}}]`, states)
	return map[string]string{"exec": exec, "waves": waves}
}

// watched plays an exec to the end of the watching.
func watched(t *testing.T, ctx context.Context, s *stage, change func(w *watcher)) (out, errs string, err error) {
	t.Helper()
	server := httptest.NewServer(s)
	defer server.Close()
	api, err := client.New(server.URL, "", "")
	require.NoError(t, err)
	defer api.Close()
	var b, e bytes.Buffer
	w := &watcher{api: api, id: "e1", out: &b, err: &e}
	change(w)
	err = w.run(ctx)
	return b.String(), e.String(), err
}

func rollout() []map[string]string {
	return []map[string]string{scene("pending", 0, `"expected":1`), scene("running", 0, `"running":1`), scene("completed", 9, `"succeeded":1`)}
}

func TestWatchByLines(t *testing.T) {
	s := newStage(t, rollout()...)
	s.away[1] = http.StatusServiceUnavailable
	out, errs, err := watched(t, t.Context(), s, func(*watcher) {})
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(errs, "trying again"), errs)
	var lines []string
	for line := range strings.Lines(out) {
		lines = append(lines, strings.TrimSpace(line[len("15:04:05"):]))
	}
	require.Equal(t, []string{
		"exec pending", "wave 0 (10%) sent 1 expected", "exec running", "wave 0 (10%) sent 1 running",
		"exec completed (1 succeeded)", "wave 0 (10%) sent 1 succeeded",
	}, lines)
}

func TestWatchOnATerminal(t *testing.T) {
	s := newStage(t, rollout()...)
	s.away[2] = http.StatusServiceUnavailable
	out, errs, err := watched(t, t.Context(), s, func(w *watcher) { w.size = func() (int, int) { return 100, 40 } })
	require.NoError(t, err)
	require.Empty(t, errs, "it would break the picture")
	require.Contains(t, out, "as of a while ago: not now (503 Service Unavailable)")
	require.True(t, strings.HasPrefix(out, hideCursor) && strings.HasSuffix(out, showCursor))
	var terminal screen
	terminal.write(strings.TrimSuffix(strings.TrimPrefix(out, hideCursor), showCursor))
	last := ""
	for _, row := range terminal.rows {
		last += string(row) + "\n"
	}
	require.Equal(t, 1, strings.Count(last, "exec "), last)
	require.Contains(t, last, "status    completed\n")
	require.Contains(t, last, "\n      ████████████████████  1 succeeded\n")
}

func TestWatchAsJSON(t *testing.T) {
	out, _, err := watched(t, t.Context(), newStage(t, rollout()...), func(w *watcher) { w.json = true })
	require.NoError(t, err)
	var statuses []string
	for line := range strings.Lines(out) {
		var v struct {
			Execution client.Execution
			Waves     []client.Wave
			Failures  []client.Failure
		}
		require.NoError(t, json.Unmarshal([]byte(line), &v))
		require.Len(t, v.Waves, 1)
		require.NotNil(t, v.Failures)
		statuses = append(statuses, v.Execution.Status)
	}
	require.Equal(t, []string{"pending", "running", "completed"}, statuses)
}

func TestWatchEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	out, errs, err := watched(t, ctx, newStage(t, scene("running", 0, `"running":1`)), func(w *watcher) { w.out = &ender{w.out.(*bytes.Buffer), cancel} })
	require.NoError(t, err, "Ctrl-C")
	require.Contains(t, out, "exec running")
	require.Empty(t, errs)

	out, _, err = watched(t, t.Context(), newStage(t, scene("completed", 9, `"succeeded":1`)), func(*watcher) {})
	require.NoError(t, err)
	require.Contains(t, out, "exec completed (1 succeeded)")

	s := newStage(t, rollout()...)
	s.away[1] = http.StatusUnauthorized
	_, _, err = watched(t, t.Context(), s, func(*watcher) {})
	require.ErrorContains(t, err, "401 Unauthorized")

	_, _, err = watched(t, t.Context(), newStage(t, rollout()...), func(w *watcher) { w.id = "e2" })
	require.ErrorContains(t, err, "`kanade exec list` shows which there are")
}

// ender ends what writes to it.
type ender struct {
	*bytes.Buffer
	end context.CancelFunc
}

func (e *ender) Write(p []byte) (int, error) {
	defer e.end()
	return e.Buffer.Write(p)
}
