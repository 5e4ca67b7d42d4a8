package scheduler_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/libs/bus/bustest"
	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/scheduler"
)

func TestMain(m *testing.M) { bustest.Main(m) }

// world is a broker, an operator's connection to it, and agents that do as they are told. It lives inside a bubble.
type world struct {
	t      *testing.T
	broker *broker.Broker
	bus    *bus.Bus
	ears   *ears
	// limits and workers of its schedulers; none are the defaults, and three.
	limits  events.Limits
	workers int
	// appended counts facts for their ids: at one instant several may be stored.
	appended atomic.Int64
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, broker: bustest.Broker(t)}
	w.bus = bustest.Connect(t, w.broker)
	w.ears = w.listen()
	return w
}

// run starts a scheduler with a connection of its own; stop ends it and waits.
func (w *world) run(d scheduler.Deps) (stop func()) {
	w.t.Helper()
	stop, ready := w.start(d)
	select {
	case <-ready:
	case <-time.After(time.Minute):
		w.t.Fatal("the scheduler did not get ready")
	}
	return stop
}

// start is run without waiting.
func (w *world) start(d scheduler.Deps) (stop func(), ready <-chan struct{}) {
	w.t.Helper()
	return w.startOn(bustest.Dial(w.t, w.broker), d)
}

// startOn is start on a connection, which stop closes.
func (w *world) startOn(b *bus.Bus, d scheduler.Deps) (stop func(), ready <-chan struct{}) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	running, ended := make(chan struct{}), make(chan error, 1)
	d.Bus, d.Logger, d.Ready = b, bustest.Logger(w.t), func() { close(running) }
	go func() {
		ended <- scheduler.Run(ctx, scheduler.Config{Workers: cmp.Or(w.workers, 3), Limits: w.limits}, d)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
		b.Close()
	})
	w.t.Cleanup(stop)
	return stop, running
}

// append stores a fact as somebody else would.
func (w *world) append(p events.Payload, id ...string) uint64 {
	w.t.Helper()
	return w.appendAt(p, bus.Any, id...)
}

func (w *world) appendAt(p events.Payload, expected uint64, id ...string) uint64 {
	w.t.Helper()
	name := fmt.Sprintf("fact-%d", w.appended.Add(1))
	if len(id) > 0 {
		name = id[0]
	}
	e, err := events.New(p, events.Meta{ID: name, Source: "/kanade/test", Time: time.Now(), Actor: "user:test"})
	require.NoError(w.t, err)
	seq, err := w.bus.Append(w.t.Context(), e, expected)
	require.NoError(w.t, err)
	return seq
}

// job stores a job that runs "true" in sh.
func (w *world) job(id, version string) uint64 {
	w.t.Helper()
	m, err := catalog.ParseManifest(fmt.Appendf(nil, "id: %s\nversion: %q\nexecute: {shell: sh, script: 'true', timeout: 30s}\n", id, version), catalog.YAML)
	require.NoError(w.t, err)
	doc, err := m.Document()
	require.NoError(w.t, err)
	return w.append(events.JobSaved{ID: id, Version: version, DocumentRevision: events.DocumentRevision{Document: doc, SourceType: "json", Hash: catalog.Hash(doc)}})
}

// schedule stores a schedule of the job "job".
func (w *world) schedule(id, rest string) uint64 {
	w.t.Helper()
	return w.scheduleOf("job", id, rest)
}

// scheduleOf stores a schedule of a job.
func (w *world) scheduleOf(job, id, rest string) uint64 {
	w.t.Helper()
	s, err := catalog.ParseSchedule(fmt.Appendf(nil, "id: %s\njob_id: %s\n%s\n", id, job, rest), catalog.YAML)
	require.NoError(w.t, err)
	require.NoError(w.t, s.Unsupported())
	doc, err := s.Document()
	require.NoError(w.t, err)
	return w.append(events.ScheduleSaved{ID: id, JobID: job, Enabled: s.Enabled, DocumentRevision: events.DocumentRevision{Document: doc, SourceType: "json", Hash: catalog.Hash(doc)}})
}

// exec asks for a run of a script.
func (w *world) exec(id string, target catalog.Target, change ...func(*events.ExecRequested)) {
	w.t.Helper()
	w.append(execRequest(w.t, id, target, change...), events.DeriveID(id, "requested"))
}

func execRequest(t *testing.T, id string, target catalog.Target, change ...func(*events.ExecRequested)) events.ExecRequested {
	t.Helper()
	plan, err := (&catalog.Plan{Target: target}).Document()
	require.NoError(t, err)
	p := events.ExecRequested{
		ExecID: id, JobID: "job", Version: "1", JobSequence: 1, JobHash: "h",
		Script: events.Script{Shell: "sh", Body: "true", TimeoutSecs: 30, RunAs: "system"}, Plan: plan,
	}
	for _, c := range change {
		c(&p)
	}
	return p
}

// facts are the payloads of one aggregate, in order.
func (w *world) facts(a events.Aggregate, id string) []events.Payload {
	w.t.Helper()
	stored, err := w.bus.Load(w.t.Context(), a, id, 0)
	require.NoError(w.t, err)
	var all []events.Payload
	for _, s := range stored {
		p, err := s.Payload()
		require.NoError(w.t, err)
		all = append(all, p)
	}
	return all
}

// of picks the payloads of one type.
func of[P events.Payload](all []events.Payload) []P {
	var picked []P
	for _, p := range all {
		if x, ok := p.(P); ok {
			picked = append(picked, x)
		}
	}
	return picked
}

// types are the last words of the facts of an exec: "requested", "planned", …
func (w *world) types(execID string) []string {
	var names []string
	for _, p := range w.facts(events.AggregateExec, execID) {
		names = append(names, strings.TrimSuffix(strings.TrimPrefix(p.EventType(), "kanade.exec."), ".v1"))
	}
	return names
}

// stored are the message ids of the commands in EXEC, in order.
func (w *world) stored() []string {
	w.t.Helper()
	info, err := w.bus.JetStream().Stream(w.t.Context(), events.StreamExec)
	require.NoError(w.t, err)
	state, err := info.Info(w.t.Context())
	require.NoError(w.t, err)
	var ids []string
	for seq := state.State.FirstSeq; seq > 0 && seq <= state.State.LastSeq; seq++ {
		m, ok, err := w.bus.Get(w.t.Context(), events.StreamExec, seq)
		require.NoError(w.t, err)
		if ok {
			ids = append(ids, m.Header[events.HeaderMsgID][0])
		}
	}
	return ids
}

// ears hear every command as a live subscriber does.
type ears struct {
	mu    sync.Mutex
	heard []string
	first func() // called at the first command
}

func (w *world) listen() *ears {
	e := &ears{}
	_, err := w.bus.Conn().Subscribe("commands.>", func(m *nats.Msg) {
		e.mu.Lock()
		e.heard = append(e.heard, m.Header.Get(events.HeaderMsgID))
		first := e.first
		e.first = nil
		e.mu.Unlock()
		if first != nil {
			first()
		}
	})
	require.NoError(w.t, err)
	require.NoError(w.t, w.bus.Conn().Flush())
	return e
}

// of are the commands heard of an exec, sorted.
func (e *ears) of(execID string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ids []string
	for _, id := range e.heard {
		if strings.HasPrefix(id, execID+"/") {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// agent is an endpoint. It answers every command it has not had yet.
type agent struct {
	w      *world
	id     string
	groups []string
	// answer gives the facts that follow a command; nil means received, started, succeeded within two seconds.
	answer func(run events.Run) []answer
	cancel context.CancelFunc
	ended  sync.WaitGroup

	mu   sync.Mutex
	runs map[string]int // by request id
	// execs counts the runs of each exec.
	execs map[string]int
}

type answer struct {
	after time.Duration
	fact  events.Payload
}

func succeed(run events.Run) []answer {
	return []answer{
		{0, events.RunReceived{Run: run}}, {time.Second, events.RunStarted{Run: run}},
		{time.Second, events.RunFinished{Run: run, State: events.StateSucceeded}},
	}
}

func fail(run events.Run) []answer {
	return []answer{{0, events.RunReceived{Run: run}}, {time.Second, events.RunFinished{Run: run, State: events.StateFailed}}}
}

func silent(events.Run) []answer { return nil }

// agent starts an endpoint that hears its own subject, all and its groups.
func (w *world) agent(id string, answers func(events.Run) []answer, groups ...string) *agent {
	w.t.Helper()
	a := &agent{w: w, id: id, groups: groups, answer: answers, runs: map[string]int{}, execs: map[string]int{}}
	if answers == nil {
		a.answer = succeed
	}
	if len(groups) > 0 {
		w.append(events.AgentGrouped{PCID: id, Groups: groups})
	}
	a.wake()
	w.t.Cleanup(func() { a.sleep() })
	return a
}

// wake subscribes and begins to send heartbeats.
func (a *agent) wake() {
	ctx, cancel := context.WithCancel(a.w.t.Context())
	a.cancel = cancel
	subjects := []string{wire.SubjectCommandAll, wire.SubjectCommandPC(a.id)}
	for _, g := range a.groups {
		subjects = append(subjects, wire.SubjectCommandGroup(g))
	}
	for _, s := range subjects {
		sub, err := a.w.bus.Conn().Subscribe(s, func(m *nats.Msg) { a.command(ctx, m.Data) })
		require.NoError(a.w.t, err)
		context.AfterFunc(ctx, func() { _ = sub.Unsubscribe() })
	}
	a.w.beat(a.id, "1.0.0")
	a.ended.Go(func() {
		for wait(ctx, 30*time.Second) {
			a.w.beat(a.id, "1.0.0")
		}
	})
}

// sleep ends the endpoint, runs that have begun included.
func (a *agent) sleep() {
	a.cancel()
	a.ended.Wait()
}

func (a *agent) command(ctx context.Context, data []byte) {
	c, err := wire.DecodeCommand(data)
	if err != nil {
		a.w.t.Error(err)
		return
	}
	a.mu.Lock()
	a.runs[c.RequestID]++
	again := a.runs[c.RequestID] > 1
	if !again {
		a.execs[c.ExecID]++
	}
	a.mu.Unlock()
	if again {
		return
	}
	run := events.Run{PCID: a.id, ExecID: c.ExecID, RequestID: c.RequestID, ResultID: events.ResultID(c.RequestID, a.id), JobID: c.ID, Version: c.Version}
	a.ended.Go(func() {
		for _, x := range a.answer(run) {
			if !wait(ctx, x.after) {
				return
			}
			a.say(ctx, x.fact, events.DeriveID(run.ResultID, x.fact.EventType()))
		}
	})
}

// say appends a fact, for as long as it takes.
func (a *agent) say(ctx context.Context, p events.Payload, id string) {
	e, err := events.New(p, events.Meta{ID: id, Source: "/kanade/test", Time: time.Now(), Actor: events.NewActor("agent", a.id)})
	if err != nil {
		a.w.t.Error(err)
		return
	}
	for {
		_, err := a.w.bus.Append(ctx, e, bus.Any)
		if err == nil || !wait(ctx, time.Second) {
			return
		}
	}
}

// beat sends one heartbeat.
func (w *world) beat(id, version string) {
	data, err := wire.Heartbeat{PCID: id, At: time.Now(), AgentVersion: version, Hostname: id, OSFamily: "linux"}.MarshalJSON()
	require.NoError(w.t, err)
	_ = w.bus.Conn().Publish(wire.SubjectHeartbeat(id), data) // the broker may be away
}

// wait makes no timer that is due at once: in bubbles the runtime may crash over those.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// pass lets simulated time pass.
func pass(d time.Duration) { time.Sleep(d) }

// at lets simulated time pass until a clock time in UTC.
func at(t *testing.T, when string) {
	t.Helper()
	to, err := time.Parse(time.DateTime, when)
	require.NoError(t, err)
	require.Positive(t, time.Until(to))
	time.Sleep(time.Until(to))
}

// long skips a test that takes long where only short ones are asked for, as beside the race detector.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes long: run it without -short")
	}
}
