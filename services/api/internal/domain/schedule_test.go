package domain

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

// anyJob is a job that a schedule may name.
func anyJob() Job {
	return Job{Saved: &events.JobSaved{ID: "j", DocumentRevision: events.DocumentRevision{
		Document: []byte(`{"id":"j","version":"1","execute":{"shell":"sh","script":"x","timeout":"1s"}}`),
	}}}
}

func stored(t testing.TB, text string, st catalog.SourceType) Schedule {
	t.Helper()
	s, err := catalog.ParseSchedule([]byte(text), st)
	require.NoError(t, err)
	saved, err := SaveSchedule(Schedule{}, s, anyJob(), text, st, Match{})
	require.NoError(t, err)
	return Schedule{Saved: saved, Seq: 7, Last: 9}
}

const rest = "id: s\njob_id: j\nwhen: {cron: \"0 4 * * *\"}\ntarget: {all: true}\n"

func TestEnableRewritesTheText(t *testing.T) {
	for name, x := range map[string]struct{ before, after string }{
		"a line":               {"enabled: true # yes\n" + rest, "enabled: false\n" + rest},
		"a line in the middle": {rest + "enabled:   true\ntz: utc\n", rest + "enabled: false\ntz: utc\n"},
		"no line":              {"# comment\n" + rest, "# comment\n" + rest + "enabled: false\n"},
		"no line, no newline":  {strings.TrimSuffix(rest, "\n"), rest + "enabled: false\n"},
		"Windows line ends":    {strings.ReplaceAll("enabled: true\n"+rest, "\n", "\r\n"), strings.ReplaceAll("enabled: false\n"+rest, "\n", "\r\n")},
		"a line of a comment":  {"# enabled: true\n" + rest, "# enabled: true\n" + rest + "enabled: false\n"},
	} {
		t.Run(name, func(t *testing.T) {
			off, err := EnableSchedule(stored(t, x.before, catalog.YAML), "s", false, Match{})
			require.NoError(t, err)
			require.Equal(t, x.after, off.Source)
			require.Equal(t, "yaml", off.SourceType)
			require.False(t, off.Enabled)
			require.Contains(t, string(off.Document), `"enabled":false`)
		})
	}
}

func TestEnableWhereNoLineCanSayIt(t *testing.T) {
	flow := `{id: s, job_id: j, when: {cron: "0 4 * * *"}, target: {all: true}}`
	for _, cur := range []Schedule{
		stored(t, flow, catalog.YAML),
		stored(t, `{"id":"s","job_id":"j","when":{"cron":"0 4 * * *"},"target":{"all":true}}`, catalog.JSON),
	} {
		off, err := EnableSchedule(cur, "s", false, Match{})
		require.NoError(t, err)
		require.Equal(t, "json", off.SourceType)
		require.JSONEq(t, string(off.Document), off.Source)
		text, err := YAMLText(off.Source, off.SourceType, string(off.Document))
		require.NoError(t, err)
		again, err := catalog.ParseSchedule([]byte(text), catalog.YAML)
		require.NoError(t, err)
		require.False(t, again.Enabled)
	}
}

// FuzzEnable: whatever text an operator wrote, switching it off and on gives the document it was, and the text always
// says what the document says.
func FuzzEnable(f *testing.F) {
	f.Add(rest)
	f.Add("enabled: true\n" + rest)
	f.Add(rest + "enabled: true # x\n---\n")
	f.Add("---\n" + rest + "...\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := catalog.ParseSchedule([]byte(text), catalog.YAML)
		if err != nil {
			return
		}
		saved, err := scheduleSaved(s, text, catalog.YAML)
		require.NoError(t, err)
		cur := Schedule{Saved: saved, Seq: 1, Last: 1}
		for _, enabled := range []bool{!s.Enabled, s.Enabled} {
			next, err := EnableSchedule(cur, s.ID, enabled, Match{})
			require.NoError(t, err)
			read, err := catalog.ParseSchedule([]byte(next.Source), catalog.SourceType(next.SourceType))
			require.NoError(t, err)
			doc, err := read.Document()
			require.NoError(t, err)
			require.Equal(t, string(next.Document), string(doc))
			cur = Schedule{Saved: next}
		}
		require.Equal(t, saved.Hash, cur.Saved.Hash)
	})
}

func TestMatch(t *testing.T) {
	for _, x := range []struct {
		match Match
		hash  string
		ok    bool
	}{
		{Match{}, "", true}, {Match{}, "a", true},
		{Match{If: "*"}, "a", true}, {Match{If: "*"}, "", false}, {Match{If: `"a"`}, "a", true}, {Match{If: `"b"`}, "a", false},
		{Match{If: `"b", "a"`}, "a", true}, {Match{If: `W/"a"`}, "a", false}, {Match{If: `a`}, "a", false}, {Match{If: `"a"`}, "", false},
		{Match{IfNone: "*"}, "", true}, {Match{IfNone: "*"}, "a", false}, {Match{IfNone: `"b", "a"`}, "a", false}, {Match{IfNone: `"b"`}, "a", true},
		{Match{IfNone: `W/"a"`}, "a", false}, {Match{IfNone: `W/"b"`}, "a", true},
		{Match{If: `"a"`, IfNone: "*"}, "a", false}, {Match{If: "*", IfNone: `"b"`}, "a", true},
	} {
		require.Equal(t, x.ok, x.match.Check("job", "j", x.hash) == nil, "%+v", x)
	}
}

func TestSubjectsAndAudience(t *testing.T) {
	plan, err := catalog.ParsePlan([]byte(`{"target":{"all":true,"groups":["b","a"],"pcs":["y","x","y"]}}`))
	require.NoError(t, err)
	require.Equal(t, []string{"commands.all", "commands.group.b", "commands.group.a", "commands.pc.y", "commands.pc.x", "commands.pc.y"}, Subjects(plan))
	audience := func(p *catalog.Plan) Audience {
		a, exact := AudienceOf(p)
		require.True(t, exact)
		return a
	}
	require.Equal(t, Audience{All: true, Groups: []string{"a", "b"}, PCs: []string{"x", "y"}}, audience(plan))
	waves, err := catalog.ParsePlan([]byte(`{"target":{"all":true},"rollout":{"waves":[{"group":"a","delay":"0s"},{"pcs":["x"],"delay":"1h"}]}}`))
	require.NoError(t, err)
	require.Equal(t, []string{"commands.group.a", "commands.pc.x"}, Subjects(waves))
	require.Equal(t, Audience{Groups: []string{"a"}, PCs: []string{"x"}}, audience(waves))
	shares, err := catalog.ParsePlan([]byte(`{"target":{"all":true},"rollout":{"waves":[{"group":"a","delay":"0s"},{"percent":100,"delay":"1h"}]}}`))
	require.NoError(t, err)
	_, exact := AudienceOf(shares)
	require.False(t, exact)
}

// TestExecRefusesWhatIsStoredAndNotSupported: a document of a later version, or of an old CLI, may hold more than is
// carried out; it must not run as if it did not say so.
func TestExecRefusesWhatIsStoredAndNotSupported(t *testing.T) {
	plan, err := catalog.ParsePlan([]byte(`{"target":{"all":true}}`))
	require.NoError(t, err)
	job := Job{Saved: &events.JobSaved{ID: "j", Version: "1", DocumentRevision: events.DocumentRevision{
		Document: []byte(`{"id":"j","version":"1","execute":{"shell":"sh","script":"x","timeout":"1s"},"require_approval":true}`),
	}}, Seq: 3, Last: 3}
	_, err = RequestExec(job, ExecRequest{ExecID: "e", JobID: "j", Plan: plan})
	var refused *Refusal
	require.ErrorAs(t, err, &refused)
	require.Equal(t, Unprocessable, refused.Code)
	require.Equal(t, "require_approval", refused.Problems[0].Path)
}
