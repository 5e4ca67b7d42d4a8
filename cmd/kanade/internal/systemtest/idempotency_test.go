package systemtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/agent"
	"kanade/services/api"
)

// fate is what happens to an api in the middle of a request.
type fate string

const (
	killed    fate = "killed"    // it is gone; another one is started
	cutOff    fate = "cut off"   // it loses the broker, and finds it again
	deserted  fate = "deserted"  // its clients are gone, and ask again at once
	paralysed fate = "paralysed" // it stands still for seconds; another one is asked meanwhile, and then it goes on
)

// TestProveIdempotency lets clients repeat requests under one Idempotency-Key until they are answered, while something
// happens to the api at every point of a request: at each write to the broker, before, in the middle and after it, and at
// each read. Every key leaves one fact, all its clients are answered the same, though an endpoint joins between the answer
// and its repetition, and another body under it is refused; a key on the kills of two execs is two kills, and a run under a
// key has no id of the client's own. By default one client meets death at every point, and the other fates at every second
// one; half of them under the race detector.
func TestProveIdempotency(t *testing.T) {
	long(t)
	crowds, seed := extent(t, 4, 2)
	full := crowds == 4
	points, requests, execs := map[fate]int{}, 0, 0
	for _, f := range []fate{killed, cutOff, deserted, paralysed} {
		for crowd := range crowds {
			t.Run(fmt.Sprintf("%s/%d clients", f, 1+2*crowd), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := newSiege(t, seed, f, 1+2*crowd)
					step, most := 1, math.MaxInt
					switch {
					case full:
					case crowd > 0:
						most = 12
						fallthrough
					case f != killed:
						step = 2
					}
					if raced && !full {
						step *= 2
					}
					for point := 1 + s.r.IntN(step); point <= most && s.round(point); point += step {
					}
					s.requireOnce()
					points[f] += s.points
					requests, execs = requests+s.requests, execs+len(s.keys)
				})
			})
			if t.Failed() {
				return
			}
		}
	}
	t.Logf("PROVED %s: %d execs, one for each key; %d requests; api killed at %d points, cut off at %d, deserted at %d, paralysed at %d; seed %d",
		t.Name(), execs, requests, points[killed], points[cutOff], points[deserted], points[paralysed], seed)
}

// siege is a site whose api is in trouble.
type siege struct {
	*site
	r       *rand.Rand
	fate    fate
	clients int
	seats   int
	mu      sync.Mutex
	seat    *seat // which clients ask
	// through are the errands that went through untouched at an earlier point.
	through          map[string]bool
	keys             map[string]string // of execs: their ids
	points, requests int
	runner           runner
	operator         *bus.Bus
	// joined counts the endpoints that have joined; killed are execs that were killed under another one's key.
	joined int
	killed []string
}

// seat is one api and where it is asked.
type seat struct {
	name   string
	way    *fuse
	pipes  pipes
	asking context.Context // ends when its clients leave
	leave  context.CancelFunc
}

func newSiege(t *testing.T, seed uint64, f fate, clients int) *siege {
	s := &siege{
		site: newSite(t), r: rand.New(rand.NewPCG(seed, uint64(clients))), fate: f, clients: clients,
		through: map[string]bool{}, keys: map[string]string{}, runner: runner{runs: map[string]int{}},
	}
	s.operator = bustest.Dial(t, s.broker)
	s.startProjector()
	s.startScheduler("scheduler")
	s.startAgent("runner", t.TempDir(), s.broker, &s.runner)
	s.startSeat()
	settle(time.Second)
	s.ask(&errand{path: "/api/jobs", body: "id: job\nversion: \"1\"\nexecute: {shell: sh, script: \"true\", timeout: 30s}\n", key: "job"})
	return s
}

// startSeat starts another api, which clients ask from now on.
func (s *siege) startSeat() {
	s.t.Helper()
	s.seats++
	x := &seat{name: fmt.Sprintf("api-%d", s.seats), way: &fuse{broker: s.broker}}
	listener := x.pipes.listen()
	s.run(x.name, x.way, func(ctx context.Context, b *bus.Bus) error {
		return api.Run(ctx, api.Config{AuthToken: kitToken, ReadModelDir: s.readModel}, api.Deps{Bus: b, Listener: listener, Logger: quiet(s.t)})
	})
	s.sit(x)
}

func (s *siege) sit(x *seat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.asking, x.leave = context.WithCancel(context.Background())
	s.seat = x
}

// now is the api that is asked now, and the context of those who ask it.
func (s *siege) now() (*seat, context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seat, s.seat.asking
}

// errand is a request under a key. what are the members of the answer that are the same for ever; nil is all of it.
type errand struct {
	name, path, body, other, key string
	what                         []string
	// meanwhile is done before the answered request is repeated; nil for nothing.
	meanwhile func()
}

// round sends an exec through its life, with the api in trouble at a point of each request. It gives false when all of
// them went through without getting to that point.
func (s *siege) round(point int) (more bool) {
	s.t.Helper()
	key := fmt.Sprintf("%d-", point)
	exec := &errand{
		name: "exec", path: "/api/exec/job", key: key + "exec", other: `{"target":{"pcs":["a","b"]}}`,
		body: `{"target":{"pcs":["a","b","c"]},"rollout":{"strategy":"wave","waves":[{"pcs":["a"],"delay":"0s"},{"pcs":["b"],"pause":true},{"pcs":["c"],"pause":true}]}}`,
	}
	id := s.besiege(exec, point)["exec_id"].(string)
	s.keys[exec.key] = id
	all := &errand{
		name: "all", path: "/api/exec/job", key: key + "all", body: `{"target":{"all":true}}`, other: `{"target":{"groups":["a"]}}`,
		meanwhile: func() { s.join(fmt.Sprintf("pc-%d", point)) },
	}
	everywhere := s.besiege(all, point)
	s.keys[all.key] = everywhere["exec_id"].(string)
	s.requireCount(everywhere)
	run := &errand{
		name: "run", path: "/api/run", key: key + "run", body: `{"pc_id":"runner","shell":"sh","script":"a","timeout_secs":30}`,
		other: `{"pc_id":"runner","shell":"sh","script":"b","timeout_secs":30}`,
	}
	s.keys[run.key] = s.besiege(run, point)["exec_id"].(string)
	for _, name := range []string{"pause", "resume", "release", "cancel", "kill", "retry"} {
		e := &errand{
			name: name, path: "/api/executions/" + id + "/" + name, body: `{"reason":"why not"}`, other: `{"reason":"no"}`, key: key + name,
			what: []string{"exec_id", "sequence", "wave", "Kanade-Sequence"},
		}
		if name == "retry" {
			e.what = nil
		}
		answer := s.besiege(e, point)
		if name == "retry" {
			require.Equal(s.t, id, answer["retry_of"])
			s.keys[e.key] = answer["exec_id"].(string)
		}
	}
	s.requireScope(key, id, everywhere["exec_id"].(string))
	for _, e := range []string{"exec", "all", "run", "pause", "resume", "release", "cancel", "kill", "retry"} {
		more = more || !s.through[e]
	}
	return more
}

// join makes another endpoint known, with an agent that runs nothing of this.
func (s *siege) join(pc string) {
	s.t.Helper()
	beat, err := json.Marshal(wire.Heartbeat{PCID: pc, At: time.Now(), AgentVersion: "0.43.45", Hostname: pc, OSFamily: "windows"})
	require.NoError(s.t, err)
	_, err = s.operator.JetStream().Publish(s.t.Context(), "heartbeat."+pc, beat)
	require.NoError(s.t, err)
	s.joined++
	settle(2 * time.Second)
}

// requireCount holds what an exec to all was answered against the fleet of that moment: the runner, and whoever had joined
// before. The one that joined between the answer and its repetition is not in it.
func (s *siege) requireCount(answer map[string]any) {
	s.t.Helper()
	require.NotContains(s.t, answer, "uncounted")
	require.InDelta(s.t, s.joined, answer["target_count"], 0, "the runner, and all but the last of %d", s.joined)
}

// requireScope holds that a key stands for one act on one exec: the kill of another exec under the key of the first kill is
// another request; and that a run under a key has no other id than that of the key.
func (s *siege) requireScope(key, first, second string) {
	s.t.Helper()
	kill := func(id string) any {
		return s.ask(&errand{name: "kill under one key", path: "/api/executions/" + id + "/kill", body: `{"reason":"why not"}`, key: key + "kill"})["sequence"]
	}
	one, two := kill(first), kill(second)
	require.NotEqual(s.t, one, two)
	require.Equal(s.t, []any{one, two}, []any{kill(first), kill(second)})
	s.killed = append(s.killed, second)
	x, asking := s.now()
	for _, script := range []string{"a", "b"} {
		id := events.DeriveID(key, script)
		body := `{"pc_id":"runner","shell":"sh","script":"` + script + `","exec_id":"` + id + `"}`
		status, _, text, err := s.request(asking, x, "/api/run", body, key+"named")
		require.NoError(s.t, err)
		require.Equal(s.t, http.StatusUnprocessableEntity, status, "%s", text)
	}
}

// besiege lets all clients do an errand, brings trouble to the api at a point of it, and gives the answer.
func (s *siege) besiege(e *errand, point int) map[string]any {
	s.t.Helper()
	troubled, _ := s.now()
	var blown <-chan struct{}
	if !s.through[e.name] {
		settle(time.Second) // what an api does when it begins is no point of the request
		blown = troubled.way.light(point, s.fate)
	}
	answers, done := make([]map[string]any, s.clients), make(chan struct{})
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() { answers[i] = s.ask(e) })
	}
	go func() { all.Wait(); close(done) }()
	select {
	case <-blown:
		s.points++
		s.trouble(troubled, done)
	case <-done:
		if blown != nil && troubled.way.quench() {
			s.through[e.name] = true
		} else if blown != nil { // it was about to happen
			<-blown
			s.points++
			s.trouble(troubled, done)
		}
	}
	<-done
	if e.meanwhile != nil {
		e.meanwhile()
	}
	again := s.ask(e)
	for _, a := range answers {
		require.Equal(s.t, e.same(again), e.same(a), "%s under key %s", e.name, e.key)
	}
	x, asking := s.now()
	status, _, text, err := s.request(asking, x, e.path, e.other, e.key)
	require.NoError(s.t, err)
	require.Equal(s.t, http.StatusUnprocessableEntity, status, "%s", text)
	return again
}

// trouble is what comes to an api after the point.
func (s *siege) trouble(x *seat, done <-chan struct{}) {
	s.t.Helper()
	switch s.fate {
	case killed:
		x.leave()
		s.cut(x.name)
		s.startSeat()
	case cutOff:
	case deserted:
		x.leave()
		s.sit(x)
	case paralysed:
		x.leave()
		s.startSeat()
		lasts := time.Duration(s.r.Int64N(int64(8 * time.Second)))
		settle(lasts) // the others are answered meanwhile, or not
		x.way.wake()
		<-done
		settle(5 * time.Second) // what it had begun, it has ended
		s.cut(x.name)
	}
}

// ask repeats a request until it is answered, and gives the answer.
func (s *siege) ask(e *errand) map[string]any {
	s.t.Helper()
	for range 200 {
		x, asking := s.now()
		ctx, cancel := context.WithTimeout(asking, 5*time.Second)
		status, header, text, err := s.request(ctx, x, e.path, e.body, e.key)
		cancel()
		if err != nil || status >= 500 {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		answer := map[string]any{}
		if status != http.StatusOK && e.name != "" {
			s.t.Errorf("%s under key %s: %d %s", e.name, e.key, status, text)
		} else if e.name != "" {
			if err := json.Unmarshal(text, &answer); err != nil {
				s.t.Error(err)
			}
			answer["Kanade-Sequence"] = header.Get("Kanade-Sequence")
		}
		return answer
	}
	s.t.Errorf("%s under key %s is not answered", e.name, e.key)
	return map[string]any{}
}

// request sends a request once.
func (s *siege) request(ctx context.Context, x *seat, path, body, key string) (int, http.Header, []byte, error) {
	s.mu.Lock()
	s.requests++
	s.mu.Unlock()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://api"+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	r.Header.Set("Authorization", "Bearer "+kitToken)
	r.Header.Set("Idempotency-Key", key)
	r.Header.Set("Content-Type", "application/json")
	if !strings.HasPrefix(body, "{") {
		r.Header.Set("Content-Type", "application/yaml")
	}
	transport := &http.Transport{DialContext: x.pipes.dial, DisableKeepAlives: true}
	answer, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return 0, nil, nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, answer.Header, text, err
}

// same are the members of an answer that must be the same each time.
func (e *errand) same(answer map[string]any) map[string]any {
	if e.what == nil {
		return answer
	}
	same := map[string]any{}
	for _, name := range e.what {
		same[name] = answer[name]
	}
	return same
}

// requireOnce holds the log against the keys: one request for each of those of execs, and one of every intent.
func (s *siege) requireOnce() {
	s.t.Helper()
	b := bustest.Dial(s.t, s.broker)
	ctx, done := context.WithCancel(s.t.Context())
	defer done()
	last, err := b.LastSeq(ctx, events.StreamLog)
	require.NoError(s.t, err)
	requested, facts := map[string]string{}, map[string]int{}
	require.NoError(s.t, b.Follow(ctx, bus.FollowConfig{Stream: events.StreamLog}, func(_ context.Context, batch []bus.RawMsg) error {
		for _, m := range batch {
			e, err := m.Event()
			if err != nil {
				return err
			}
			p, err := e.Payload()
			if err != nil {
				return err
			}
			if x, is := p.(events.ExecRequested); is {
				require.NotContains(s.t, requested, x.IdempotencyKey)
				requested[x.IdempotencyKey] = x.ExecID
			}
			facts[e.Type+" "+e.Subject]++
			if m.Seq >= last {
				done()
			}
		}
		return nil
	}))
	require.Equal(s.t, s.keys, requested)
	for _, id := range s.killed {
		require.Equal(s.t, 1, facts["kanade.exec.killed.v1 "+id], "kills of exec %s", id)
	}
	for key, id := range s.keys {
		if strings.HasSuffix(key, "run") {
			require.Equal(s.t, 1, s.runner.runs[id], "runs of exec %s", id)
		}
		if !strings.HasSuffix(key, "exec") {
			continue
		}
		for _, fact := range []string{"requested", "paused", "resumed", "wave-advanced", "cancelled", "killed"} {
			require.Equal(s.t, 1, facts["kanade.exec."+fact+".v1 "+id], "%s of exec %s", fact, id)
		}
	}
}

// runner is the executor of an endpoint; it counts the runs of each exec.
type runner struct {
	mu   sync.Mutex
	runs map[string]int
}

func (*runner) Supports(string) bool { return true }

func (x *runner) Run(_ context.Context, _ string, _ agent.Script, env []string, _, _ io.Writer) (agent.Exit, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range env {
		if id, is := strings.CutPrefix(e, "KANADE_EXEC_ID="); is {
			x.runs[id]++
		}
	}
	return agent.Exit{}, nil
}

// fuse is an api's way to the broker, on which something happens at a moment that can be chosen. A write has three
// moments: nothing of it, half of it or all of it has gone out. A read has one: what came is not read.
type fuse struct {
	broker *broker.Broker
	mu     sync.Mutex
	left   int // moments to go; 0 when it does not burn
	fate   fate
	blown  chan struct{}
	dead   bool
	// asleep: nothing goes out, and nothing is read, until awake is closed.
	asleep bool
	awake  chan struct{}
	held   []func()
}

// light makes it happen at a moment from here on.
func (f *fuse) light(moment int, fate fate) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left, f.fate, f.blown = moment, fate, make(chan struct{})
	return f.blown
}

// quench ends it; it gives false when that is too late.
func (f *fuse) quench() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	left := f.left
	f.left = 0
	return left > 0
}

// burn takes moments away, and gives how many were left when they are more than there are; otherwise 0.
func (f *fuse) burn(moments int) (at int) {
	if f.left == 0 || f.left > moments {
		f.left = max(f.left-moments, 0)
		return 0
	}
	at, f.left = f.left, 0
	return at
}

// happen is the moment; rest is what has not gone out. It gives false when the connection is gone.
func (f *fuse) happen(c net.Conn, rest []byte) (there bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch f.fate {
	case killed, cutOff:
		f.dead = f.fate == killed
		_ = c.Close()
	case paralysed:
		f.asleep, f.awake = true, make(chan struct{})
		f.hold(c, rest)
	}
	close(f.blown)
	return f.fate == deserted || f.fate == paralysed
}

func (f *fuse) hold(c net.Conn, p []byte) {
	if len(p) > 0 {
		copied := bytes.Clone(p)
		f.held = append(f.held, func() { _, _ = c.Write(copied) })
	}
}

// wake lets out what was held back, in order.
func (f *fuse) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.awake)
	go func() {
		for f.release() {
		}
	}()
}

func (f *fuse) release() (more bool) {
	f.mu.Lock()
	if len(f.held) == 0 {
		f.asleep = false
		f.mu.Unlock()
		return false
	}
	write := f.held[0]
	f.held = f.held[1:]
	f.mu.Unlock()
	write()
	return true
}

func (f *fuse) InProcessConn() (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return nil, net.ErrClosed
	}
	c, err := f.broker.InProcessConn()
	if err != nil {
		return nil, err
	}
	return burning{c, f}, nil
}

type burning struct {
	net.Conn
	fuse *fuse
}

func (c burning) Write(p []byte) (int, error) {
	f := c.fuse
	f.mu.Lock()
	if f.asleep {
		f.hold(c.Conn, p)
		f.mu.Unlock()
		return len(p), nil
	}
	at := f.burn(3)
	f.mu.Unlock()
	if at == 0 {
		return c.Conn.Write(p)
	}
	out := len(p) * (at - 1) / 2
	if out > 0 {
		if n, err := c.Conn.Write(p[:out]); err != nil {
			return n, err
		}
	}
	if !f.happen(c.Conn, p[out:]) {
		return out, net.ErrClosed
	}
	if f.fate == deserted && out < len(p) {
		n, err := c.Conn.Write(p[out:])
		return out + n, err
	}
	return len(p), nil
}

func (c burning) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		return n, err
	}
	f := c.fuse
	f.mu.Lock()
	at := 0
	if !f.asleep {
		at = f.burn(1)
	}
	f.mu.Unlock()
	if at > 0 && !f.happen(c.Conn, nil) {
		return 0, net.ErrClosed
	}
	f.mu.Lock()
	asleep, awake := f.asleep, f.awake
	f.mu.Unlock()
	if asleep {
		<-awake
	}
	return n, nil
}
