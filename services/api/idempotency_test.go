package api

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/events"
)

func TestIdempotencyKey(t *testing.T) {
	s := newSystem(t, parts{noProjector: true})
	s.job()
	all := `{"target":{"all":true}}`
	first := s.exec("hello", all, "Idempotency-Key", "k1")
	before := s.lastSeq()
	require.Equal(t, first, s.exec("hello", all, "Idempotency-Key", "k1"))
	require.Equal(t, before, s.lastSeq())
	require.NotEqual(t, first.ExecID, s.exec("hello", all, "Idempotency-Key", "k2").ExecID)

	s.write(http.MethodPost, "/api/jobs", "id: other\nversion: \"1\"\nexecute: {shell: sh, script: x, timeout: 1s}\n", "Content-Type", yamlType)
	for _, x := range []struct{ job, body string }{{"hello", `{"target":{"pcs":["pc-01"]}}`}, {"other", all}} {
		refused := s.do(http.MethodPost, "/api/exec/"+x.job, x.body, "Idempotency-Key", "k1")
		require.Equal(t, http.StatusUnprocessableEntity, refused.status)
		require.Contains(t, refused.text(), `"k1"`)
		require.Contains(t, refused.text(), first.ExecID)
	}
	// The job has changed meanwhile: the repeated request is still answered with what it made.
	s.write(http.MethodPost, "/api/jobs", helloYAML+"tags: [x]\n", "Content-Type", yamlType)
	require.Equal(t, first, s.exec("hello", all, "Idempotency-Key", "k1"))
	long := s.do(http.MethodPost, "/api/exec/hello", all, "Idempotency-Key", fmt.Sprintf("%0256d", 1))
	require.Equal(t, http.StatusBadRequest, long.status)
}

// TestKeyWithExecID: an id of the client's own and a key would be two names of one exec, and the key could stand for two.
func TestKeyWithExecID(t *testing.T) {
	s := newSystem(t, parts{})
	for _, field := range []string{"exec_id", "job_id"} {
		for range 2 {
			id := uuid.NewString()
			a := s.do(http.MethodPost, "/api/run", `{"pc_id":"pc-01","script":"`+id+`","shell":"sh","`+field+`":"`+id+`"}`, "Idempotency-Key", "k")
			require.Equal(t, http.StatusUnprocessableEntity, a.status, a.text())
			require.Contains(t, a.text(), "exec_id: an Idempotency-Key makes the id of its exec")
		}
	}
	require.Zero(t, s.lastSeq())
}

// TestKeyOnTwoThings: what acts on something is told apart by it; what makes an exec is not.
func TestKeyOnTwoThings(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	x, y := s.exec("hello", `{"target":{"pcs":["a"]}}`), s.exec("hello", `{"target":{"pcs":["a"]}}`)
	kill := func(id, reason string) answer {
		return s.do(http.MethodPost, "/api/executions/"+id+"/kill", `{"reason":"`+reason+`"}`, "Idempotency-Key", "k")
	}
	first := kill(x.ExecID, "a").sequence(t)
	second := kill(y.ExecID, "a").sequence(t)
	require.Equal(t, events.ExecKilled{ExecID: x.ExecID, Reason: "a"}, s.fact(first))
	require.Equal(t, events.ExecKilled{ExecID: y.ExecID, Reason: "a"}, s.fact(second))
	require.Equal(t, first, kill(x.ExecID, "a").sequence(t))
	require.Equal(t, second, kill(y.ExecID, "a").sequence(t))
	require.Equal(t, http.StatusUnprocessableEntity, kill(y.ExecID, "b").status)

	// What changes nothing spends no key.
	z := s.exec("hello", `{"target":{"pcs":["a"]}}`)
	pause := func(reason, key string) answer {
		return s.write(http.MethodPost, "/api/executions/"+z.ExecID+"/pause", `{"reason":"`+reason+`"}`, "Idempotency-Key", key)
	}
	paused, before := pause("x", "first").sequence(t), s.lastSeq()
	require.Equal(t, paused, pause("a", "n").sequence(t))
	require.Equal(t, paused, pause("b", "n").sequence(t))
	require.Equal(t, before, s.lastSeq())
}

// TestIdempotentDocument: a save that is repeated after another one does not undo it.
func TestIdempotentDocument(t *testing.T) {
	s := newSystem(t, parts{})
	first := s.write(http.MethodPost, "/api/jobs", helloYAML, "Content-Type", yamlType, "Idempotency-Key", "k")
	second := s.write(http.MethodPost, "/api/jobs", helloYAML+"tags: [x]\n", "Content-Type", yamlType)
	again := s.write(http.MethodPost, "/api/jobs", helloYAML, "Content-Type", yamlType, "Idempotency-Key", "k")
	require.Equal(t, first.sequence(t), again.sequence(t))
	require.Equal(t, second.sequence(t), s.lastSeq())
	require.Contains(t, s.read("/api/jobs/hello").text(), `"tags":["x"]`)
	refused := s.do(http.MethodPost, "/api/jobs", helloYAML+"tags: [y]\n", "Content-Type", yamlType, "Idempotency-Key", "k")
	require.Equal(t, http.StatusUnprocessableEntity, refused.status, refused.text())
	require.Equal(t, second.sequence(t), s.lastSeq())

	joined := s.write(http.MethodPost, "/api/agents/pc-01/groups", `{"group":"a"}`, "Idempotency-Key", "k")
	s.write(http.MethodDelete, "/api/agents/pc-01/groups/a", "")
	repeated := s.write(http.MethodPost, "/api/agents/pc-01/groups", `{"group":"a"}`, "Idempotency-Key", "k")
	require.Equal(t, joined.sequence(t), repeated.sequence(t))
	require.JSONEq(t, `{"groups":[]}`, repeated.text())
}

// TestImpatientClients is the property that a key is for: clients that give up at any moment and repeat, several at once
// under one key, leave one exec a key, and all that are answered are answered the same.
func TestImpatientClients(t *testing.T) {
	s := newSystem(t, parts{noProjector: true})
	s.job()
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		after := s.lastSeq()
		keys := rapid.IntRange(1, 3).Draw(rt, "keys")
		patience := append(rapid.SliceOfN(rapid.IntRange(0, 3000), 1, 6).Draw(rt, "patience in µs"), 5_000_000)
		var mu sync.Mutex
		answers := map[string]map[string]bool{}
		var all sync.WaitGroup
		for k := range keys {
			key := fmt.Sprintf("%d-%d", round, k)
			mu.Lock()
			answers[key] = map[string]bool{}
			mu.Unlock()
			for range 2 {
				all.Go(func() {
					for _, us := range patience {
						ctx, cancel := context.WithTimeout(context.Background(), time.Duration(us)*time.Microsecond)
						a, err := s.try(ctx, http.MethodPost, "/api/exec/hello", `{"target":{"pcs":["pc-01"]}}`, "Idempotency-Key", key)
						cancel()
						if err == nil {
							mu.Lock()
							answers[key][fmt.Sprint(a.status, a.text())] = true
							mu.Unlock()
						}
					}
				})
			}
		}
		all.Wait()
		for key, got := range answers {
			if len(got) != 1 {
				rt.Fatalf("key %s was answered in %d ways: %v", key, len(got), got)
			}
		}
		if made := s.lastSeq() - after; made != uint64(keys) {
			rt.Fatalf("%d keys left %d facts", keys, made)
		}
	})
	// No fact but the job and the execs is there.
	execs, err := s.bus.Load(t.Context(), events.AggregateJob, "hello", 0)
	require.NoError(t, err)
	require.Len(t, execs, 1)
}
