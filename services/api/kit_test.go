package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/libs/readmodel"
)

const testToken = "a-token-for-tests"

// pipes is a listener in memory: what dials it gets one end of a net.Pipe.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// system is the API with a broker of its own and a read model that the test feeds.
type system struct {
	t      testing.TB
	broker *broker.Broker
	bus    *bus.Bus
	dir    string
	client *http.Client
	// limits are what an API that is served then is told.
	limits events.Limits
	// seen is the last sequence that a write has answered; reads ask for it.
	seen atomic.Uint64
}

// parts is what a test may leave out.
type parts struct{ noProjector bool }

func newSystem(t testing.TB, without parts) *system {
	t.Helper()
	s := &system{t: t, broker: bustest.Broker(t), dir: t.TempDir()}
	s.bus = bustest.Connect(t, s.broker)
	if !without.noProjector {
		s.project()
	}
	s.client = s.serve(Deps{Bus: s.bus})
	return s
}

// serve runs an API until the test ends and gives a client for it.
func (s *system) serve(d Deps) *http.Client {
	s.t.Helper()
	listener, listening := newPipes(), make(chan struct{})
	d.Listener, d.Logger, d.Version = listener, bustest.Logger(s.t), "1.2.3"
	d.Listening = func(net.Addr) { close(listening) }
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, Config{AuthToken: testToken, ReadModelDir: s.dir, Limits: s.limits}, d) }()
	select {
	case <-listening:
	case err := <-ended:
		s.t.Fatal(err)
	}
	transport := &http.Transport{DialContext: listener.dial, MaxIdleConnsPerHost: 100}
	s.t.Cleanup(func() {
		transport.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			s.t.Errorf("run api: %v", err)
		}
	})
	return &http.Client{Transport: transport}
}

// project feeds a read model from the broker until the test ends.
func (s *system) project() {
	s.t.Helper()
	w, err := readmodel.OpenWriter(context.Background(), s.dir)
	require.NoError(s.t, err)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, stream := range []string{events.StreamLog, events.StreamPresence} {
		running.Go(func() {
			err := s.bus.Follow(ctx, bus.FollowConfig{Stream: stream, Name: "test"}, func(ctx context.Context, batch []bus.RawMsg) error {
				messages := make([]readmodel.Message, len(batch))
				for i, m := range batch {
					messages[i] = readmodel.Message(m)
				}
				_, err := w.Apply(context.WithoutCancel(ctx), stream, messages)
				for more := err == nil; more && err == nil; {
					more, err = w.WriteWords(context.WithoutCancel(ctx))
				}
				return err
			})
			if err != nil {
				s.t.Errorf("project %s: %v", stream, err)
			}
		})
	}
	s.t.Cleanup(func() {
		stop()
		running.Wait()
		require.NoError(s.t, w.Close())
	})
}

// feed makes a read model that holds nothing and is not brought further until the test ends.
func (s *system) feed() {
	s.t.Helper()
	w, err := readmodel.OpenWriter(context.Background(), s.dir)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { require.NoError(s.t, w.Close()) })
}

// answer is what the API said.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) text() string { return string(a.body) }

func (a answer) json(t testing.TB) any {
	t.Helper()
	var v any
	require.NoError(t, json.Unmarshal(a.body, &v), "%s", a.body)
	return v
}

// into decodes the body of an answer that is to be 200.
func (a answer) into(t testing.TB, v any) {
	t.Helper()
	require.Equal(t, http.StatusOK, a.status, "%s", a.body)
	require.NoError(t, json.Unmarshal(a.body, v), "%s", a.body)
}

func (a answer) sequence(t testing.TB) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(a.header.Get("Kanade-Sequence"), 10, 64)
	require.NoError(t, err, "%d %s", a.status, a.body)
	return n
}

// do sends a request with the token and headers given as name, value, …; an empty value removes a header.
func (s *system) do(method, path, body string, headers ...string) answer {
	s.t.Helper()
	a, err := s.try(context.Background(), method, path, body, headers...)
	require.NoError(s.t, err)
	return a
}

func (s *system) try(ctx context.Context, method, path, body string, headers ...string) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://api"+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Authorization", "Bearer "+testToken)
	r.Header.Set("Accept", "*/*")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Del(headers[i])
		if headers[i+1] != "" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	got, err := s.client.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	return answer{got.StatusCode, got.Header, text}, err
}

// write sends a request that must succeed and remembers its sequence.
func (s *system) write(method, path, body string, headers ...string) answer {
	s.t.Helper()
	a := s.do(method, path, body, headers...)
	require.Less(s.t, a.status, 300, "%s %s: %s", method, path, a.body)
	s.saw(a.sequence(s.t))
	return a
}

// saw keeps the largest sequence.
func (s *system) saw(seq uint64) {
	for seen := s.seen.Load(); seq > seen && !s.seen.CompareAndSwap(seen, seq); seen = s.seen.Load() {
	}
}

// read gets what is true after the last write.
func (s *system) read(path string, headers ...string) answer {
	s.t.Helper()
	return s.do(http.MethodGet, path, "", append(headers, "Kanade-Min-Sequence", strconv.FormatUint(s.seen.Load(), 10))...)
}

func (s *system) lastSeq() uint64 {
	s.t.Helper()
	n, err := s.bus.LastSeq(context.Background(), events.StreamLog)
	require.NoError(s.t, err)
	return n
}

// append writes a fact as another service would.
func (s *system) append(p events.Payload) uint64 {
	s.t.Helper()
	now, err := s.bus.Now(context.Background())
	require.NoError(s.t, err)
	e, err := events.New(p, events.Meta{ID: uuid.NewString(), Source: "/kanade/test", Time: now, Actor: "service:test"})
	require.NoError(s.t, err)
	seq, err := s.bus.Append(context.Background(), e, bus.Any)
	require.NoError(s.t, err)
	s.saw(seq)
	return seq
}

// endpoint makes an endpoint known and alive.
func (s *system) endpoint(pcID string) {
	s.t.Helper()
	s.append(events.AgentSeen{PCID: pcID, AgentVersion: "0.43.45", Hostname: "host-" + pcID, OSFamily: "linux"})
	cpu, bytes := 0.5, uint64(1<<20)
	beat, err := json.Marshal(wire.Heartbeat{
		PCID: pcID, At: time.Now().UTC(), AgentVersion: "0.43.45", Hostname: "host-" + pcID, OSFamily: "linux",
		AgentCPUPct: &cpu, AgentRSSBytes: &bytes, AgentDiskReadBytes: &bytes, AgentDiskWrittenBytes: &bytes,
	})
	require.NoError(s.t, err)
	_, err = s.bus.JetStream().Publish(context.Background(), "heartbeat."+pcID, beat)
	require.NoError(s.t, err)
	// Presence is no fact of the log: there is no sequence to wait for.
	require.Eventually(s.t, func() bool {
		a := s.read("/api/agents/" + pcID)
		return a.status == http.StatusOK && bytesContain(a.body, `"alive":true`)
	}, 5*time.Second, time.Millisecond)
}

func bytesContain(b []byte, s string) bool { return bytes.Contains(b, []byte(s)) }

const helloYAML = "id: hello\nversion: \"1.0.0\"\ndescription: says hello\nexecute:\n  shell: sh\n  script: |\n    echo hello\n  timeout: 30s\n"

// job stores the job "hello".
func (s *system) job() answer {
	s.t.Helper()
	return s.write(http.MethodPost, "/api/jobs", helloYAML, "Content-Type", "application/yaml")
}

// run reports a run from its start to its end.
func (s *system) run(r events.Run, state events.TargetState, code *int, out events.Output) {
	s.t.Helper()
	at := time.Now().UTC()
	s.append(events.RunStarted{Run: r, StartedAt: at})
	if state != "" {
		s.append(events.RunFinished{Run: r, StartedAt: at, FinishedAt: at.Add(time.Second), State: state, ExitCode: code, Stdout: out})
	}
}

// plan decides an exec for endpoints, as the scheduler would.
func (s *system) plan(execID string, pcs ...string) {
	s.t.Helper()
	at := time.Now().UTC()
	s.append(events.ExecPlanned{
		ExecID: execID, Waves: []events.PlannedWave{{DueAt: at, Expected: pcs}}, DeadlineAt: at.Add(time.Hour), ExpiresAt: at.Add(time.Hour),
	})
}

type execAnswer struct {
	ExecID      string   `json:"exec_id"`
	JobID       string   `json:"job_id"`
	Version     string   `json:"version"`
	TargetCount int      `json:"target_count"`
	Uncounted   bool     `json:"uncounted"`
	Subjects    []string `json:"subjects"`
	Sequence    uint64   `json:"sequence"`
}

func (s *system) exec(jobID, body string, headers ...string) execAnswer {
	s.t.Helper()
	var e execAnswer
	s.write(http.MethodPost, "/api/exec/"+jobID, body, headers...).into(s.t, &e)
	return e
}

// fact reads the payload of the log's fact at a sequence.
func (s *system) fact(seq uint64) events.Payload {
	s.t.Helper()
	m, ok, err := s.bus.Get(context.Background(), events.StreamLog, seq)
	require.NoError(s.t, err)
	require.True(s.t, ok)
	stored, err := m.Stored()
	require.NoError(s.t, err)
	p, err := stored.Payload()
	require.NoError(s.t, err)
	return p
}

// requested is the request of an exec at a sequence.
func (s *system) requested(seq uint64) events.ExecRequested {
	s.t.Helper()
	e, ok := s.fact(seq).(events.ExecRequested)
	require.True(s.t, ok)
	return e
}

// runOf names the run of an exec on an endpoint.
func runOf(e execAnswer, pcID string) events.Run {
	request := events.DeriveID(e.ExecID, "request", pcID)
	return events.Run{PCID: pcID, ExecID: e.ExecID, RequestID: request, ResultID: events.ResultID(request, pcID), JobID: e.JobID, Version: e.Version}
}
