//go:build unix

package systemtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/client"
	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/services/api"
	"kanade/services/projector"
	"kanade/services/scheduler"
)

// oldAgentBinary is the agent of kanade 0.43.45: cargo install --locked kanade-agent@0.43.45.
const oldAgentBinary = "kanade-agent"

// TestOldAgents lets two agents of kanade 0.43.45 work against this system, unchanged, in real time. It needs their binary
// on PATH.
func TestOldAgents(t *testing.T) {
	binary, err := exec.LookPath(oldAgentBinary)
	if err != nil {
		t.Skipf("SKIPPED: no %s on PATH (cargo install --locked kanade-agent@0.43.45)", oldAgentBinary)
	}
	o := newOldFleet(t, binary, "old-1", "old-2")
	o.job("hello", `shell: cmd, timeout: 30s, script: "echo hello from $0"`)
	for name, body := range map[string]string{
		"all": `{"target":{"all":true}}`, "named": `{"target":{"pcs":["old-1","old-2"]}}`, "group": `{"target":{"groups":["g"]}}`,
		"union":  `{"target":{"groups":["g"],"pcs":["old-1"]}}`,
		"waves":  `{"target":{"all":true},"rollout":{"strategy":"wave","waves":[{"pcs":["old-1"],"delay":"0s"},{"percent":100,"after":"previous","delay":"1s"}]}}`,
		"jitter": `{"target":{"all":true},"jitter":"2s"}`,
		"budget": `{"target":{"all":true},"max_parallel":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			x := o.with(t).exec("hello", body, time.Minute)
			require.Equal(t, "succeeded", x.Execution.Outcome)
			require.Equal(t, map[string]int{"succeeded": 2}, x.Execution.Totals.Expected)
		})
	}
	for name, play := range map[string]func(*oldFleet){
		"deadline": (*oldFleet).deadline, "kill": (*oldFleet).kill, "kill in jitter": (*oldFleet).killInJitter, "revoke": (*oldFleet).revoke,
		"retry": (*oldFleet).retry, "large output": (*oldFleet).largeOutput, "script object": (*oldFleet).scriptObject,
		"what it can't run": (*oldFleet).cannotRun, "timeout": (*oldFleet).timeout, "old CLI": (*oldFleet).oldCLI,
	} {
		t.Run(name, func(t *testing.T) { play(o.with(t)) })
	}
}

func (o *oldFleet) deadline() {
	o.job("slow", `shell: cmd, timeout: 30s, script: "sleep 1"`)
	past := time.Now().Add(2 * time.Second).UTC().Format(time.RFC3339Nano)
	x := o.exec("slow", `{"target":{"all":true},"rollout":{"strategy":"wave","waves":[{"pcs":["old-1"],"delay":"0s"},{"pcs":["old-2"],"after":"previous","delay":"1500ms"}]},"deadline_at":"`+past+`"}`, time.Minute)
	require.Equal(o.t, map[string]int{"succeeded": 1, "skipped": 1}, x.Execution.Totals.Expected)
	require.Equal(o.t, events.SkipReasonDeadline, o.target(x, "old-2").Reason)
}

func (o *oldFleet) kill() {
	o.job("long", `shell: cmd, timeout: 5m, script: "exec sleep 200"`)
	id := o.start("long", `{"target":{"all":true}}`)
	o.until("both run", func() bool { return o.execution(id).Execution.Totals.Expected["running"] == 2 })
	o.post("/api/executions/"+id+"/kill", `{"reason":"enough"}`)
	x := o.ended(id, time.Minute)
	require.Equal(o.t, "killed", x.Execution.Outcome)
	require.Equal(o.t, map[string]int{"killed": 2}, x.Execution.Totals.Expected)
}

// An old agent hears no kill before its child runs: its "started" is answered by the kill again.
func (o *oldFleet) killInJitter() {
	o.job("long", `shell: cmd, timeout: 5m, script: "exec sleep 200"`)
	id := o.start("long", `{"target":{"all":true},"jitter":"6s"}`)
	time.Sleep(500 * time.Millisecond)
	o.post("/api/executions/"+id+"/kill", "{}")
	o.until("both are killed", func() bool { return o.execution(id).Execution.Totals.Expected["killed"] == 2 })
}

func (o *oldFleet) revoke() {
	o.job("bad", `shell: cmd, timeout: 30s, script: "exit 0"`)
	o.post("/api/scripts/bad/revoke", "{}")
	time.Sleep(time.Second)
	x := o.exec("bad", `{"target":{"all":true}}`, time.Minute)
	require.Equal(o.t, map[string]int{"skipped": 2}, x.Execution.Totals.Expected)
	require.Equal(o.t, events.SkipReasonRevoked, o.target(x, "old-1").Reason)
	o.post("/api/scripts/bad/unrevoke", "{}")
	time.Sleep(time.Second)
	require.Equal(o.t, "succeeded", o.exec("bad", `{"target":{"all":true}}`, time.Minute).Execution.Outcome)
}

func (o *oldFleet) retry() {
	count := filepath.Join(o.dir, "attempts")
	o.job("flaky", fmt.Sprintf(`shell: cmd, timeout: 30s, script: "echo x >> %s; test $(wc -l < %s) -ge 3"`, count, count))
	x := o.exec("flaky", `{"target":{"pcs":["old-1"]},"retry":{"max":3,"backoff":"1s"}}`, time.Minute)
	require.Equal(o.t, "succeeded", x.Execution.Outcome)
	text, err := os.ReadFile(count)
	require.NoError(o.t, err)
	require.Equal(o.t, 3, strings.Count(string(text), "x"))
}

func (o *oldFleet) largeOutput() {
	const size = 600_000
	o.job("loud", fmt.Sprintf(`shell: cmd, timeout: 30s, script: "head -c %d /dev/zero | tr '\\0' y"`, size))
	x := o.exec("loud", `{"target":{"pcs":["old-1"]}}`, time.Minute)
	require.Equal(o.t, "succeeded", x.Execution.Outcome)
	text := o.get("/api/results/" + x.Results[0].ResultID + "/output/stdout")
	require.Equal(o.t, strings.Repeat("y", size), string(text))
}

func (o *oldFleet) scriptObject() {
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, err := w.CreateFormFile("file", "long.sh")
	require.NoError(o.t, err)
	_, err = part.Write([]byte("echo from an object\n"))
	require.NoError(o.t, err)
	require.NoError(o.t, w.Close())
	o.do(http.MethodPost, "/api/script-objects/long/1.0.0", form.Bytes(), w.FormDataContentType())
	o.job("object", `shell: cmd, timeout: 30s, script_object: long/1.0.0`)
	x := o.exec("object", `{"target":{"all":true}}`, time.Minute)
	require.Equal(o.t, "succeeded", x.Execution.Outcome)
	require.Equal(o.t, "from an object\n", string(o.get("/api/results/"+x.Results[0].ResultID+"/output/stdout")))
}

// An old agent drops a command whose shell it does not know, without a word: it gets none.
func (o *oldFleet) cannotRun() {
	o.job("new", `shell: sh, timeout: 30s, script: "true"`)
	x := o.exec("new", `{"target":{"all":true}}`, time.Minute)
	require.Equal(o.t, map[string]int{"skipped": 2}, x.Execution.Totals.Others)
	require.Equal(o.t, events.SkipReasonShell, o.target(x, "old-1").Reason)
	o.job("new", `shell: cmd, timeout: 30s, script: "true", env: {A: b}`)
	x = o.exec("new", `{"target":{"all":true}}`, time.Minute)
	require.Equal(o.t, events.SkipReasonAgentTooOld, o.target(x, "old-2").Reason)
}

func (o *oldFleet) timeout() {
	o.job("endless", `shell: cmd, timeout: 1s, script: "exec sleep 100"`)
	x := o.exec("endless", `{"target":{"pcs":["old-1"]}}`, time.Minute)
	require.Equal(o.t, map[string]int{"timed_out": 1}, x.Execution.Totals.Expected)
}

// What an old CLI writes into the buckets counts: a membership and a revocation.
func (o *oldFleet) oldCLI() {
	kv, err := o.bus.JetStream().KeyValue(o.t.Context(), events.BucketAgentGroups)
	require.NoError(o.t, err)
	_, err = kv.Put(o.t.Context(), "old-2", []byte(`{"groups":["g","cli"]}`))
	require.NoError(o.t, err)
	o.until("the group is known", func() bool {
		return bytes.Contains(o.get("/api/agents/old-2/groups"), []byte(`"cli"`))
	})
	x := o.exec("hello", `{"target":{"groups":["cli"]}}`, time.Minute)
	require.Equal(o.t, map[string]int{"succeeded": 1}, x.Execution.Totals.Expected)
	status, err := o.bus.JetStream().KeyValue(o.t.Context(), events.BucketScriptStatus)
	require.NoError(o.t, err)
	_, err = status.Put(o.t.Context(), "hello", []byte("REVOKED"))
	require.NoError(o.t, err)
	o.until("the revocation is known", func() bool {
		return bytes.Contains(o.get("/api/scripts/status"), []byte(`"REVOKED"`))
	})
	o.post("/api/scripts/hello/unrevoke", "{}")
	time.Sleep(time.Second)
}

// oldFleet is this system on loopback, with processes of the old agent.
type oldFleet struct {
	t    *testing.T
	dir  string
	url  string
	bus  *bus.Bus
	http *http.Client
}

func newOldFleet(t *testing.T, binary string, pcs ...string) *oldFleet {
	o := &oldFleet{t: t, dir: t.TempDir(), http: &http.Client{Timeout: 30 * time.Second}}
	logger := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	server, err := broker.Start(broker.Config{StoreDir: filepath.Join(o.dir, "broker"), Listen: "127.0.0.1:0", Token: bustest.Token, Logger: logger})
	require.NoError(t, err)
	t.Cleanup(server.Shutdown)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	o.bus, err = bus.Open(ctx, bus.Config{URL: server.URL(), Token: bustest.Token, Name: "test", Logger: logger}, bustest.Limits())
	require.NoError(t, err)
	t.Cleanup(o.bus.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	o.url = "http://" + listener.Addr().String()
	model := filepath.Join(o.dir, "model")
	for _, run := range []func() error{
		func() error {
			return scheduler.Run(ctx, scheduler.Config{}, scheduler.Deps{Bus: o.bus, Logger: logger})
		},
		func() error {
			return projector.Run(ctx, projector.Config{ReadModelDir: model}, projector.Deps{Bus: o.bus, Logger: logger})
		},
		func() error {
			return api.Run(ctx, api.Config{AuthToken: kitToken, ReadModelDir: model}, api.Deps{Bus: o.bus, Listener: listener, Logger: logger})
		},
	} {
		ended := make(chan error, 1)
		go func() { ended <- run() }()
		t.Cleanup(func() {
			cancel()
			require.NoError(t, <-ended)
		})
	}
	o.until("there is a read model", func() bool {
		answer, err := o.http.Get(o.url + "/readyz")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
	for _, pc := range pcs {
		o.startOld(binary, pc, server.URL())
	}
	o.until("the agents are there", func() bool { return bytes.Count(o.get("/api/agents"), []byte(`"pc_id"`)) == len(pcs) })
	for _, pc := range pcs {
		o.do(http.MethodPut, "/api/agents/"+pc+"/groups", []byte(`{"groups":["g"]}`), "application/json")
	}
	time.Sleep(2 * time.Second) // they learn of it
	return o
}

// startOld starts the old agent with a "cmd" that hands its script to a shell.
func (o *oldFleet) startOld(binary, pc, url string) {
	dir := filepath.Join(o.dir, pc)
	bin := filepath.Join(dir, "bin")
	require.NoError(o.t, os.MkdirAll(bin, 0o755))
	require.NoError(o.t, os.WriteFile(filepath.Join(bin, "cmd"), []byte("#!/bin/sh\nshift\nexec sh -c \"$1\"\n"), 0o755)) //nolint:gosec // a program
	config := fmt.Sprintf("[agent]\nid = %q\nnats_url = %q\n[log]\npath = %q\nlevel = \"warn\"\n", pc, url, filepath.Join(dir, "agent.log"))
	require.NoError(o.t, os.WriteFile(filepath.Join(dir, "agent.toml"), []byte(config), 0o600))
	log, err := os.Create(filepath.Join(dir, "out.log"))
	require.NoError(o.t, err)
	defer log.Close()
	cmd := exec.Command(binary, "--config", filepath.Join(dir, "agent.toml")) //nolint:gosec // the program under test
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "KANADE_NATS_TOKEN="+bustest.Token,
		"KANADE_AGENT_DATA_DIR="+filepath.Join(dir, "data"), "HOSTNAME="+pc)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, dir
	require.NoError(o.t, cmd.Start())
	o.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if o.t.Failed() {
			o.t.Logf("%s: %s", pc, tail(filepath.Join(dir, "out.log")))
		}
	})
}

func (o *oldFleet) with(t *testing.T) *oldFleet {
	copied := *o
	copied.t = t
	return &copied
}

func (o *oldFleet) do(method, path string, body []byte, contentType string) []byte {
	o.t.Helper()
	r, err := http.NewRequestWithContext(o.t.Context(), method, o.url+path, bytes.NewReader(body))
	require.NoError(o.t, err)
	r.Header.Set("Authorization", "Bearer "+kitToken)
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	answer, err := o.http.Do(r)
	require.NoError(o.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(o.t, err)
	require.Less(o.t, answer.StatusCode, 300, "%s %s: %s", method, path, text)
	return text
}

func (o *oldFleet) get(path string) []byte { o.t.Helper(); return o.do(http.MethodGet, path, nil, "") }

func (o *oldFleet) post(path, body string) []byte {
	o.t.Helper()
	return o.do(http.MethodPost, path, []byte(body), "application/json")
}

func (o *oldFleet) job(id, execute string) {
	o.t.Helper()
	o.do(http.MethodPost, "/api/jobs", []byte(fmt.Sprintf("id: %s\nversion: %q\nexecute: {%s}\n", id, fmt.Sprint(time.Now().UnixNano()), execute)), "application/yaml")
}

func (o *oldFleet) start(job, body string) string {
	o.t.Helper()
	var answer struct {
		ExecID string `json:"exec_id"`
	}
	require.NoError(o.t, json.Unmarshal(o.post("/api/exec/"+job, body), &answer))
	return answer.ExecID
}

// execution is what the api tells of an exec; empty before the read model has it.
func (o *oldFleet) execution(id string) (x execution) {
	o.t.Helper()
	var all []client.Execution
	require.NoError(o.t, json.Unmarshal(o.get("/api/executions?limit=1000"), &all))
	for _, e := range all {
		if e.ExecID == id {
			// In this order: what the targets say is in the totals that are read after them.
			require.NoError(o.t, json.Unmarshal(o.get("/api/executions/"+id+"/targets"), &x.targets))
			require.NoError(o.t, json.Unmarshal(o.get("/api/executions/"+id), &x))
		}
	}
	return x
}

func (o *oldFleet) exec(job, body string, limit time.Duration) execution {
	o.t.Helper()
	return o.ended(o.start(job, body), limit)
}

// ended waits until an exec has an outcome and nobody is open.
func (o *oldFleet) ended(id string, limit time.Duration) (x execution) {
	o.t.Helper()
	begin := time.Now()
	o.until("exec "+id+" ends", func() bool {
		x = o.execution(id)
		open := 0
		for _, t := range x.targets {
			if !events.TargetState(t.State).Final() {
				open++
			}
		}
		return x.Execution.Outcome != "" && open == 0
	})
	require.Less(o.t, time.Since(begin), limit)
	return x
}

func (o *oldFleet) target(x execution, pc string) client.Target {
	o.t.Helper()
	for _, t := range x.targets {
		if t.PCID == pc {
			return t
		}
	}
	o.t.Fatalf("%s is no target", pc)
	return client.Target{}
}

func (o *oldFleet) until(what string, is func() bool) {
	o.t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(100 * time.Millisecond) {
		require.True(o.t, time.Now().Before(deadline), what)
	}
}
