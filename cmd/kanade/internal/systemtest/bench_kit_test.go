package systemtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/up"
	"kanade/libs/bus"
)

// bench is a whole kanade on TCP over loopback, as `kanade up` runs it.
type bench struct {
	b      *testing.B
	system *up.System
	client *http.Client
	seen   string // sequence of the last write, which reads ask for
}

func newBench(b *testing.B, agent bool) *bench {
	b.Helper()
	s, err := up.Start(b.Context(), up.Config{
		Data: b.TempDir(), Listen: "127.0.0.1:0", NATSListen: "127.0.0.1:0", Agent: agent, PC: "pc-01", Log: quiet(b).Handler(),
	})
	require.NoError(b, err)
	x := &bench{b: b, system: s, client: &http.Client{Transport: &http.Transport{}}}
	b.Cleanup(func() {
		x.client.CloseIdleConnections()
		require.NoError(b, s.Stop())
	})
	return x
}

// connect opens a connection over TCP.
func (x *bench) connect(name string) *bus.Bus {
	x.b.Helper()
	c, err := bus.Connect(x.b.Context(), bus.Config{URL: x.system.BrokerURL, Token: x.system.Home.BrokerToken, Name: name, Logger: quiet(x.b)})
	require.NoError(x.b, err)
	x.b.Cleanup(c.Close)
	return c
}

// do sends a request that must succeed and decodes its answer.
func (x *bench) do(method, path, contentType, body string, v any) {
	x.b.Helper()
	r, err := http.NewRequestWithContext(x.b.Context(), method, x.system.URL+path, bytes.NewReader([]byte(body)))
	require.NoError(x.b, err)
	r.Header.Set("Authorization", "Bearer "+x.system.Home.APIToken)
	r.Header.Set("Content-Type", contentType)
	if method == http.MethodGet && x.seen != "" {
		r.Header.Set("Kanade-Min-Sequence", x.seen)
	}
	answer, err := x.client.Do(r)
	require.NoError(x.b, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(x.b, err)
	require.Less(x.b, answer.StatusCode, 300, "%s", text)
	if seq := answer.Header.Get("Kanade-Sequence"); seq != "" {
		x.seen = seq
	}
	if v != nil {
		require.NoError(x.b, json.Unmarshal(text, v), "%s", text)
	}
}

// job stores a job whose script is true.
func (x *bench) job() {
	x.b.Helper()
	x.do("POST", "/api/jobs", "application/yaml", "id: bench\nversion: 1.0.0\nexecute: {shell: sh, timeout: 30s, script: \"true\"}\n", nil)
}

// exec runs the job everywhere and gives the exec's id.
func (x *bench) exec() string {
	x.b.Helper()
	var e struct {
		ExecID string `json:"exec_id"`
	}
	x.do("POST", "/api/exec/bench", "application/json", `{"target":{"all":true}}`, &e)
	return e.ExecID
}

// state is what one read of an exec says.
type state struct {
	Execution struct {
		Outcome *string `json:"outcome"`
	} `json:"execution"`
	Results []struct {
		State string `json:"state"`
	} `json:"results"`
}

// until reads the exec again and again.
func (x *bench) until(exec string, pause time.Duration, is func(state) bool) {
	x.b.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		var s state
		if x.do("GET", "/api/executions/"+exec, "", "", &s); is(s) {
			return
		}
		if time.Now().After(deadline) {
			x.b.Fatalf("exec %s is not there: %+v", exec, s)
		}
		time.Sleep(pause)
	}
}

// agents waits until so many endpoints are known.
func (x *bench) agents(n int) {
	x.b.Helper()
	require.Eventually(x.b, func() bool {
		var list []json.RawMessage
		x.do("GET", fmt.Sprintf("/api/agents?limit=%d", 2*n), "", "", &list)
		return len(list) == n
	}, time.Minute, 20*time.Millisecond)
}

// at is the value that the share p (0..1) of durations does not exceed.
func at(p float64, d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[min(int(p*float64(len(d))), len(d)-1)]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
