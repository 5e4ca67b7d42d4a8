package cli_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/client"
)

// The whole system answers as of the past: the projector builds what the API asks for in the log.
func TestAt(t *testing.T) {
	needsShell(t)
	s := system(t)
	require.Zero(t, kanade(t, "job", "create", file(t, "a.yaml", script("a", "echo said first"))).code)
	ok(t, "exec", "a", "--pc", pc, "--wait")
	api, err := client.New(s.URL, s.Home.APIToken, "")
	require.NoError(t, err)
	defer api.Close()
	at := func() string {
		answer, err := api.Do(t.Context(), client.Request{Method: "GET", Path: "/api/jobs"})
		require.NoError(t, err)
		return strconv.FormatUint(answer.Sequence, 10)
	}
	// What the read model says of an exec is settled when its last fact is in it.
	require.Eventually(t, func() bool { return strings.Contains(ok(t, "exec", "list"), "completed") }, 10*time.Second, 10*time.Millisecond)
	eventually(t, "first", "result", "search", "said")
	then := at()
	before := map[string]string{}
	reads := [][]string{
		{"job", "list"}, {"job", "show", "a"}, {"exec", "list"}, {"result", "list"}, {"result", "search", "said"}, {"result", "groups", "--job", "a"},
		{"result", "export"}, {"exec", "export"}, {"audit"}, {"audit", "export"}, {"schedule", "list"}, {"group", "list"}, {"freeze", "status"}, {"--json", "job", "list"}, {"--json", "exec", "list", "--limit", "1"},
	}
	for _, args := range reads {
		before[strings.Join(args, " ")] = ok(t, args...)
	}
	moment := time.Now()
	require.Zero(t, kanade(t, "job", "create", file(t, "a.yaml", strings.ReplaceAll(script("a", "echo said second"), "1.0.0", "2.0.0"))).code)
	require.Zero(t, kanade(t, "job", "create", file(t, "b.yaml", script("b", "echo b"))).code)
	ok(t, "exec", "a", "--pc", pc, "--wait")
	eventually(t, "second", "result", "search", "said")
	ok(t, "group", "add", "sales", pc)
	ok(t, "freeze", "set", "--from", "2000-01-01")
	eventually(t, "sales", "group", "list")
	for _, args := range reads {
		require.Equal(t, before[strings.Join(args, " ")], ok(t, append([]string{"at", then}, args...)...), "%v", args)
		if args[0] != "schedule" {
			require.NotEqual(t, before[strings.Join(args, " ")], ok(t, args...), "%v", args)
		}
	}
	require.Equal(t, before["--json job list"], ok(t, "--json", "at", then, "job", "list"), "what is said before it counts behind it")
	require.Equal(t, before["job list"], ok(t, "at", moment.UTC().Format(time.RFC3339Nano), "job", "list"))
	require.Equal(t, before["job list"], ok(t, "at", moment.In(time.FixedZone("", 5*3600)).Format(time.RFC3339Nano), "job", "list"), "the plus of a zone arrives")

	require.Contains(t, kanade(t, "at", "36h", "job", "list").err, "as_of: expected a sequence of the log")
	require.Contains(t, ok(t, "at", "100ms", "job", "list"), "2.0.0", "how long ago")
	id := okJSON[[]map[string]any](t, "at", then, "exec", "list")[0]["exec_id"].(string)
	require.Contains(t, ok(t, "at", then, "exec", "show", id), pc)
	require.Contains(t, ok(t, "at", then, "explain", id, pc), "succeeded")
	require.Contains(t, ok(t, "at", then, "agent", "list"), pc)
	var pages []json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(ok(t, "at", at(), "result", "list", "--limit", "2", "--json")), &pages))
	require.Len(t, pages, 2)

	r := kanade(t, "at", "999999", "job", "list")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "as_of: expected a sequence of the log from 1 to")
	require.Contains(t, kanade(t, "at", "soon", "job", "list").err, "as_of: expected")
	require.Contains(t, kanade(t, "at", then, "exec", "show", id, "--watch").err, "--watch")
	require.Contains(t, kanade(t, "at", then, "job", "lost").err, "see `kanade job --help`")
	require.NotZero(t, kanade(t, "at", then).code)
	require.Contains(t, ok(t, "at", then, "job", "list", "--help"), "List the jobs")
}

// A command that writes is refused before anything is sent: nobody listens there.
func TestAtRefusesWrites(t *testing.T) {
	t.Setenv("KANADE_BACKEND_URL", "http://127.0.0.1:1")
	manifest := file(t, "a.yaml", script("a", "echo a"))
	for _, args := range [][]string{
		{"job", "create", manifest}, {"job", "delete", "a"}, {"job", "kill", "a"}, {"exec", "a", "--all"}, {"exec", "run", "a", "--all", "--dry-run"},
		{"run", pc, "--", "true"}, {"kill", "e"}, {"cancel", "e"}, {"pause", "e"}, {"resume", "e"}, {"release", "e"}, {"retry", "e"}, {"revoke", "a"}, {"unrevoke", "a"},
		{"freeze", "set"}, {"freeze", "clear"}, {"group", "add", "g", pc}, {"group", "rm", "g", pc}, {"schedule", "create", manifest}, {"schedule", "delete", "s"},
		{"schedule", "enable", "s"}, {"schedule", "disable", "s"}, {"script", "list"}, {"script", "delete", "a", "1"}, {"dead", "list"}, {"dead", "retry", "1"},
		{"events", "tail"}, {"projector", "list"}, {"projector", "rebuild"}, {"version"}, {"at", "1", "job", "list"},
	} {
		r := kanade(t, append([]string{"at", "1"}, args...)...)
		require.Equal(t, 1, r.code, "%v", args)
		require.Empty(t, r.out, "%v", args)
		require.Contains(t, r.err, "can't be asked as of a past moment", "%v", args)
	}
	require.Contains(t, kanade(t, "at", "1", "job", "list").err, "nothing listens")
}
