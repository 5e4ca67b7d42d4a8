package systemtest

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/services/agent"
)

// day is a site with a clock of its own and a memory of what was done to it.
type day struct {
	*site
	begin    time.Time
	forms    map[string]form
	versions map[string][]version
	manual   []string
	cables   map[string]*cable
	data     map[string]string
	asked    asked
	// idle are the spans in which nobody could fire a tick, offline those in which an endpoint could not be reached.
	idle    []span
	offline map[string][]span
}

// version is one saved state of a schedule.
type version struct {
	from    time.Time
	form    form
	enabled bool
}

type span struct{ from, to time.Time }

func newDay(t *testing.T, begin time.Time) *day {
	d := &day{
		site: newSite(t), begin: begin, forms: forms(), versions: map[string][]version{}, cables: map[string]*cable{},
		data: map[string]string{}, offline: map[string][]span{},
	}
	d.asked.begin, d.asked.runs = begin, map[string]*run{}
	for _, pc := range []string{"pc-01", "pc-02", "pc-03"} {
		d.cables[pc], d.data[pc] = &cable{broker: d.broker}, t.TempDir()
	}
	return d
}

// time is a moment of the day.
func (d *day) time(after string) time.Time {
	wait, err := time.ParseDuration(after)
	require.NoError(d.t, err)
	return d.begin.Add(wait)
}

// at lets time pass until then.
func (d *day) at(after string) {
	d.t.Helper()
	wait := time.Until(d.time(after))
	require.GreaterOrEqual(d.t, wait, time.Duration(0), after)
	settle(wait)
}

// away takes something away until a moment; nobody fires ticks meanwhile.
func (d *day) away(take func(), until string, back func()) {
	d.t.Helper()
	from := time.Now()
	take()
	d.at(until)
	back()
	d.idle = append(d.idle, span{from, time.Now()})
}

func (d *day) restartBroker() { require.NoError(d.t, d.broker.Restart()) }

func (d *day) startEndpoint(pc string) {
	d.t.Helper()
	d.startAgent(pc, d.data[pc], d.cables[pc], &scripted{pc: pc, asked: &d.asked})
}

// asked is what executors were asked for: the truth about runs.
type asked struct {
	begin time.Time
	mu    sync.Mutex
	runs  map[string]*run // by result id
}

// run is one run as its executor knows it.
type run struct {
	pc, job, exec, state string
	code, times          int
	at                   time.Time
}

// scripted is the executor of one endpoint.
type scripted struct {
	pc    string
	asked *asked
}

func (*scripted) Supports(string) bool { return true }

func (x *scripted) Run(ctx context.Context, name string, _ agent.Script, env []string, stdout, _ io.Writer) (agent.Exit, error) {
	value := func(name string) string {
		i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		return env[i][len(name)+1:]
	}
	now := time.Now()
	took, code := play(value("KANADE_JOB_ID"), x.pc, now.Sub(x.asked.begin))
	x.asked.mu.Lock()
	r := x.asked.runs[name]
	if r == nil {
		r = &run{pc: x.pc, job: value("KANADE_JOB_ID"), exec: value("KANADE_EXEC_ID"), at: now, code: code}
		x.asked.runs[name] = r
	}
	r.times++
	x.asked.mu.Unlock()
	fmt.Fprintf(stdout, "%s on %s\n", r.job, r.pc)
	select {
	case <-time.After(took):
		r.state = map[bool]string{true: "succeeded", false: "failed"}[code == 0]
		return agent.Exit{Code: code}, nil
	case <-ctx.Done():
		r.state = "killed"
		return agent.Exit{Signal: "kill"}, nil
	}
}
