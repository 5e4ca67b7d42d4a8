package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/catalog"
)

func planFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestPlanOfFlags(t *testing.T) {
	zone := time.FixedZone("here", 3600)
	now := nine.In(zone)
	for want, f := range map[string]planFlags{
		`{"target":{"groups":[],"pcs":[],"all":true}}`:                                                          {All: true},
		`{"target":{"groups":["g"],"pcs":["a","b","c"],"all":false}}`:                                           {Group: []string{"g"}, PC: []string{"a"}, PCsFile: planFile(t, "pcs", "\ufeffb # the second\r\n\n  c\n# none")},
		`{"target":{"groups":[],"pcs":[],"all":true},"jitter":"5m","expires_after":"2d"}`:                       {All: true, Jitter: "5m", ExpiresAfter: "2d"},
		`{"target":{"groups":[],"pcs":[],"all":true},"max_failures":5,"max_parallel":"10%"}`:                    {All: true, MaxFailures: "5", MaxParallel: "10%"},
		`{"target":{"groups":[],"pcs":[],"all":true},"retry":{"max":2,"backoff":"30s"},"require_targets":true}`: {All: true, Retry: "2, 30s", RequireTargets: true},
		`{"target":{"groups":[],"pcs":[],"all":true},"deadline_at":"2026-11-23T11:00:00Z"}`:                     {All: true, Deadline: "2h"},
		`{"target":{"groups":[],"pcs":[],"all":true},"deadline_at":"2026-11-24T07:00:00Z"}`:                     {All: true, Deadline: "2026-11-24 08:00"},
		`{"target":{"groups":[],"pcs":[],"all":true},"deadline_at":"2026-11-24T08:00:00Z"}`:                     {All: true, Deadline: "2026-11-24T08:00:00Z"},
		`{"target":{"groups":[],"pcs":[],"all":true},"params":{"a":1.50,"b":"text","c":"x=y","d":""}}`:          {All: true, Param: []string{"a=1.50", "b=text", `c="x=y"`, "d="}},
		`{"target":{"groups":[],"pcs":[],"all":false},"rollout":{"strategy":"wave","waves":[{"group":"a/b=c","delay":"0s"},{"delay":"5m","pcs":["a","b"],"after":"previous"},{"group":"z","pause":true}]}}`: {
			Wave: []string{"group=a/b=c", "pcs=a+b, after, delay=5m", "group=z,pause=true"}},
		`{"target":{"groups":[],"pcs":[],"all":true},"rollout":{"strategy":"wave","waves":[{"delay":"0s","percent":10},{"delay":"1h","count":5}]}}`: {
			All: true, Wave: []string{"percent=10%", "count=5,delay=1h"}},
	} {
		body, err := f.body(now)
		require.NoError(t, err, want)
		p, err := catalog.ParsePlan(body)
		require.NoError(t, err)
		doc, err := p.Document()
		require.NoError(t, err)
		require.Equal(t, want, string(doc))
	}
}

func TestPlanFileAndFlagsOverIt(t *testing.T) {
	yaml := "target: {groups: [sales]} # who\nrollout:\n  waves:\n    - {group: sales, delay: 0s}\ndeadline_at: 2027-01-31T08:00:00Z\n" +
		"max_failures: 10%\nparams: {a: 1, b: two}\n"
	j, err := json.Marshal(map[string]any{
		"target": map[string]any{"groups": []string{"sales"}}, "rollout": map[string]any{"waves": []any{map[string]any{"group": "sales", "delay": "0s"}}},
		"deadline_at": "2027-01-31T08:00:00Z", "max_failures": "10%", "params": map[string]any{"a": 1, "b": "two"},
	})
	require.NoError(t, err)
	for _, file := range []string{planFile(t, "plan.yaml", yaml), planFile(t, "plan.JSON", string(j))} {
		f := planFlags{Plan: file}
		body, err := f.body(nine)
		require.NoError(t, err)
		require.JSONEq(t, string(j), string(body))

		f = planFlags{Plan: file, PC: []string{"pc-01"}, MaxFailures: "3", Param: []string{"b=3"}}
		body, err = f.body(nine)
		require.NoError(t, err)
		p, err := catalog.ParsePlan(body)
		require.NoError(t, err)
		require.Equal(t, catalog.Target{Groups: []string{}, PCs: []string{"pc-01"}}, p.Target)
		require.Equal(t, 3, p.MaxFailures.Count)
		require.Equal(t, "1", string(p.Params["a"]))
		require.Equal(t, "3", string(p.Params["b"]))
		require.Len(t, p.Rollout.Waves, 1)
	}
}

func TestPlanRefusals(t *testing.T) {
	for says, f := range map[string]planFlags{
		"on which endpoints?":                       {},
		"percent: expected a whole number":          {Wave: []string{"percent=a"}},
		"expected parts like group=canary":          {Wave: []string{"group="}},
		"after is there twice":                      {Wave: []string{"group=a,after,after"}},
		"when does it go out?":                      {Wave: []string{"group=a", "group=b"}},
		"rollout.waves[0].after: the first wave":    {Wave: []string{"group=a,after"}},
		"only one of group, percent, count, pcs":    {Wave: []string{"group=a,count=1"}},
		"percent and count are parts of the target": {Wave: []string{"count=1"}},
		"--retry: expected how often":               {All: true, Retry: "2"},
		"retry.backoff: must be at least 1s":        {All: true, Retry: "2,1ms"},
		"--deadline: expected a time like":          {All: true, Deadline: "soon"},
		"--param \"x\": expected NAME=VALUE":        {All: true, Param: []string{"x"}},
		"--param x is there twice":                  {All: true, Param: []string{"x=1", "x=2"}},
		"jitter: expected a duration":               {All: true, Jitter: "soon"},
		"max_parallel: must be at least 1":          {All: true, MaxParallel: "0"},
		"target.pcs[0]: invalid id":                 {PC: []string{"a b"}},
		"no endpoint in it":                         {PCsFile: planFile(t, "none", "# nobody\n")},
		"not readable as YAML":                      {Plan: planFile(t, "p.yaml", "a: [")},
		"p.json: not readable as a plan":            {Plan: planFile(t, "p.json", `{"jitter":"1s","jitter":"2s"}`)},
		"empty.yaml: the document is empty":         {Plan: planFile(t, "empty.yaml", "")},
		"odd: unknown key":                          {All: true, Plan: planFile(t, "odd.yaml", "odd: 1\n")},
		"nothing.yaml":                              {Plan: "nothing.yaml"},
	} {
		_, err := f.body(nine)
		require.ErrorContains(t, err, says)
	}
}

// What a wave says is what the plan has.
func TestWaveIsReadAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := rapid.StringMatching(`[a-z0-9][a-z0-9_=/-]{0,8}`)
		want := wave{Delay: rapid.SampledFrom([]string{"", "0s", "1h 30m"}).Draw(t, "delay"), Pause: rapid.Bool().Draw(t, "pause")}
		var parts []string
		switch rapid.IntRange(0, 3).Draw(t, "who") {
		case 0:
			want.Group = id.Draw(t, "group")
			parts = append(parts, "group="+want.Group)
		case 1:
			want.Percent = rapid.IntRange(1, 100).Draw(t, "percent")
			parts = append(parts, "percent="+cell(want.Percent)+rapid.SampledFrom([]string{"", "%"}).Draw(t, "sign"))
		case 2:
			want.Count = rapid.IntRange(1, 1e6).Draw(t, "count")
			parts = append(parts, "count="+cell(want.Count))
		case 3:
			want.PCs = rapid.SliceOfN(id, 1, 5).Draw(t, "pcs")
			parts = append(parts, "pcs="+strings.Join(want.PCs, "+"))
		}
		if want.Delay != "" {
			parts = append(parts, "delay="+want.Delay)
		}
		if want.Pause {
			parts = append(parts, "pause")
		}
		if rapid.Bool().Draw(t, "after") {
			want.After = "previous"
			parts = append(parts, "after")
		}
		got, err := parseWave(strings.Join(rapid.Permutation(parts).Draw(t, "order"), rapid.SampledFrom([]string{",", " , "}).Draw(t, "comma")))
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

// Whatever is given, it is refused here or a plan that the catalog can read.
func FuzzPlan(f *testing.F) {
	f.Add("group=canary,delay=10m", "2,30s", "5", "a=1")
	f.Add("percent=10,after,delay=5m", "", "10%", `a={"b":[1]}`)
	f.Add("pcs=a+b,pause", ",", "%", "=")
	f.Fuzz(func(t *testing.T, wave, retry, amount, param string) {
		p := planFlags{All: true, Wave: []string{wave}, Retry: retry, MaxFailures: amount, Param: []string{param}, Deadline: retry}
		body, err := p.body(nine)
		if err != nil {
			return
		}
		if _, err := catalog.ParsePlan(body); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
	})
}
