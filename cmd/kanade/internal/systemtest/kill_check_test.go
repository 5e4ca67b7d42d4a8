//go:build unix

package systemtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/client"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// findings count what was checked.
type findings struct{ runs, unknown int }

// check waits until every exec has ended and compares what the API tells with what must have happened.
func (s *installation) check(execs []accepted) (f findings) {
	const limit = 5 * time.Minute
	deadline := time.Now().Add(limit)
	details := make([]execution, len(execs))
	for i, x := range execs {
		s.until(time.Until(deadline), "exec "+x.id+" of job "+x.job+" ends", func() (err error) {
			details[i], err = s.execution(x.id)
			return err
		})
	}
	var all []client.Execution
	require.NoError(s.t, s.get("/api/executions", url.Values{"limit": {"1000000"}}, &all))
	require.Len(s.t, all, len(execs), "a request makes one exec, however often it is sent")
	started := s.startedRuns()
	results := map[string]bool{}
	for i, x := range execs {
		for _, r := range details[i].Results {
			require.False(s.t, results[r.ResultID], "result %s is there twice", r.ResultID)
			results[r.ResultID] = true
		}
		s.checkTargets(x, details[i], started, &f)
		if i%25 == 0 {
			s.checkList(x, details[i])
		}
	}
	for run, n := range started {
		require.Equal(s.t, 1, n, "run %q was started more than once", run)
	}
	return f
}

// startedRuns counts the lines of the witness: "<exec> <pc>".
func (s *installation) startedRuns() map[string]int {
	text, err := os.ReadFile(s.witness())
	require.NoError(s.t, err)
	runs := map[string]int{}
	for line := range strings.Lines(string(text)) {
		runs[strings.TrimSpace(line)]++
	}
	return runs
}

// execution answers GET /api/executions/{id}, with its targets.
type execution struct {
	Execution client.Execution `json:"execution"`
	Results   []client.Result  `json:"results"`
	targets   []client.Target
}

// execution reads an exec; that it has not ended is an error.
func (s *installation) execution(id string) (x execution, err error) {
	if err := s.get(client.Path("api", "executions", id), nil, &x); err != nil {
		return x, err
	}
	if err := s.get(client.Path("api", "executions", id, "targets"), nil, &x.targets); err != nil {
		return x, err
	}
	for _, t := range x.targets {
		if !events.TargetState(t.State).Final() {
			return x, fmt.Errorf("%s is %s; %+v", t.PCID, t.State, x.Execution)
		}
	}
	if x.Execution.Outcome == "" {
		return x, fmt.Errorf("it is %s, its targets %+v, its totals %+v", x.Execution.Status, x.targets, x.Execution.Totals)
	}
	return x, nil
}

// checkTargets holds one exec against its plan, its results, and the witness.
func (s *installation) checkTargets(x accepted, got execution, started map[string]int, f *findings) {
	t := s.t
	var pcs []string
	states := map[string]int{}
	results := map[string]client.Result{}
	for _, r := range got.Results {
		require.NotContains(t, results, r.PCID, "exec %s has two results of %s", x.id, r.PCID)
		results[r.PCID] = r
	}
	for _, target := range got.targets {
		pcs = append(pcs, target.PCID)
		require.True(t, target.Expected, "exec %s waits for %s", x.id, target.PCID)
		states[target.State]++
		r := results[target.PCID]
		require.Equal(t, target.ResultID, r.ResultID, "result of %s in exec %s", target.PCID, x.id)
		require.Equal(t, target.State, r.State, "result of %s in exec %s", target.PCID, x.id)
		f.runs++
		switch target.State {
		case string(events.StateSucceeded):
			require.Equal(t, 1, started[x.id+" "+target.PCID], "starts of exec %s on %s", x.id, target.PCID)
			s.checkOutput(x, target)
		case string(events.StateUnknown):
			f.unknown++
			s.checkKilled(x, r)
		default:
			t.Errorf("exec %s of job %s on %s: %s %s", x.id, x.job, target.PCID, target.State, target.Reason)
		}
	}
	slices.Sort(pcs)
	require.Equal(t, x.pcs, pcs, "targets of exec %s", x.id)
	require.Len(t, results, len(x.pcs), "results of exec %s", x.id)
	require.Equal(t, client.Totals{Expected: states, Others: map[string]int{}}, got.Execution.Totals, "totals of exec %s", x.id)
	outcome := events.Totals{Expected: map[events.TargetState]int{
		events.StateSucceeded: states["succeeded"], events.StateUnknown: states["unknown"],
	}}.Outcome()
	require.Equal(t, string(outcome), got.Execution.Outcome, "outcome of exec %s", x.id)
}

// checkOutput reads the whole of what a run has printed.
func (s *installation) checkOutput(x accepted, target client.Target) {
	want := x.id + " " + target.PCID + "\n"
	if x.job == "big" {
		want += strings.Repeat("x", bigOutput)
	}
	a, err := s.client.Do(s.ctx, client.Request{
		Method: http.MethodGet, Path: client.Path("api", "results", target.ResultID, "output", "stdout"),
	})
	require.NoError(s.t, err, "output of exec %s on %s", x.id, target.PCID)
	require.Equal(s.t, len(want), len(a.Body), "length of the output of exec %s on %s", x.id, target.PCID)
	require.True(s.t, want == string(a.Body), "output of exec %s on %s", x.id, target.PCID)
}

// checkKilled demands a kill of the agent between the start of a run and its report. The slack covers what the clocks of
// broker and agent are apart.
func (s *installation) checkKilled(x accepted, r client.Result) {
	const slack = 250 * time.Millisecond
	require.NotNil(s.t, r.StartedAt, "start of exec %s on %s", x.id, r.PCID)
	require.NotNil(s.t, r.FinishedAt, "end of exec %s on %s", x.id, r.PCID)
	for _, p := range s.of(kindAgent) {
		if p.name != r.PCID {
			continue
		}
		killed := slices.ContainsFunc(p.kills, func(at time.Time) bool {
			return at.After(r.StartedAt.Add(-slack)) && at.Before(r.FinishedAt.Add(slack))
		})
		require.True(s.t, killed, "exec %s on %s is unknown, and its agent was not killed between %s and %s", x.id, r.PCID, r.StartedAt, r.FinishedAt)
	}
}

// checkList asks for an exec's results the other way.
func (s *installation) checkList(x accepted, got execution) {
	var list []client.Result
	require.NoError(s.t, s.get("/api/results", url.Values{"exec_id": {"^" + x.id + "$"}}, &list))
	var want, found []string
	for _, r := range got.Results {
		want = append(want, r.ResultID+" "+r.State)
	}
	for _, r := range list {
		found = append(found, r.ResultID+" "+r.State)
	}
	require.ElementsMatch(s.t, want, found, "GET /api/results of exec %s", x.id)
}

// compareReadModels ends what writes to the log, builds another read model from it in one go, and compares it with those
// whose projectors were killed. Nothing may have been given up meanwhile.
func (s *installation) compareReadModels() {
	for _, k := range []kind{kindAgent, kindAPI, kindScheduler} {
		for _, p := range s.of(k) {
			p.kill()
		}
	}
	last := s.lastSequence()
	require.NoError(s.t, s.projector("projector-rebuild", "read-model-rebuilt").start())
	for _, p := range s.of(kindProjector) {
		s.until(2*time.Minute, p.name+" has the whole log", func() error { return hasApplied(s.ctx, p, last) })
	}
	for _, p := range s.of(kindProjector) {
		p.kill()
	}
	rebuilt := s.digest("read-model-rebuilt")
	killed := s.digest("read-model")
	require.Len(s.t, rebuilt, 1)
	require.Len(s.t, killed, 2)
	for _, d := range killed {
		require.Equal(s.t, rebuilt[0], d)
	}
}

// lastSequence of the log; nothing may be parked.
func (s *installation) lastSequence() uint64 {
	b := s.connect()
	defer b.Close()
	dead, err := b.LastSeq(s.ctx, events.StreamDead)
	require.NoError(s.t, err)
	require.Zero(s.t, dead, "messages parked in DEAD")
	last, err := b.LastSeq(s.ctx, events.StreamLog)
	require.NoError(s.t, err)
	return last
}

// hasApplied asks a projector how far it is.
func hasApplied(ctx context.Context, p *process, last uint64) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.listen+"/readyz", nil)
	if err != nil {
		return err
	}
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	var positions []struct {
		Stream  string
		Applied uint64
	}
	if err := json.NewDecoder(answer.Body).Decode(&positions); err != nil {
		return err
	}
	for _, x := range positions {
		if x.Stream == events.StreamLog && x.Applied == last {
			return nil
		}
	}
	return fmt.Errorf("it is at %+v, the log at %d", positions, last)
}

// digest gives the digests of every slot in a directory whose projectors have ended.
func (s *installation) digest(dir string) (all []map[string]string) {
	dir = filepath.Join(s.dir, dir)
	slots, err := filepath.Glob(filepath.Join(dir, "slot-*"))
	require.NoError(s.t, err)
	var open []*readmodel.Writer
	for range slots {
		w, err := readmodel.OpenWriter(s.ctx, dir)
		require.NoError(s.t, err)
		open = append(open, w)
		d, err := w.Digest(s.ctx)
		require.NoError(s.t, err)
		all = append(all, d)
	}
	for _, w := range open {
		err = errors.Join(err, w.Close())
	}
	require.NoError(s.t, err)
	return all
}
