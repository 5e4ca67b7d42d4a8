package api

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// intentAnswer is what kill, cancel, pause and resume are answered with.
type intentAnswer struct {
	ExecID          string `json:"exec_id"`
	Sequence        uint64 `json:"sequence"`
	Status          *string
	Outcome         *string
	Totals          *events.Totals
	Running         []string
	RunningCount    *int `json:"running_count"`
	NotStartedCount *int `json:"not_started_count"`
}

func (s *system) intend(execID, intent, body string, headers ...string) intentAnswer {
	s.t.Helper()
	var a intentAnswer
	s.write(http.MethodPost, "/api/executions/"+execID+"/"+intent, body, headers...).into(s.t, &a)
	return a
}

func (s *system) refused(execID, intent, body string, status int, says string) {
	s.t.Helper()
	before := s.lastSeq()
	got := s.do(http.MethodPost, "/api/executions/"+execID+"/"+intent, body)
	require.Equal(s.t, status, got.status, got.text())
	require.Contains(s.t, got.text(), says)
	require.Equal(s.t, before, s.lastSeq())
}

// waves plans an exec of one wave an endpoint.
func (s *system) waves(execID string, pcs ...string) {
	s.t.Helper()
	at := time.Now().UTC()
	p := events.ExecPlanned{ExecID: execID, DeadlineAt: at.Add(time.Hour), ExpiresAt: at.Add(time.Hour)}
	for i, pc := range pcs {
		p.Waves = append(p.Waves, events.PlannedWave{DueAt: at.Add(time.Duration(i) * time.Minute), Expected: []string{pc}})
	}
	s.append(p)
}

func TestKillExecution(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	e := s.exec("hello", `{"target":{"pcs":["pc-01","pc-02","pc-03"]}}`)
	s.plan(e.ExecID, "pc-01", "pc-02", "pc-03")
	s.append(events.WaveDispatched{ExecID: e.ExecID, Commands: 3})
	s.run(runOf(e, "pc-01"), "", nil, events.Output{})
	s.append(events.RunReceived{Run: runOf(e, "pc-02"), ReceivedAt: time.Now().UTC()})

	killed := s.intend(e.ExecID, "kill", `{"reason":"fills the disk"}`)
	require.Equal(t, events.ExecKilled{ExecID: e.ExecID, Reason: "fills the disk"}, s.fact(killed.Sequence))
	require.Equal(t, []string{"pc-01", "pc-02"}, killed.Running)
	require.Equal(t, 2, *killed.RunningCount)
	require.Equal(t, 1, *killed.NotStartedCount)
	require.Equal(t, "running", *killed.Status)
	require.Equal(t, "killed", *killed.Outcome)
	require.Equal(t, map[events.TargetState]int{events.StateRunning: 1, events.StateReceived: 1, events.StateSkipped: 1}, killed.Totals.Expected)

	before := s.lastSeq()
	again := s.intend(e.ExecID, "kill", "")
	require.Equal(t, killed.Sequence, again.Sequence)
	require.Equal(t, 0, *again.NotStartedCount)
	require.Equal(t, before, s.lastSeq())
	for _, intent := range []string{"cancel", "pause", "resume", "release"} {
		s.refused(e.ExecID, intent, "", http.StatusConflict, "was killed")
	}
	s.append(events.ExecExpired{ExecID: e.ExecID, Outcome: events.OutcomeKilled})
	require.Equal(t, killed.Sequence, s.intend(e.ExecID, "kill", "").Sequence, "the same request is answered the same")

	ended := s.exec("hello", `{"target":{"pcs":["pc-01"]}}`)
	s.append(events.ExecClosed{ExecID: ended.ExecID, Outcome: events.OutcomeSucceeded})
	s.refused(ended.ExecID, "cancel", "", http.StatusConflict, "has ended: there is nothing to cancel")
	require.Equal(t, "succeeded", *s.intend(ended.ExecID, "kill", "").Outcome, "a kill after the end reaches those that were away")
	late := s.exec("hello", `{"target":{"pcs":["pc-01"]}}`)
	s.append(events.ExecExpired{ExecID: late.ExecID, Outcome: events.OutcomeExpired})
	s.refused(late.ExecID, "kill", "", http.StatusConflict, "has expired: nothing of it can start any more")
}

// TestKillWithoutProjector: a kill depends on nobody; what it reaches is then not known.
func TestKillWithoutProjector(t *testing.T) {
	s := newSystem(t, parts{noProjector: true})
	s.job()
	e := s.exec("hello", `{"target":{"pcs":["pc-01"]}}`)
	killed := s.intend(e.ExecID, "kill", "")
	require.Equal(t, events.ExecKilled{ExecID: e.ExecID}, s.fact(killed.Sequence))
	require.Nil(t, killed.Status)
	require.Nil(t, killed.Totals)
	require.Nil(t, killed.Running)
	require.Nil(t, killed.RunningCount)
	require.Equal(t, http.StatusServiceUnavailable, s.do(http.MethodPost, "/api/jobs/hello/kill", "").status)
}

func TestPauseAndResume(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	e := s.exec("hello", `{"target":{"pcs":["pc-01"]}}`)
	require.Equal(t, e.Sequence, s.intend(e.ExecID, "resume", "").Sequence, "it is not paused")
	paused := s.intend(e.ExecID, "pause", `{"reason":"lunch"}`)
	require.Equal(t, events.ExecPaused{ExecID: e.ExecID, Reason: "lunch"}, s.fact(paused.Sequence))
	require.Equal(t, "pending", *paused.Status)
	require.Nil(t, paused.Outcome)
	require.Equal(t, paused.Sequence, s.intend(e.ExecID, "pause", `{"reason":"tea"}`).Sequence)
	resumed := s.intend(e.ExecID, "resume", `{"reason":null}`)
	require.Equal(t, events.ExecResumed{ExecID: e.ExecID}, s.fact(resumed.Sequence))
	require.Equal(t, resumed.Sequence, s.intend(e.ExecID, "resume", "").Sequence)

	cancelled := s.intend(e.ExecID, "cancel", `{"reason":"wrong group"}`, "Idempotency-Key", "k")
	require.Equal(t, events.ExecCancelled{ExecID: e.ExecID, Reason: "wrong group"}, s.fact(cancelled.Sequence))
	require.Equal(t, "cancelled", *cancelled.Outcome)
	before := s.lastSeq()
	require.Equal(t, cancelled, s.intend(e.ExecID, "cancel", `{"reason":"wrong group"}`, "Idempotency-Key", "k"))
	require.Equal(t, cancelled.Sequence, s.intend(e.ExecID, "cancel", "").Sequence)
	require.Equal(t, before, s.lastSeq())
	reused := s.do(http.MethodPost, "/api/executions/"+e.ExecID+"/cancel", `{"reason":"other"}`, "Idempotency-Key", "k")
	require.Equal(t, http.StatusUnprocessableEntity, reused.status)
	s.refused(e.ExecID, "pause", "", http.StatusConflict, "was cancelled: there is nothing to pause")
	require.Equal(t, events.ExecKilled{ExecID: e.ExecID}, s.fact(s.intend(e.ExecID, "kill", "").Sequence), "what a cancel lets go on, a kill ends")

	halted := s.exec("hello", `{"target":{"pcs":["pc-01"]}}`)
	s.append(events.ExecHalted{ExecID: halted.ExecID, Failed: 2, Allowed: 1})
	s.refused(halted.ExecID, "resume", "", http.StatusConflict, "was halted by its failure budget")
}

func TestReleaseWaves(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	e := s.exec("hello", `{"rollout":{"waves":[{"pcs":["pc-01"],"delay":"0s"},{"pcs":["pc-02"],"pause":true},{"pcs":["pc-03"],"delay":"1h"},{"pcs":["pc-04"],"delay":"2h"}]}}`)
	s.refused(e.ExecID, "release", "", http.StatusConflict, "has not been planned yet")
	s.waves(e.ExecID, "pc-01", "pc-02", "pc-03", "pc-04")
	released := s.append(events.WaveReleased{ExecID: e.ExecID, Wave: 0})
	release := func(body string, headers ...string) (wave int, seq uint64) {
		var a struct {
			ExecID   string `json:"exec_id"`
			Wave     int
			Sequence uint64
		}
		s.write(http.MethodPost, "/api/executions/"+e.ExecID+"/release", body, headers...).into(t, &a)
		require.Equal(t, e.ExecID, a.ExecID)
		return a.Wave, a.Sequence
	}
	wave, seq := release(`{"reason":"looks good"}`, "Idempotency-Key", "k")
	require.Equal(t, 1, wave)
	require.Equal(t, events.WaveAdvanced{ExecID: e.ExecID, Wave: 1, Reason: "looks good"}, s.fact(seq))
	wave, again := release(`{"reason":"looks good"}`, "Idempotency-Key", "k")
	require.Equal(t, 1, wave)
	require.Equal(t, seq, again)
	wave, again = release(`{"wave":1}`)
	require.Equal(t, 1, wave)
	require.Equal(t, seq, again)
	wave, again = release(`{"wave":0}`)
	require.Equal(t, 0, wave)
	require.Equal(t, released, again)
	wave, _ = release(`{"wave":3}`)
	require.Equal(t, 3, wave)
	wave, _ = release("")
	require.Equal(t, 2, wave)
	s.refused(e.ExecID, "release", "", http.StatusConflict, "all 4 waves of execution '"+e.ExecID+"' have gone out")
	s.refused(e.ExecID, "release", `{"wave":4}`, http.StatusUnprocessableEntity, "wave: 4 is none of the 4 waves")
	s.refused(e.ExecID, "release", `{"wave":-1}`, http.StatusUnprocessableEntity, "wave: -1 is none of the 4 waves")
}

// TestIntentsAtOnce: of many that want the same, one makes the fact and all are answered with it.
func TestIntentsAtOnce(t *testing.T) {
	s := newSystem(t, parts{noProjector: true})
	s.job()
	e := s.exec("hello", `{"target":{"pcs":["pc-01"]}}`)
	before := s.lastSeq()
	var all sync.WaitGroup
	var mu sync.Mutex
	answers := map[string]bool{}
	for i := range 8 {
		all.Go(func() {
			a, err := s.try(t.Context(), http.MethodPost, "/api/executions/"+e.ExecID+"/cancel", fmt.Sprintf(`{"reason":"%d"}`, i))
			mu.Lock()
			defer mu.Unlock()
			if err != nil || a.status != http.StatusOK {
				t.Errorf("%v %d %s", err, a.status, a.body)
			}
			answers[a.text()] = true
		})
	}
	all.Wait()
	require.Len(t, answers, 1)
	require.Equal(t, before+1, s.lastSeq())
}

func TestKillJob(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	pending := s.exec("hello", `{"target":{"pcs":["pc-01"]}}`)
	away := s.exec("hello", `{"target":{"all":true}}`)
	at := time.Now().UTC()
	s.append(events.ExecPlanned{ExecID: away.ExecID, Waves: []events.PlannedWave{{DueAt: at, Waiting: []string{"pc-09"}}}, DeadlineAt: at.Add(time.Hour), ExpiresAt: at.Add(time.Hour)})
	s.append(events.ExecClosed{ExecID: away.ExecID, Outcome: events.OutcomeFailed})
	done := s.exec("hello", `{"target":{"pcs":["pc-01"]}}`)
	s.plan(done.ExecID, "pc-01")
	zero := 0
	s.run(runOf(done, "pc-01"), events.StateSucceeded, &zero, events.Output{})
	s.append(events.ExecClosed{ExecID: done.ExecID, Outcome: events.OutcomeSucceeded})

	before := s.lastSeq()
	got := s.write(http.MethodPost, "/api/jobs/hello/kill", `{"reason":"bad"}`)
	require.Equal(t, http.StatusNoContent, got.status)
	require.Empty(t, got.body)
	require.Equal(t, before+2, s.lastSeq())
	killed := map[string]bool{}
	for seq := before + 1; seq <= before+2; seq++ {
		fact := s.fact(seq).(events.ExecKilled)
		require.Equal(t, "bad", fact.Reason)
		killed[fact.ExecID] = true
	}
	require.Equal(t, map[string]bool{pending.ExecID: true, away.ExecID: true}, killed)
	s.write(http.MethodPost, "/api/jobs/hello/kill", "")
	s.write(http.MethodPost, "/api/jobs/never/kill", "")
	require.Equal(t, before+2, s.lastSeq())
}

func TestCascade(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	s.write(http.MethodPost, "/api/schedules", nightlyYAML, "Content-Type", yamlType)
	e := s.exec("hello", `{"target":{"pcs":["pc-01"]}}`)
	before := s.lastSeq()
	off := s.write(http.MethodPost, "/api/schedules/nightly/disable?cascade=true&cascade_kill=true", "")
	require.Equal(t, http.StatusNoContent, off.status)
	require.Equal(t, before+3, s.lastSeq())
	require.Equal(t, events.ScriptRevoked{JobID: "hello", Reason: "schedule 'nightly' was disabled"}, s.fact(before+2))
	require.Equal(t, events.ExecKilled{ExecID: e.ExecID, Reason: "schedule 'nightly' was disabled"}, s.fact(before+3))
	s.write(http.MethodPost, "/api/schedules/nightly/disable?cascade=true&cascade_kill=true", "")
	require.Equal(t, before+3, s.lastSeq())
	s.write(http.MethodPost, "/api/schedules/nightly/enable", "")
	require.JSONEq(t, `{"hello":"REVOKED"}`, s.read("/api/scripts/status").text(), "to enable is not to unrevoke")
}

func TestRetry(t *testing.T) {
	s := newSystem(t, parts{})
	s.write(http.MethodPost, "/api/jobs", strings.Replace(helloYAML, "timeout: 30s", "timeout: 30s\n  params: {a: {type: integer}}", 1), "Content-Type", yamlType)
	e := s.exec("hello", `{"target":{"groups":["g"]},"rollout":{"waves":[{"group":"g","delay":"0s"}]},"params":{"a":7},"jitter":"5s","max_parallel":"50%",`+
		`"deadline_at":"2030-01-01T00:00:00Z","retry":{"max":2,"backoff":"30s"}}`)
	none := s.do(http.MethodPost, "/api/executions/"+e.ExecID+"/retry", "")
	require.Equal(t, http.StatusConflict, none.status)
	require.Contains(t, none.text(), "has no endpoint to try again: none is failed, timed_out")

	at := time.Now().UTC()
	s.append(events.ExecPlanned{
		ExecID: e.ExecID, Waves: []events.PlannedWave{{DueAt: at, Expected: []string{"ok", "bad", "slow", "silent", "stale"}, Waiting: []string{"away"}}},
		Skipped: []events.SkippedPC{{PCID: "unable", Reason: events.SkipReasonShell}}, DeadlineAt: at, ExpiresAt: at,
	})
	zero, three := 0, 3
	s.run(runOf(e, "ok"), events.StateSucceeded, &zero, events.Output{})
	s.run(runOf(e, "bad"), events.StateFailed, &three, events.Output{})
	s.run(runOf(e, "slow"), events.StateTimedOut, nil, events.Output{})
	s.append(events.RunSkipped{Run: runOf(e, "stale"), SkippedAt: at, Code: 127, Reason: events.SkipReasonStale})
	s.append(events.ExecExpired{ExecID: e.ExecID, Outcome: events.OutcomePartial})

	retry := func(body string, headers ...string) events.ExecRequested {
		var a struct {
			execAnswer
			RetryOf string `json:"retry_of"`
		}
		s.write(http.MethodPost, "/api/executions/"+e.ExecID+"/retry", body, headers...).into(t, &a)
		require.Equal(t, e.ExecID, a.RetryOf)
		x := s.requested(a.Sequence)
		require.Equal(t, a.ExecID, x.ExecID)
		require.Equal(t, e.ExecID, x.RetryOf)
		return x
	}
	x := retry(`{"reason":"once more"}`, "Idempotency-Key", "k")
	require.JSONEq(t, `{"target":{"groups":[],"pcs":["away","bad","silent","slow","stale"],"all":false},"params":{"a":7},"jitter":"5s","max_parallel":"50%","retry":{"max":2,"backoff":"30s"}}`, string(x.Plan))
	require.Equal(t, &events.Retry{Max: 2, BackoffSecs: 30}, x.Retry)
	require.Equal(t, map[string]string{"a": "7"}, x.Script.Env)
	require.Nil(t, x.DeadlineAt)
	before := s.lastSeq()
	require.Equal(t, x, retry(`{"reason":"once more"}`, "Idempotency-Key", "k"))
	require.Equal(t, before, s.lastSeq())
	require.Equal(t, http.StatusUnprocessableEntity, s.do(http.MethodPost, "/api/executions/"+x.ExecID+"/retry", `{"reason":"once more"}`, "Idempotency-Key", "k").status, "the key stands for another request")
	require.Contains(t, string(retry(`{"states":["failed"]}`).Plan), `"pcs":["bad"]`)
	require.Contains(t, string(retry(`{"states":["skipped","succeeded"]}`).Plan), `"pcs":["ok","stale","unable"]`)
	require.Equal(t, e.ExecID, s.read("/api/executions/" + x.ExecID).json(t).(map[string]any)["execution"].(map[string]any)["retry_of"])

	was := s.requested(e.Sequence)
	s.write(http.MethodPost, "/api/jobs", strings.NewReplacer("1.0.0", "2", "timeout: 30s", "timeout: 31s\n  params: {a: {type: integer}}").Replace(helloYAML), "Content-Type", yamlType)
	today := retry("")
	require.Equal(t, "2", today.Version)
	require.Equal(t, uint64(31), today.Script.TimeoutSecs, "what runs is the job of today")
	original := func(x events.ExecRequested) {
		t.Helper()
		require.Equal(t, was.Script, x.Script)
		require.Equal(t, []any{was.Version, was.JobSequence, was.JobHash}, []any{x.Version, x.JobSequence, x.JobHash})
		require.Equal(t, &events.Retry{Max: 2, BackoffSecs: 30}, x.Retry)
		require.Contains(t, string(x.Plan), `"pcs":["away","bad","silent","slow","stale"]`)
	}
	original(retry(`{"pinned":true}`))
	s.write(http.MethodDelete, "/api/jobs/hello", "")
	original(retry(""))
}

// TestRetryOfRun: what a run ran runs again, though no job holds it.
func TestRetryOfRun(t *testing.T) {
	s := newSystem(t, parts{})
	s.endpointThat(func(e events.ExecRequested) {
		s.plan(e.ExecID, "pc-01")
		three := 3
		s.run(runOf(execAnswer{ExecID: e.ExecID, JobID: e.JobID, Version: e.Version}, "pc-01"), events.StateFailed, &three, events.Output{})
	})
	first := s.write(http.MethodPost, "/api/run", `{"pc_id":"pc-01","script":"exit 3","shell":"sh","timeout_secs":7}`)
	var ran struct {
		ExecID string `json:"exec_id"`
	}
	first.into(t, &ran)
	var again execAnswer
	for range 2 { // and the retry of a retry
		s.write(http.MethodPost, "/api/executions/"+ran.ExecID+"/retry", `{"reason":"x"}`).into(t, &again)
		x := s.requested(again.Sequence)
		require.Equal(t, "adhoc-run", x.JobID)
		require.Equal(t, events.Script{Shell: "sh", Body: "exit 3", TimeoutSecs: 7, RunAs: "system"}, x.Script)
		require.Equal(t, ran.ExecID, x.RetryOf)
		require.Nil(t, x.DeadlineAt, "that was a moment of then")
		require.Equal(t, 1, again.TargetCount)
		ran.ExecID = again.ExecID
		require.Eventually(t, func() bool {
			return strings.Contains(s.read("/api/executions/"+ran.ExecID).text(), `"failed":1`)
		}, 5*time.Second, time.Millisecond)
	}
}

// TestPinnedRetryOfAnObject: the bytes that were pinned, or none.
func TestPinnedRetryOfAnObject(t *testing.T) {
	s := newSystem(t, parts{})
	s.upload("tool/1", tool)
	object := func(key string) {
		s.write(http.MethodPost, "/api/jobs", "id: obj\nversion: \"1\"\nexecute: {shell: sh, script_object: "+key+", timeout: 1s}\n", "Content-Type", yamlType)
	}
	object("tool/1")
	e := s.exec("obj", `{"target":{"pcs":["pc-01"]}}`)
	s.plan(e.ExecID, "pc-01")
	s.append(events.ExecExpired{ExecID: e.ExecID, Outcome: events.OutcomeExpired})
	var again execAnswer
	s.write(http.MethodPost, "/api/executions/"+e.ExecID+"/retry", `{"pinned":true}`).into(t, &again)
	require.Equal(t, toolHex, s.requested(again.Sequence).Script.ObjectSHA256)
	s.append(events.ExecExpired{ExecID: again.ExecID, Outcome: events.OutcomeExpired})
	s.upload("tool/2", "x")
	object("tool/2")
	s.upload("tool/1", "other")
	changed := s.do(http.MethodPost, "/api/executions/"+e.ExecID+"/retry", `{"pinned":true}`)
	require.Equal(t, http.StatusConflict, changed.status, changed.text())
	require.Contains(t, changed.text(), "other bytes")
}

// TestKillOfWhatGoesOutInParts: an exec whose facts come faster than anybody can read them is stopped all the same.
func TestKillOfWhatGoesOutInParts(t *testing.T) {
	s := newSystem(t, parts{noProjector: true})
	s.job()
	e := s.exec("hello", `{"rollout":{"waves":[{"pcs":["pc-01"],"delay":"0s"},{"pcs":["pc-02"],"pause":true}]},"max_parallel":1}`)
	s.waves(e.ExecID, "pc-01", "pc-02")
	part := func(n int) { s.append(events.WaveReleased{ExecID: e.ExecID, From: n, To: n + 1}) }
	for n := range 2500 {
		part(n)
	}
	var released struct{ Wave int }
	s.do(http.MethodPost, "/api/executions/"+e.ExecID+"/release", "").into(t, &released)
	require.Equal(t, 1, released.Wave)
	stop, stopped := make(chan struct{}), make(chan int)
	go func() {
		for n := 2500; ; n++ {
			select {
			case <-stop:
				stopped <- n
				return
			default:
				part(n)
			}
		}
	}()
	killed := s.do(http.MethodPost, "/api/executions/"+e.ExecID+"/kill", "")
	close(stop)
	t.Logf("%d parts were out in the end", <-stopped)
	require.Equal(t, http.StatusOK, killed.status, killed.text())
	require.Equal(t, events.ExecKilled{ExecID: e.ExecID}, s.fact(killed.sequence(t)))
}
