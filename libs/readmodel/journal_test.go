package readmodel

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/events"
	"kanade/libs/events/wire"
)

var begin = time.Date(2026, 11, 23, 2, 30, 0, 0, time.UTC)

// journal is a LOG in memory.
type journal struct {
	t        require.TestingT
	messages []Message
	later    time.Duration // what has passed beside a millisecond a message
	told     map[string]time.Time
}

func (j *journal) now() time.Time {
	return begin.Add(time.Duration(len(j.messages))*time.Millisecond + j.later)
}

func (j *journal) store(subject string, h events.Header, body []byte) {
	seq := uint64(len(j.messages) + 1)
	j.messages = append(j.messages, Message{
		Stream: events.StreamLog, Subject: subject, Seq: seq, Time: j.now().Add(time.Millisecond), Header: h, Data: body,
	})
}

func (j *journal) append(p events.Payload, actor events.Actor) {
	body, err := json.Marshal(p)
	require.NoError(j.t, err)
	id := events.DeriveID(p.EventType(), string(body))
	if j.told == nil {
		j.told = map[string]time.Time{}
	}
	if _, again := j.told[id]; !again { // what is told twice is the same fact, of the same time
		j.told[id] = j.now()
	}
	e, err := events.New(p, events.Meta{ID: id, Source: "/kanade/test", Time: j.told[id], Actor: actor})
	require.NoError(j.t, err)
	h, body, err := e.Encode()
	require.NoError(j.t, err)
	j.store(e.NATSSubject(), h, body)
}

func (j *journal) raw(subject string, message any) {
	body, err := json.Marshal(message)
	require.NoError(j.t, err)
	j.store(subject, nil, body)
}

func run(exec string, pc int) events.Run {
	pcID := fmt.Sprintf("pc-%02d", pc)
	request := events.DeriveID(exec, "request", pcID)
	return events.Run{
		PCID: pcID, ExecID: exec, RequestID: request, ResultID: events.ResultID(request, pcID), JobID: "hello", Version: "1.0.0",
	}
}

func requested(exec, job string) events.ExecRequested {
	return events.ExecRequested{
		ExecID: exec, JobID: job, Version: "1.0.0", JobSequence: 1, JobHash: "h",
		Script: events.Script{Shell: "sh", Body: "true", TimeoutSecs: 30, RunAs: "system"}, Plan: json.RawMessage(`{}`),
	}
}

func finished(r events.Run, state events.TargetState) events.RunFinished {
	f := events.RunFinished{
		Run: r, StartedAt: begin.Add(time.Second), FinishedAt: begin.Add(2 * time.Second), State: state,
		Stdout: events.Output{Text: "out of " + r.PCID, Bytes: 13},
	}
	if code := map[events.TargetState]int{events.StateFailed: 3}[state]; state == events.StateFailed || state == events.StateSucceeded {
		f.ExitCode = &code
	}
	return f
}

// step appends one message.
type step func(*journal)

func tell(p events.Payload) step { return func(j *journal) { j.append(p, "user:op") } }

// drawLog draws a log of whole execs and whatever else there is: valid lives, told twice, late, early and in the words
// of old agents, beside poison.
func drawLog(t *rapid.T) []Message {
	var queues [][]step
	for i := range rapid.IntRange(0, 3).Draw(t, "execs") {
		exec := fmt.Sprintf("exec-%d", i)
		pcs := rapid.IntRange(0, 5).Draw(t, "pcs")
		queues = append(queues, drawExec(t, exec, pcs))
		for pc := range pcs + rapid.IntRange(0, 1).Draw(t, "unplanned") {
			queues = append(queues, drawRun(t, exec, pc))
		}
	}
	for range rapid.IntRange(0, 2).Draw(t, "own runs") { // an old agent's own schedule: nobody requested it
		queues = append(queues, drawRun(t, rapid.SampledFrom([]string{"", "own-1"}).Draw(t, "own id"), 9))
	}
	queues = append(queues, drawDocuments(t))
	j := &journal{t: t}
	for len(queues) > 0 {
		n := rapid.IntRange(0, len(queues)-1).Draw(t, "next")
		if len(queues[n]) == 0 {
			queues = append(queues[:n], queues[n+1:]...)
			continue
		}
		queues[n][0](j)
		queues[n] = queues[n][1:]
	}
	return j.messages
}

func drawExec(t *rapid.T, exec string, pcs int) []step {
	plan := events.ExecPlanned{ExecID: exec, Waves: make([]events.PlannedWave, rapid.IntRange(1, 2).Draw(t, "waves")), ExpiresAt: begin.Add(time.Hour)}
	for pc := range pcs {
		id := run(exec, pc).PCID
		wave := &plan.Waves[rapid.IntRange(0, len(plan.Waves)-1).Draw(t, "wave")]
		switch rapid.IntRange(0, 3).Draw(t, "planned as") {
		case 0:
			plan.Skipped = append(plan.Skipped, events.SkippedPC{PCID: id, Reason: events.SkipReasonShell})
		case 1:
			wave.Waiting = append(wave.Waiting, id)
		default:
			wave.Expected = append(wave.Expected, id)
		}
	}
	request := requested(exec, "hello")
	request.RetryOf = rapid.SampledFrom([]string{"", "exec-0"}).Draw(t, "retry of")
	steps := []step{tell(request)}
	if rapid.Bool().Draw(t, "in parts") {
		plan.MaxParallel = &pcs
	}
	steps = append(steps, tell(plan))
	for i, w := range plan.Waves {
		for _, part := range drawParts(t, plan.MaxParallel != nil, len(w.Expected)+len(w.Waiting)) {
			later := begin.Add(2 * time.Hour)
			release := events.WaveReleased{ExecID: exec, Wave: i, From: part[0], To: part[1]}
			if i > 0 {
				release.ExpiresAt = &later
			}
			steps = append(steps, tell(release), tell(events.WaveDispatched{ExecID: exec, Wave: i, From: part[0], To: part[1]}))
		}
	}
	if rapid.Bool().Draw(t, "closed") {
		steps = append(steps, tell(events.ExecClosed{ExecID: exec, Outcome: events.OutcomePartial}))
	}
	if rapid.Bool().Draw(t, "expired") {
		steps = append(steps, tell(events.ExecExpired{ExecID: exec, Outcome: events.OutcomeExpired}))
	}
	for _, intent := range rapid.SliceOfN(rapid.SampledFrom([]events.Payload{
		events.ExecHalted{ExecID: exec, Failed: 2, Allowed: 1}, events.ExecCancelled{ExecID: exec, Reason: "wrong"}, events.ExecKilled{ExecID: exec, Reason: "bad"},
		events.ExecPaused{ExecID: exec}, events.ExecResumed{ExecID: exec}, events.WaveAdvanced{ExecID: exec, Wave: 1, Reason: "good"},
	}), 0, 3).Draw(t, "intents") {
		steps = slices.Insert(steps, rapid.IntRange(1, len(steps)).Draw(t, "when"), tell(intent))
	}
	switch rapid.IntRange(0, 9).Draw(t, "request") {
	case 0: // nobody can read it
		steps[0] = func(j *journal) { j.store("events.exec."+exec+".requested", nil, []byte("{")) }
	case 1: // it comes after facts that claim it
		to := rapid.IntRange(0, len(steps)-1).Draw(t, "late")
		steps = slices.Insert(steps[1:], to, steps[0])
	}
	return repeat(t, steps[:rapid.IntRange(1, len(steps)).Draw(t, "told")])
}

// drawParts cuts a wave into parts; a whole wave is {0, 0}.
func drawParts(t *rapid.T, parts bool, size int) [][2]int {
	if !parts || size == 0 {
		return [][2]int{{}}
	}
	var out [][2]int
	for at := 0; at < size; {
		to := at + rapid.IntRange(1, size-at).Draw(t, "part")
		out, at = append(out, [2]int{at, to}), to
	}
	return out
}

func drawRun(t *rapid.T, exec string, pc int) []step {
	r := run(exec, pc)
	steps := []step{
		tell(events.RunReceived{Run: r, ReceivedAt: begin}), tell(events.RunStarted{Run: r, StartedAt: begin.Add(time.Second)}),
		tell(finished(r, rapid.SampledFrom([]events.TargetState{
			events.StateSucceeded, events.StateFailed, events.StateTimedOut, events.StateKilled, events.StateUnknown,
		}).Draw(t, "end"))),
	}
	switch rapid.IntRange(0, 3).Draw(t, "kind of agent") {
	case 0:
		steps = []step{tell(events.RunReceived{Run: r, ReceivedAt: begin}), tell(events.RunSkipped{Run: r, SkippedAt: begin, Code: 126, Reason: events.SkipReasonRevoked})}
	case 1:
		steps = []step{func(j *journal) {
			j.raw("events.started."+exec+"."+r.PCID, wire.EventStarted{
				ResultID: r.ResultID, RequestID: r.RequestID, ExecID: exec, PCID: r.PCID, StartedAt: begin.Add(time.Second), ManifestID: "hello", Version: "1.0.0",
			})
		}, func(j *journal) {
			j.raw("results.7", wire.ExecResult{
				ResultID: r.ResultID, RequestID: r.RequestID, ExecID: exec, PCID: r.PCID, ExitCode: 1, Stderr: "oops\n",
				StartedAt: begin.Add(time.Second), FinishedAt: begin.Add(3 * time.Second), ManifestID: "hello",
			})
		}}
		if exec == "" {
			steps = steps[1:]
		}
	case 2: // the agent lost it, and a true end turned up
		steps = append(steps, tell(finished(r, events.StateUnknown)))
	}
	steps = repeat(t, steps)
	return rapid.Permutation(steps).Draw(t, "order")[:rapid.IntRange(0, len(steps)).Draw(t, "said")]
}

func drawDocuments(t *rapid.T) []step {
	document := events.DocumentRevision{Document: json.RawMessage(`{"id":"x"}`), Source: "id: x\n", SourceType: "yaml", Hash: "h"}
	request := requested("exec-0", "hello")
	all := []step{
		tell(events.JobSaved{ID: "hello", Version: "1", DocumentRevision: document}), tell(events.JobDeleted{ID: "hello"}),
		tell(events.ScheduleSaved{ID: "nightly", JobID: "hello", Enabled: true, DocumentRevision: document}), tell(events.ScheduleDeleted{ID: "nightly"}),
		tell(events.ScheduleTicked{ID: "nightly", Outcome: events.TickFired, From: begin, To: begin, Count: 1, Exec: &request}),
		tell(events.ScheduleTicked{ID: "nightly", Outcome: events.TickSkipped, Reason: events.TickReasonDisabled, From: begin, To: begin.Add(time.Hour), Count: 2}),
		tell(events.ScheduleProgressed{ID: "nightly"}), tell(progressed("", 1, 0)), tell(progressed("pc-00", 1, 2)), tell(progressed("pc-00", 2, 0)), tell(progressed("pc-01", 2, 1)),
		tell(events.CalendarSaved{ID: events.CalendarID("holidays"), Calendar: "holidays", DocumentRevision: document}),
		tell(events.CalendarDeleted{ID: events.CalendarID("holidays"), Calendar: "holidays"}),
		tell(events.AgentSeen{PCID: "pc-00", AgentVersion: "1"}), tell(events.AgentSeen{PCID: "pc-00", AgentVersion: "2", Hostname: "h"}),
		tell(events.AgentGrouped{PCID: "pc-00", Groups: []string{"b", "a", "a"}}), tell(events.AgentGrouped{PCID: "pc-00", Groups: []string{"c"}}),
		tell(events.ScriptRevoked{JobID: "hello", Reason: "deletes too much"}), tell(events.ScriptUnrevoked{JobID: "hello"}),
		tell(events.FreezeSaved{ID: events.FleetID, From: "2026-12-24", TZ: "local"}), tell(events.FreezeCleared{ID: events.FleetID}),
		tell(events.InstallationSaved{ID: events.InstallationID, Zone: "UTC"}),
		func(j *journal) { j.append(events.ScriptRevoked{JobID: "hello"}, "cli:script_status") },
		func(j *journal) { j.append(requested("exec-7", "hello"), "schedule:nightly") }, // nobody's act
		func(j *journal) {
			j.raw("audit.operator.revoke.hello", wire.AuditEvent{
				Actor: "operator", Action: "revoke", Target: "hello", Payload: json.RawMessage(`{"sub":"ann","source":"cli"}`), OccurredAt: begin.Add(-time.Hour),
			})
		},
		func(j *journal) { j.store("audit.operator.exec.hello", nil, []byte(`{"actor":"operator"}`)) },
		func(j *journal) { j.store("results.3", nil, []byte("{")) },
		func(j *journal) { j.store("events.job.hello.saved", nil, []byte("{}")) },
	}
	return rapid.SliceOfN(rapid.SampledFrom(all), 0, 8).Draw(t, "documents")
}

// progressed is what nightly remembers of an endpoint after its fire of an hour, with failures in a row or a success.
func progressed(pcID string, hour, failures int) events.ScheduleProgressed {
	fired := begin.Add(time.Duration(hour) * time.Hour)
	p := events.Progress{PCID: pcID, Fired: &fired, Failures: failures}
	if failures == 0 {
		p.Succeeded, p.Version = &fired, "1.0.0"
	} else {
		later := fired.Add(time.Minute)
		p.NotBefore = &later
	}
	return events.ScheduleProgressed{ID: "nightly", Changes: []events.Progress{p}}
}

// repeat tells some steps twice.
func repeat(t *rapid.T, steps []step) []step {
	var out []step
	for _, s := range steps {
		for range rapid.SampledFrom([]int{1, 1, 1, 2}).Draw(t, "times") {
			out = append(out, s)
		}
	}
	return out
}
