package systemtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/agent"
)

// theatre is a site with endpoints whose scripts are scripted, an operator who asks for rollouts and stops them, and
// everything that can go wrong meanwhile. What goes wrong is drawn from a seed.
type theatre struct {
	*site
	r        *rand.Rand
	seed     uint64
	pcs      []string
	groups   map[string][]string
	cables   map[string]*cable
	data     map[string]string
	starts   *starts
	operator *bus.Bus
	execs    []*rolloutExec
	// failing is how often a script fails, in percent.
	failing int
	// dark: the broker is away. asking: the api is there to be asked, now and then.
	dark, asking bool
	// workable tells when waves could go out: the broker and a scheduler were there.
	workable []moment
	facts    atomic.Int64
}

// moment is an instant from which on something is so.
type moment struct {
	at time.Time
	is bool
}

// rolloutExec is one exec that was asked for.
type rolloutExec struct {
	id     string
	plan   catalog.Plan
	killed time.Time // zero: it was not
}

func newTheatre(t testing.TB, seed uint64, endpoints int) *theatre {
	w := &theatre{
		site: newSite(t), r: rand.New(rand.NewPCG(seed, 7)), seed: seed, groups: map[string][]string{},
		cables: map[string]*cable{}, data: map[string]string{}, starts: &starts{runs: map[string]int{}, at: map[string]time.Time{}}, failing: 15,
	}
	w.operator = bustest.Dial(t, w.broker)
	for i := range endpoints {
		pc := fmt.Sprintf("pc-%02d", i)
		w.pcs, w.cables[pc], w.data[pc] = append(w.pcs, pc), &cable{broker: w.broker}, t.TempDir()
		var member []string
		for _, g := range []string{"g0", "g1", "g2"} {
			if w.r.IntN(2) == 0 {
				member = append(member, g)
				w.groups[g] = append(w.groups[g], pc)
			}
		}
		w.append(events.AgentGrouped{PCID: pc, Groups: member})
		w.startEndpoint(pc)
	}
	w.startProjector()
	w.startScheduler("scheduler-a")
	w.change()
	w.parrot()
	settle(5 * time.Second)
	return w
}

func (w *theatre) startEndpoint(pc string) {
	w.startAgent(pc, w.data[pc], w.cables[pc], &actor{theatre: w, pc: pc})
}

// append stores a fact as somebody else would, however often the broker is away.
func (w *theatre) append(p events.Payload) uint64 {
	w.t.Helper()
	e, err := events.New(p, events.Meta{
		ID: events.DeriveID("operator", fmt.Sprint(w.facts.Add(1))), Source: "/kanade/test", Time: time.Now(), Actor: "user:operator",
	})
	require.NoError(w.t, err)
	for {
		seq, err := w.operator.Append(context.Background(), e, bus.Any)
		if err == nil {
			return seq
		}
		require.ErrorIs(w.t, err, bus.ErrUnavailable)
		time.Sleep(100 * time.Millisecond)
	}
}

// open lets operators ask through the api, which comes and goes as everything else.
func (w *theatre) open() {
	w.startAPI()
	w.insist("POST", "/api/jobs", "id: job\nversion: \"1\"\nexecute: {shell: sh, timeout: 60s, script: play}\n", "Content-Type", "application/yaml")
	w.asking = true
}

// rest lets everything come to its end, without the api from some time on: nobody asks any more, and it has its price.
func (w *theatre) rest() {
	settle(6 * time.Minute)
	w.asking = false
	w.cut("api")
	settle(34 * time.Minute)
}

// insist asks until it is answered; what is answered is no refusal but of what has ended (409).
func (w *theatre) insist(method, path, body string, headers ...string) []byte {
	w.t.Helper()
	headers = append(headers, "Idempotency-Key", fmt.Sprint(w.facts.Add(1)))
	for {
		text, _, err := w.try(method, path, body, headers...)
		if err == nil || strings.Contains(err.Error(), ": 409 ") {
			return text
		}
		require.NotContains(w.t, err.Error(), ": 4")
		time.Sleep(100 * time.Millisecond)
	}
}

// intend says what an operator wants of an exec: the last part of its route, or of a wave's.
func (w *theatre) intend(x *rolloutExec, what string) {
	w.t.Helper()
	w.insist("POST", "/api/executions/"+x.id+"/"+what, "{}")
}

// exec asks for a rollout.
func (w *theatre) exec(plan catalog.Plan) *rolloutExec {
	w.t.Helper()
	doc, err := plan.Document()
	require.NoError(w.t, err)
	if w.asking {
		var answer struct {
			ExecID string `json:"exec_id"`
		}
		require.NoError(w.t, json.Unmarshal(w.insist("POST", "/api/exec/job", string(doc)), &answer))
		x := &rolloutExec{id: answer.ExecID, plan: plan}
		w.execs = append(w.execs, x)
		return x
	}
	x := &rolloutExec{id: events.DeriveID("rollout", fmt.Sprint(w.seed, len(w.execs))), plan: plan}
	w.execs = append(w.execs, x)
	w.append(events.ExecRequested{
		ExecID: x.id, JobID: "job", Version: "1", JobSequence: 1, JobHash: "h", Plan: doc,
		Script: events.Script{Shell: "sh", Body: "play", TimeoutSecs: 60, RunAs: "system"},
	})
	return x
}

// change notes whether waves can go out from here on.
func (w *theatre) change() {
	_, a := w.running["scheduler-a"]
	_, b := w.running["scheduler-b"]
	if is := (a || b) && !w.dark; len(w.workable) == 0 || w.workable[len(w.workable)-1].is != is {
		w.workable = append(w.workable, moment{time.Now(), is})
	}
}

// parrot says again what others have said, some time later: commands as the broker would deliver them twice, and facts as
// an outbox would send them again.
func (w *theatre) parrot() {
	r := rand.New(rand.NewPCG(w.seed, 11))
	conn := w.operator.Conn() // what was heard of one broker is said to no other
	var mu sync.Mutex
	again := func(most time.Duration) nats.MsgHandler {
		return func(m *nats.Msg) {
			mu.Lock()
			parrots, wait := r.IntN(3) == 0, time.Duration(r.Int64N(int64(most)))
			mu.Unlock()
			if !parrots || m.Header.Get("Parrot") != "" {
				return
			}
			copied := &nats.Msg{Subject: m.Subject, Data: m.Data, Header: nats.Header{"Parrot": {"1"}}}
			for k, v := range m.Header {
				if !strings.HasPrefix(k, "Nats-Expected") {
					copied.Header[k] = v
				}
			}
			time.AfterFunc(wait, func() { _ = conn.PublishMsg(copied) })
		}
	}
	for subject, most := range map[string]time.Duration{"commands.>": 90 * time.Second, "events.run.>": 8 * time.Minute} {
		_, err := conn.Subscribe(subject, again(most))
		require.NoError(w.t, err)
	}
}

// trouble takes things away for moments, until the time given has passed.
func (w *theatre) trouble(lasts time.Duration) {
	w.t.Helper()
	until := time.Now().Add(lasts)
	for time.Now().Before(until) {
		settle(time.Duration(w.r.Int64N(int64(12 * time.Second))))
		gone := time.Duration(w.r.Int64N(int64(4 * time.Second)))
		switch n := w.r.IntN(11); {
		case n == 10 && w.asking:
			w.cut("api")
			settle(gone)
			w.startAPI()
		case n < 4:
			w.cut("scheduler-a")
			w.change()
			settle(gone)
			w.startScheduler("scheduler-a")
		case n < 5:
			w.broker.Shutdown()
			w.dark = true
			w.change()
			settle(gone)
			require.NoError(w.t, w.broker.Restart())
			w.dark = false
		case n < 7:
			w.cut("projector")
			settle(gone)
			w.startProjector()
		case n < 9:
			pc := w.pcs[w.r.IntN(len(w.pcs))]
			w.cut(pc)
			settle(5 * gone)
			w.startEndpoint(pc)
		default:
			pc := w.pcs[w.r.IntN(len(w.pcs))]
			w.cables[pc].pull()
			settle(10 * gone)
			w.cables[pc].plug()
		}
		w.change()
	}
}

// seconds draws whole seconds.
func seconds(r *rand.Rand, most int) catalog.Duration {
	return catalog.Duration(fmt.Sprintf("%ds", r.IntN(most)))
}

// waves draws a rollout of 3 to 6 waves of every form; pauses are those of the operator to release.
func (w *theatre) waves(r *rand.Rand) catalog.Plan {
	expires := catalog.Duration("15m")
	p := catalog.Plan{Target: catalog.Target{All: true, Groups: []string{}, PCs: []string{}}, ExpiresAfter: &expires, Rollout: &catalog.Rollout{Strategy: "wave"}}
	if r.IntN(3) == 0 {
		p.Target = catalog.Target{Groups: []string{"g0", "g1"}, PCs: []string{w.pcs[r.IntN(len(w.pcs))]}}
	}
	if r.IntN(3) == 0 {
		jitter := catalog.Duration("7s")
		p.Jitter = &jitter
	}
	for i := range 3 + r.IntN(4) {
		wave := catalog.Wave{Delay: seconds(r, 60+20*i)}
		switch r.IntN(4) {
		case 0:
			wave.Group = fmt.Sprintf("g%d", r.IntN(3))
		case 1:
			wave.Count = 1 + r.IntN(3)
		case 2:
			wave.Percent = 1 + r.IntN(100)
		default:
			wave.PCs = []string{w.pcs[r.IntN(len(w.pcs))], w.pcs[r.IntN(len(w.pcs))]}
		}
		switch {
		case i > 0 && r.IntN(3) == 0:
			wave.After = "previous"
		case i > 0 && r.IntN(6) == 0:
			wave.Pause = true
		}
		p.Rollout.Waves = append(p.Rollout.Waves, wave)
	}
	return p
}

// starts counts the runs that executors were asked for: exec and endpoint.
type starts struct {
	mu   sync.Mutex
	runs map[string]int
	at   map[string]time.Time
}

// actor is the executor of one endpoint.
type actor struct {
	theatre *theatre
	pc      string
}

func (*actor) Supports(string) bool { return true }

func (x *actor) Run(ctx context.Context, _ string, _ agent.Script, env []string, _, _ io.Writer) (agent.Exit, error) {
	i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, "KANADE_EXEC_ID=") })
	if i < 0 {
		return agent.Exit{}, errors.New("no exec id")
	}
	key := env[i][len("KANADE_EXEC_ID="):] + " " + x.pc
	s := x.theatre.starts
	s.mu.Lock()
	s.runs[key]++
	s.at[key] = time.Now()
	s.mu.Unlock()
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	lot := h.Sum64()
	select {
	case <-time.After(time.Duration(1+lot%40) * time.Second):
	case <-ctx.Done():
		return agent.Exit{Signal: "kill"}, nil
	}
	if int(lot>>8%100) < x.theatre.failing {
		return agent.Exit{Code: 3}, nil
	}
	return agent.Exit{}, nil
}
