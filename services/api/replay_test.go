package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// exchange is one request that a client of kanade 0.43.45 made, and what it was answered.
type exchange struct {
	Request struct {
		Method, Path string
		Headers      map[string]string
		Body         any
	}
	Answer struct {
		Status  int
		Headers map[string]string
		Body    any
	}
}

// notKept are the routes of 0.43.45 that are not there yet.
var notKept = regexp.MustCompile(`^/api/(jetstream|config|checks|obs_events|inventory|health|perf|schemas|auth|app-packages|accounts|run|nope)\b` +
	`|/(tail|ping|logs|config|effective_config|perf|processes|releases)\b`)

// differs says where the answer is another one on purpose, by the place in the recording.
var differs = map[int]struct {
	status int
	says   string // part of the sentence
}{
	15: {400, "deadline_at: 2020-01-01T00:00:00Z has passed"},
	18: {400, "jitter: expected a duration"},
	19: {400, "rollout.waves: must not be empty"},
	20: {400, "rollout.waves[0].delay: expected a duration"},
	21: {422, "bogus: unknown key"},
	22: {400, "not readable as JSON"},
	28: {422, "inventory: not supported yet"},
	29: {422, "check: not supported yet"},
	30: {422, "emit: not supported yet"},
	31: {400, "execute.shell: expected powershell, cmd, sh or pwsh"},
	32: {400, "execute"},
	33: {400, "wobble: unknown key"},
	83: {400, "when.calendar.at: expected HH:MM"},
}

// instead is sent after a request that is refused now, so that what follows in the recording has something to speak of.
var instead = map[int]string{
	15: `{"target":{"pcs":["pc-01"]}}`,
	28: "id: inv\nversion: \"1.1.0\"\nexecute: {shell: powershell, script: echo, timeout: 30s}\n",
	29: "id: chk\nversion: \"1\"\nexecute: {shell: cmd, script: echo, timeout: 10s}\n",
	30: "id: evt\nversion: \"1\"\nexecute: {shell: cmd, script: echo, timeout: 10s}\n",
}

func TestReplayRecordedExchanges(t *testing.T) {
	text, err := os.ReadFile("testdata/exchanges.json")
	require.NoError(t, err)
	var recorded []exchange
	require.NoError(t, json.Unmarshal(text, &recorded))
	s := newSystem(t, parts{})
	s.endpoint("pc-01")
	s.endpoint("pc-02")
	ids := map[string]string{}
	replayed := 0
	for i, x := range recorded {
		if notKept.MatchString(x.Request.Path) {
			continue
		}
		replayed++
		t.Run(fmt.Sprintf("%03d %s %s", i, x.Request.Method, x.Request.Path), func(t *testing.T) {
			got := s.replay(t, x, ids)
			if d, ok := differs[i]; ok {
				require.Equal(t, d.status, got.status, got.text())
				require.Contains(t, got.text(), d.says)
				if instead[i] == "" {
					return
				}
				x.Request.Body = instead[i]
				got = s.replay(t, x, ids)
			}
			x.compare(t, got)
			s.follow(x, got, ids)
		})
	}
	require.Greater(t, replayed, 60)
}

// replay sends a recorded request, with this run's ids in its path.
func (s *system) replay(t *testing.T, x exchange, ids map[string]string) answer {
	path := x.Request.Path
	if m := regexp.MustCompile(`^(/api/executions/)([0-9a-f-]{36})$`).FindStringSubmatch(path); m != nil {
		path = m[1] + ids[m[2]]
	}
	body, ok := x.Request.Body.(string)
	if !ok {
		text, err := json.Marshal(x.Request.Body)
		require.NoError(t, err)
		body = string(text)
	}
	headers := []string{"Kanade-Min-Sequence", fmt.Sprint(s.seen.Load())}
	for name, value := range x.Request.Headers {
		headers = append(headers, name, value)
	}
	got := s.do(x.Request.Method, path, body, headers...)
	if got.header.Get("Kanade-Sequence") != "" {
		s.saw(got.sequence(t))
	}
	return got
}

// follow does what agents and scheduler would, and remembers which exec stands for the recorded one.
func (s *system) follow(x exchange, got answer, ids map[string]string) {
	if !strings.HasPrefix(x.Request.Path, "/api/exec/") || got.status != http.StatusOK {
		return
	}
	var e execAnswer
	got.into(s.t, &e)
	recorded := x.Answer.Body.(map[string]any)["exec_id"].(string)
	ids[recorded] = e.ExecID
	s.plan(e.ExecID, "pc-01")
	run := events.Run{PCID: "pc-01", ExecID: e.ExecID, RequestID: e.ExecID, ResultID: events.ResultID(e.ExecID, "pc-01"), JobID: e.JobID, Version: e.Version}
	zero := 0
	if e.JobID == "toolong" { // the recording asks for this run by its id, and for runs that have not ended
		run.ResultID = "d0d71d17-3539-4de4-9147-9e8bac50a46f"
		s.run(run, "", nil, events.Output{})
		return
	}
	s.run(run, events.StateSucceeded, &zero, events.Output{Text: "hello from vm\n", Bytes: 14})
}

// compare holds an answer against the recorded one: status, content type, keys and kinds of values; sentences that old
// clients may look for are equal.
func (x exchange) compare(t *testing.T, got answer) {
	require.Equal(t, x.Answer.Status, got.status, got.text())
	want, isText := x.Answer.Body.(string)
	switch {
	case isText && want == "":
	case isText:
		require.Equal(t, x.Answer.Headers["Content-Type"], got.header.Get("Content-Type"))
		require.Equal(t, want, got.text())
	default:
		require.Equal(t, "application/json", got.header.Get("Content-Type"))
		sameShape(t, "", x.Answer.Body, got.json(t))
	}
}

// nullable fields are null where 0.43.45 gave a zero, or gave a value that there is none of here.
var nullable = regexp.MustCompile(`\.(exit_code|agent_\w+|description|finished_at|started_at|inventory|emit|check|last_heartbeat|updated_at)$`)

// gone are keys whose documents can't be stored yet.
var gone = regexp.MustCompile(`\.client$`)

// sameShape holds that every key of the recorded value is there with a value of the same kind. Of lists the first items
// are compared.
func sameShape(t *testing.T, path string, want, got any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		object, ok := got.(map[string]any)
		require.True(t, ok, "%s: want an object, got %T", path, got)
		for key, value := range want {
			inner := path + "." + key
			if gone.MatchString(inner) {
				continue
			}
			require.Contains(t, object, key, path)
			if (value == nil || object[key] == nil) && nullable.MatchString(inner) {
				continue
			}
			sameShape(t, inner, value, object[key])
		}
	case []any:
		list, ok := got.([]any)
		require.True(t, ok, "%s: want a list, got %T", path, got)
		if len(want) > 0 {
			require.NotEmpty(t, list, path)
			sameShape(t, path+"[0]", want[0], list[0])
		}
	default:
		require.IsType(t, want, got, path)
	}
}
