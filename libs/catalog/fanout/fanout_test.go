package fanout_test

import (
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/catalog"
	"kanade/libs/catalog/fanout"
	"kanade/libs/events"
)

func TestPlan(t *testing.T) {
	fleet := alive("a", "b", "away", "old")
	fleet["away"].HeardAt = start.Add(-events.AliveFor - 1)
	fleet["old"].AgentVersion = "0.43.45"
	fleet["a"].Groups, fleet["away"].Groups, fleet["old"].Groups = []string{"g", "h"}, []string{"g"}, []string{"h"}
	fleet["stranger"] = &fanout.Endpoint{PCID: "stranger", Groups: []string{"g"}, HeardAt: start}
	for name, c := range map[string]struct {
		target                      catalog.Target
		expected, waiting, subjects string
		skipped                     string
	}{
		"all has one that can't run it":       {target: catalog.Target{All: true}, expected: "a b", waiting: "away", skipped: "old"},
		"group":                               {target: catalog.Target{Groups: []string{"g"}}, expected: "a", waiting: "away"},
		"group named twice":                   {target: catalog.Target{Groups: []string{"g", "g"}}, expected: "a", waiting: "away"},
		"groups that share an endpoint":       {target: catalog.Target{Groups: []string{"g", "h"}}, expected: "a", waiting: "away", skipped: "old"},
		"group and one of its own":            {target: catalog.Target{Groups: []string{"g"}, PCs: []string{"away"}}, expected: "a away"},
		"group and somebody else":             {target: catalog.Target{Groups: []string{"g"}, PCs: []string{"b"}}, expected: "a b", waiting: "away"},
		"group and an unknown one":            {target: catalog.Target{Groups: []string{"g"}, PCs: []string{"nobody"}}, expected: "a nobody", waiting: "away"},
		"named, alive, away, unknown, twice":  {target: catalog.Target{PCs: []string{"b", "away", "nobody", "b"}}, expected: "away b nobody"},
		"named that can't run it":             {target: catalog.Target{PCs: []string{"old"}}, skipped: "old"},
		"named before its first heartbeat":    {target: catalog.Target{PCs: []string{"stranger"}}, expected: "stranger"},
		"group that nobody is in":             {target: catalog.Target{Groups: []string{"none"}}},
		"group and an unknown member of it":   {target: catalog.Target{Groups: []string{"g"}, PCs: []string{"stranger"}}, expected: "a stranger", waiting: "away"},
		"empty target (refused by the API)":   {},
		"everything at once, each only once":  {target: catalog.Target{All: true, Groups: []string{"g"}, PCs: []string{"a"}}, expected: "a b", waiting: "away", skipped: "old"},
		"group of one that can't run and one": {target: catalog.Target{Groups: []string{"h"}}, expected: "a", skipped: "old"},
	} {
		t.Run(name, func(t *testing.T) {
			req, plan := planFor(t, c.target)
			p := fanout.Plan(req, plan, fleet, start)
			var expected, waiting, skipped []string
			for _, w := range p.Waves {
				expected, waiting = append(expected, w.Expected...), append(waiting, w.Waiting...)
			}
			for _, s := range p.Skipped {
				require.Equal(t, events.SkipReasonShell, s.Reason)
				skipped = append(skipped, s.PCID)
			}
			require.Equal(t, c.expected, strings.Join(expected, " "))
			require.Equal(t, c.waiting, strings.Join(waiting, " "))
			require.Equal(t, c.skipped, strings.Join(skipped, " "))
			require.Equal(t, c.subjects, strings.Join(p.Subjects, " "))
			require.Equal(t, c.subjects != "", p.RequestID != "")
			require.Equal(t, start.Add(fanout.KeepCommands), p.DeadlineAt)
			require.Equal(t, p.DeadlineAt.Add(fanout.Bound(req, plan)), p.ExpiresAt)
		})
	}
}

// The expiry is the last instant to start, and then the longest that a run may take: jitter, attempts and the pauses between
// them. The last instant to start is a deadline, or as long as commands wait after the last wave, whatever that may wait for.
func TestPlanTimes(t *testing.T) {
	const minute = time.Minute
	short, jitter := catalog.Duration("5m"), catalog.Duration("10m")
	waves := func(waves ...catalog.Wave) *catalog.Rollout { return &catalog.Rollout{Strategy: "wave", Waves: waves} }
	pcs := func(w catalog.Wave, pc string) catalog.Wave { w.PCs = []string{pc}; return w }
	deadline := start.Add(time.Hour)
	for name, c := range map[string]struct {
		plan     catalog.Plan
		retry    *events.Retry
		deadline *time.Time
		start    time.Duration // the last instant to start
		lasts    time.Duration
	}{
		"a week":                {start: fanout.KeepCommands},
		"deadline":              {deadline: &deadline, start: time.Hour},
		"deadline and the plan": {plan: catalog.Plan{ExpiresAfter: &short}, deadline: &deadline, start: time.Hour},
		"expires after":         {plan: catalog.Plan{ExpiresAfter: &short}, start: 5 * minute},
		"jitter":                {plan: catalog.Plan{ExpiresAfter: &short, Jitter: &jitter}, start: 15 * minute, lasts: 10 * minute},
		"retry":                 {plan: catalog.Plan{ExpiresAfter: &short}, retry: &events.Retry{Max: 2, BackoffSecs: 60}, start: 5 * minute, lasts: 3 * minute},
		"a later wave":          {plan: catalog.Plan{ExpiresAfter: &short, Rollout: waves(pcs(catalog.Wave{}, "a"), pcs(catalog.Wave{Delay: "1h"}, "b"))}, start: 65 * minute},
		"after the one before": {
			plan:  catalog.Plan{ExpiresAfter: &short, Rollout: waves(pcs(catalog.Wave{}, "a"), pcs(catalog.Wave{After: "previous", Delay: "10m"}, "b"))},
			start: 15*minute + 30*time.Second + fanout.ExpirySlack,
		},
		"after, twice, with jitter": {
			plan: catalog.Plan{ExpiresAfter: &short, Jitter: &jitter, Rollout: waves(
				pcs(catalog.Wave{}, "a"), pcs(catalog.Wave{After: "previous", Delay: "10m"}, "b"), pcs(catalog.Wave{After: "previous"}, "c"))},
			start: 25*minute + 2*(10*minute+30*time.Second+fanout.ExpirySlack), lasts: 10 * minute,
		},
		"pause": {
			plan:  catalog.Plan{ExpiresAfter: &short, Rollout: waves(pcs(catalog.Wave{}, "a"), pcs(catalog.Wave{Delay: "1m", Pause: true}, "b"))},
			start: 11 * minute,
		},
		"longer than a week": {
			plan:  catalog.Plan{Rollout: waves(pcs(catalog.Wave{}, "a"), pcs(catalog.Wave{After: "previous", Delay: "30days"}, "b"))},
			start: fanout.KeepCommands + 30*24*time.Hour + 30*time.Second + fanout.ExpirySlack,
		},
	} {
		t.Run(name, func(t *testing.T) {
			req, _ := planFor(t, catalog.Target{PCs: []string{"a", "b", "c"}})
			req.DeadlineAt, req.Retry = c.deadline, c.retry
			c.plan.Target = catalog.Target{PCs: []string{"a", "b", "c"}}
			p := fanout.Plan(req, &c.plan, fleet{}, start)
			require.Equal(t, c.start, p.DeadlineAt.Sub(start))
			require.Equal(t, c.start+c.lasts+30*time.Second+fanout.ExpirySlack, p.ExpiresAt.Sub(start))
			req.Script.TimeoutSecs = math.MaxUint64
			p = fanout.Plan(req, &c.plan, fleet{}, start)
			require.True(t, p.ExpiresAt.After(start.AddDate(200, 0, 0)), "no overflow")
			_, err := json.Marshal(p)
			require.NoError(t, err)
		})
	}
}

// Whoever hears a command of the plan is in the plan, everybody in the plan hears one, and each is in one place.
func TestPlanReachesWhomItNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		groups := []string{"g", "h", "i"}
		fleet := fleet{}
		for _, id := range names(rapid.IntRange(0, 6).Draw(t, "fleet")) {
			fleet[id] = &fanout.Endpoint{
				PCID: id, AgentVersion: rapid.SampledFrom([]string{"1.0.0", "1.0.0", "0.43.45"}).Draw(t, "version"),
				Known:   rapid.IntRange(0, 4).Draw(t, "known") > 0,
				Groups:  rapid.SliceOfNDistinct(rapid.SampledFrom(groups), 0, 3, rapid.ID).Draw(t, "groups"),
				HeardAt: start.Add(-time.Duration(rapid.IntRange(0, 4).Draw(t, "silent")) * time.Minute),
			}
		}
		target := catalog.Target{
			All: rapid.Bool().Draw(t, "all"), Groups: rapid.SliceOf(rapid.SampledFrom(groups)).Draw(t, "target groups"),
			PCs: rapid.SliceOfN(rapid.SampledFrom(names(8)), 0, 4).Draw(t, "pcs"),
		}
		req := events.ExecRequested{ExecID: "x", JobID: "job", Script: events.Script{Shell: "sh", TimeoutSecs: 1}}
		plan := &catalog.Plan{Target: target}
		p := fanout.Plan(req, plan, fleet, start)
		want := map[string]bool{}
		for _, id := range target.PCs {
			want[id] = true
		}
		for id, e := range fleet {
			if e.Known && (target.All || slices.ContainsFunc(e.Groups, func(g string) bool { return slices.Contains(target.Groups, g) })) {
				want[id] = true
			}
		}
		got, reached := map[string]int{}, map[string]bool{}
		for i, w := range p.Waves {
			for _, id := range slices.Concat(w.Expected, w.Waiting) {
				got[id]++
				reached[id] = true
			}
			heard := map[string]bool{}
			commands := fanout.CommandsOf(req, plan, p, events.WaveReleased{ExecID: "x", Wave: i})
			for k := range commands.Len() {
				c, whole := commands.At(k), commands.Body
				require.Equal(t, fmt.Sprintf("x/%d/%s", i, c.Subject), c.MessageID)
				whole.RequestID = c.RequestID
				require.NoError(t, whole.Validate())
				for id := range reached {
					if hears(fleet[id], id, c.Subject) {
						heard[id] = true
					}
				}
				for id, e := range fleet {
					if e.Known && hears(e, id, c.Subject) {
						require.True(t, reached[id], "%s hears %s and is not in the plan", id, c.Subject)
					}
				}
			}
			require.Equal(t, reached, heard)
		}
		for _, s := range p.Skipped {
			got[s.PCID]++
		}
		require.Len(t, got, len(want))
		for id, n := range got {
			require.True(t, want[id] && n == 1, id)
		}
		for _, w := range p.Waves {
			for _, id := range w.Waiting {
				require.False(t, fleet[id].Alive(start) || slices.Contains(target.PCs, id))
			}
		}
	})
}

func hears(e *fanout.Endpoint, id, subject string) bool {
	if group, ok := strings.CutPrefix(subject, "commands.group."); ok {
		return e != nil && slices.Contains(e.Groups, group)
	}
	return subject == "commands.all" || subject == "commands.pc."+id
}

// Everybody who is registered hears commands.all; nobody can tell who hears a group.
func TestOnlyExecsToAllAreBroadcast(t *testing.T) {
	fleet := alive("a", "b")
	fleet["a"].Groups, fleet["b"].Groups = []string{"g"}, []string{"g"}
	for subjects, target := range map[string]catalog.Target{
		"commands.all":                {All: true, Groups: []string{"g"}, PCs: []string{"a"}},
		"commands.pc.a commands.pc.b": {Groups: []string{"g"}},
	} {
		req, plan := planFor(t, target)
		var sent []string
		commands := fanout.CommandsOf(req, plan, fanout.Plan(req, plan, fleet, start), events.WaveReleased{ExecID: "x"})
		for i := range commands.Len() {
			sent = append(sent, commands.At(i).Subject)
		}
		require.Equal(t, subjects, strings.Join(sent, " "))
	}
}

func TestPlanOfTheLargestFleet(t *testing.T) {
	ids, req, plan := largestFleet(t)
	p := fanout.Plan(req, plan, alive(ids...), start)
	require.Len(t, p.Waves[0].Expected, len(ids))
	e, err := events.New(p, events.Meta{ID: "1"})
	require.NoError(t, err)
	_, body, err := e.Encode()
	require.NoError(t, err)
	require.Less(t, len(body), 2<<20)
	t.Logf("100 000 named endpoints: %d KiB in the log", len(body)>>10)
}

// BenchmarkPlan plans an exec to 100 000 named endpoints.
func BenchmarkPlan(b *testing.B) {
	ids, req, plan := largestFleet(b)
	fleet := alive(ids...)
	for b.Loop() {
		fanout.Plan(req, plan, fleet, start)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms")
	b.ReportMetric(0, "ns/op")
}

// largestFleet are 100 000 endpoints whose ids don't compress well, and an exec that names them.
func largestFleet(t testing.TB) ([]string, events.ExecRequested, *catalog.Plan) {
	ids := make([]string, 100_000)
	for i := range ids {
		ids[i] = events.DeriveID("pc", strconv.Itoa(i))
	}
	req, plan := planFor(t, catalog.Target{PCs: ids})
	return ids, req, plan
}

func TestCanRun(t *testing.T) {
	for _, c := range []struct{ version, family, shells string }{
		{"0.43.45", "windows", "powershell cmd"},
		{"0.1.0", "windows", "powershell cmd"},
		{"0.43.45", "linux", "powershell cmd"},
		{"0.44.0", "linux", "sh pwsh"},
		{"1.0.0", "linux", "sh pwsh"},
		{"1.0.0", "macos", "sh pwsh"},
		{"10.2", "windows", "powershell cmd pwsh"},
		{"", "linux", "sh pwsh"},
		{"0.", "linux", "sh pwsh"},
		{"0.100.1", "linux", "sh pwsh"},
	} {
		var can []string
		for _, shell := range []string{"powershell", "cmd", "sh", "pwsh"} {
			e := fanout.Endpoint{Known: true, AgentVersion: c.version, OSFamily: c.family}
			if _, ok := e.CanRun(events.Script{Shell: shell}); ok {
				can = append(can, shell)
			}
		}
		require.ElementsMatch(t, strings.Fields(c.shells), can, "%s on %s", c.version, c.family)
	}
	_, ok := fanout.Endpoint{}.CanRun(events.Script{Shell: "anything"})
	require.True(t, ok, "nothing is known of it yet")
}

var start = time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC)

type fleet map[string]*fanout.Endpoint

func (f fleet) Endpoint(id string) (fanout.Endpoint, bool) {
	if e := f[id]; e != nil {
		return *e, true
	}
	return fanout.Endpoint{}, false
}

func (f fleet) Endpoints() iter.Seq[fanout.Endpoint] {
	return func(yield func(fanout.Endpoint) bool) {
		for _, e := range f {
			if !yield(*e) {
				return
			}
		}
	}
}

// alive is a fleet of known endpoints, heard now.
func alive(ids ...string) fleet {
	f := fleet{}
	for _, id := range ids {
		f[id] = &fanout.Endpoint{PCID: id, AgentVersion: "1.0.0", OSFamily: "linux", Known: true, HeardAt: start}
	}
	return f
}

func names(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("pc-%06d", i)
	}
	return ids
}

func planFor(t testing.TB, target catalog.Target) (events.ExecRequested, *catalog.Plan) {
	t.Helper()
	plan := &catalog.Plan{Target: target}
	doc, err := plan.Document()
	require.NoError(t, err)
	return events.ExecRequested{ExecID: "x", JobID: "job", Plan: doc, Script: events.Script{Shell: "sh", TimeoutSecs: 30}}, plan
}

// What the request says is in the command, in the form that every agent reads.
func TestCommandCarriesTheRequest(t *testing.T) {
	req, plan := planFor(t, catalog.Target{PCs: []string{"a"}})
	jitter := catalog.Duration("1500ms")
	plan.Jitter = &jitter
	req.Script = events.Script{
		Shell: "sh", Body: "true", TimeoutSecs: 30, RunAs: "system", Cwd: "/tmp", Env: map[string]string{"A": "b"}, Args: []string{"x"},
		Stdin: "in", SuccessCodes: []int{0, 3}, Staleness: "strict", MaxCacheAge: "1h 30m",
	}
	req.Retry = &events.Retry{Max: 2, BackoffSecs: 10}
	late := start.Add(time.Hour)
	commands := fanout.CommandsOf(req, plan, fanout.Plan(req, plan, alive("a"), start), events.WaveReleased{ExecID: "x", DeadlineAt: &late})
	c := commands.Body
	c.RequestID = commands.At(0).RequestID
	require.NoError(t, c.Validate())
	require.Equal(t, "5400s", c.Staleness.MaxCacheAge)
	require.EqualValues(t, 2, *c.JitterSecs, "a part of a second is rounded up")
	require.EqualValues(t, 2, c.Retry.Max)
	require.EqualValues(t, 10, c.Retry.BackoffSecs)
	require.Equal(t, late, *c.DeadlineAt)
	require.Equal(t, []any{"/tmp", "b", []string{"x"}, "in", []int{0, 3}}, []any{c.CWD, c.Env["A"], c.Args, c.Stdin, c.SuccessCodes})
}

// Under a budget of places an endpoint that is away, though named, gets its own after those that are alive.
func TestPlacesOfWhoIsAwayComeLast(t *testing.T) {
	f := alive("b", "d")
	f["c"] = &fanout.Endpoint{PCID: "c", Known: true, OSFamily: "linux", AgentVersion: "1.0.0"}
	req, _ := planFor(t, catalog.Target{})
	plan := &catalog.Plan{Target: catalog.Target{All: true, PCs: []string{"a", "c"}}}
	require.Equal(t, []string{"a", "b", "c", "d"}, fanout.Plan(req, plan, f, start).Waves[0].Expected)
	plan.MaxParallel = &catalog.Amount{Count: 1}
	require.Equal(t, []string{"b", "d", "a", "c"}, fanout.Plan(req, plan, f, start).Waves[0].Expected)
}

// A rollout takes each endpoint once: shares of the target, those that are alive first.
func TestRollout(t *testing.T) {
	f := alive("a", "b", "c", "d", "e")
	f["a"].HeardAt = time.Time{}
	f["e"].OSFamily = "windows"
	f["b"].Groups = []string{"g"}
	req, _ := planFor(t, catalog.Target{All: true})
	delay, long := catalog.Duration("10m"), catalog.Duration("1h")
	plan := &catalog.Plan{
		Target: catalog.Target{All: true},
		Rollout: &catalog.Rollout{Strategy: "wave", Waves: []catalog.Wave{
			{Group: "g", Delay: "0s"}, {Percent: 25, After: "previous", Delay: delay}, {Count: 1, Delay: long, Pause: true}, {PCs: []string{"b", "z"}, Delay: "0s"}, {Percent: 100, Delay: "2h"},
		}},
		MaxFailures: &catalog.Amount{Percent: 50}, MaxParallel: &catalog.Amount{Percent: 1},
	}
	p := fanout.Plan(req, plan, f, start)
	var got []string
	for _, w := range p.Waves {
		got = append(got, fmt.Sprintf("%s: %v %v %s after=%t+%d pause=%t", w.Label, w.Expected, w.Waiting, w.DueAt.Sub(start), w.After, w.DelaySecs, w.Pause))
	}
	require.Equal(t, []string{
		"group g: [b] [] 0s after=false+0 pause=false",
		"25%: [c] [] 0s after=true+600 pause=false",
		"1 endpoints: [d] [] 1h0m0s after=false+0 pause=true",
		"2 named: [z] [] 0s after=false+0 pause=false",
		"100%: [] [a] 2h0m0s after=false+0 pause=false",
	}, got)
	require.Equal(t, []events.SkippedPC{{PCID: "e", Reason: events.SkipReasonShell}}, p.Skipped)
	require.Equal(t, 2, *p.MaxFailures)
	require.Equal(t, 1, *p.MaxParallel, "at least one")
	require.Equal(t, start.Add(time.Hour+2*fanout.KeepCommands), p.DeadlineAt, "somebody may let the third wave go out for a week")
	require.Empty(t, p.Subjects)
}
