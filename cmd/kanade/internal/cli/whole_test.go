package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// script gives a job that runs a line of shell.
func script(id, line string) string {
	return "# kept\nid: " + id + "\nversion: 1.0.0\nexecute:\n  shell: sh\n  timeout: 30s\n  script: |\n    " + line + "\n"
}

// eventually waits until a command line prints what it should: the read model follows the log.
func eventually(t *testing.T, says string, args ...string) string {
	t.Helper()
	var r ran
	require.Eventually(t, func() bool {
		r = kanade(t, args...)
		return r.code == 0 && strings.Contains(r.out, says)
	}, 10*time.Second, 10*time.Millisecond, "%v should say %q; last: %+v", args, says, &r)
	return r.out
}

func needsShell(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the jobs of this test are for sh")
	}
}

func TestJobs(t *testing.T) {
	system(t)
	dir := t.TempDir()
	for name, text := range map[string]string{
		"b.yaml": script("b", "echo b"), "a.yml": script("a", "echo a"),
		"s.yaml": "id: s\njob_id: a\nwhen: {cron: '0 4 * * *'}\ntarget: {all: true}\n",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	r := kanade(t, "job", "create", dir)
	require.Zero(t, r.code, r.err)
	require.Regexp(t, `^job a saved \(log \d+\)\njob b saved \(log \d+\)\n$`, r.out)
	require.Equal(t, filepath.Join(dir, "s.yaml")+": not a job, left out\n", r.err)

	list := eventually(t, "\nb ", "job", "list")
	require.Equal(t, []string{"ID", "VERSION", "SHELL", "TIMEOUT", "LIVE", "REVOKED", "DESCRIPTION"}, strings.Fields(strings.Split(list, "\n")[0]))
	require.Equal(t, []string{"a", "1.0.0", "sh", "30s", "0", "no", "-"}, strings.Fields(strings.Split(list, "\n")[1]))
	require.Equal(t, script("a", "echo a"), ok(t, "job", "show", "a"))
	require.Equal(t, "a", okJSON[map[string]any](t, "job", "show", "a")["id"])
	require.Len(t, okJSON[[]any](t, "job", "list"), 2)

	require.Equal(t, "job b deleted and revoked: endpoints skip it, also when it is created again, until `kanade unrevoke b`\n", ok(t, "job", "delete", "b"))
	require.Eventually(t, func() bool { return kanade(t, "job", "show", "b").code == 1 }, 10*time.Second, 10*time.Millisecond)
	require.Contains(t, kanade(t, "job", "show", "b").err, "404 Not Found")

	const skipped = "kanade: note: job b is revoked: endpoints skip it until `kanade unrevoke b`\n"
	again := kanade(t, "job", "create", file(t, "b.yaml", script("b", "echo b")))
	require.Zero(t, again.code)
	require.Equal(t, skipped, again.err)
	require.Regexp(t, `\nb +1\.0\.0 +sh +30s +0 +yes +-\n`, ok(t, "job", "list"))
	run := kanade(t, "exec", "b", "--all")
	require.Zero(t, run.code)
	require.Equal(t, skipped, run.err)

	bad := kanade(t, "job", "create", file(t, "bad.yaml", "id: a\nversion: 1\nexecute: {shell: sh, timeout: 1s, script: x}\nodd: 1\n"))
	require.Equal(t, 1, bad.code)
	require.Contains(t, bad.err, "odd: unknown key")
	require.Contains(t, bad.err, "kanade: nothing was created")
	unsupported := kanade(t, "job", "create", file(t, "u.yaml", script("u", "x")+"inventory: {display: [{field: a, label: A}]}\n"))
	require.Equal(t, 1, unsupported.code)
	require.Contains(t, unsupported.err, "u.yaml: inventory: not supported yet")
}

func TestExecWait(t *testing.T) {
	needsShell(t)
	system(t)
	for id, line := range map[string]string{"good": "echo out; echo err >&2", "bad": "exit 3", "slow": "exec sleep 60"} {
		ok(t, "job", "create", file(t, id+".yaml", script(id, line)))
	}
	good := ok(t, "exec", "good", "--pc", pc, "--wait")
	require.Regexp(t, `(?s)^exec \S+: good 1\.0\.0 on 1 endpoint \(log \d+\)\n.*planned: 1 expected\n.*  pc-01 +received\n`+
		`.*  pc-01 +running\n.*  pc-01 +succeeded \(exit 0\)\n\npc-01: succeeded, exit code 0, took \d+.*s\n`+
		`  stdout:\n    out\n  stderr:\n    err\nsucceeded: 1 succeeded\n$`, good)
	id := strings.TrimSuffix(strings.Fields(good)[1], ":")

	bad := kanade(t, "exec", "run", "bad", "--all", "-w")
	require.Equal(t, 2, bad.code, bad.err)
	require.Contains(t, bad.out, "failed (exit 3)")
	require.Contains(t, bad.out, "failed: 1 failed")
	require.Empty(t, bad.err)

	absent := kanade(t, "exec", "good", "--pc", "nobody", "--wait", "--timeout", "200ms")
	require.Equal(t, 3, absent.code)
	require.Contains(t, absent.out, "nobody answered within 200ms")
	both := kanade(t, "exec", "good", "--pc", pc+",nobody", "--wait", "--timeout", "2s")
	require.Equal(t, 2, both.code)
	require.Contains(t, both.out, "not all answered within 2s")
	empty := kanade(t, "exec", "good", "--group", "empty", "--wait", "--timeout", "10s")
	require.Equal(t, 3, empty.code)
	require.Contains(t, empty.out, "the target names no known endpoint")
	require.Equal(t, 1, kanade(t, "exec", "unknown", "--all", "--wait").code)

	v := kanade(t, "exec", "good", "--pc", pc, "--wait", "--json")
	require.Zero(t, v.code)
	require.Contains(t, v.err, "succeeded")
	var whole struct {
		Execution struct{ Outcome string }
		Targets   []struct{ State string }
		Results   []struct{ Stdout string }
	}
	require.NoError(t, json.Unmarshal([]byte(v.out), &whole))
	require.Equal(t, "succeeded", whole.Execution.Outcome)
	require.Equal(t, "succeeded", whole.Targets[0].State)
	require.Equal(t, "out\n", whole.Results[0].Stdout)

	show := ok(t, "exec", "show", id)
	require.Regexp(t, `outcome +succeeded\n`, show)
	require.Regexp(t, `\npc-01 +succeeded +0 `, show)
	require.Contains(t, ok(t, "exec", "list"), id)
	require.Len(t, okJSON[[]any](t, "exec", "list", "--job", "good", "--limit", "1"), 1)
}

func TestExecGoesOnWithoutWait(t *testing.T) {
	needsShell(t)
	system(t)
	ok(t, "job", "create", file(t, "a.yaml", script("a", "echo hello from a")))
	asked := ok(t, "exec", "a", "--pc", pc, "--idempotency-key", "k")
	require.Contains(t, asked, "exec show ")
	first := okJSON[map[string]any](t, "exec", "a", "--pc", pc, "--idempotency-key", "k")
	require.Contains(t, asked, first["exec_id"], "the same key, the same exec")

	list := eventually(t, "hello from a", "result", "list", "--job", "a", "--pc", pc, "--status", "success")
	row := strings.Fields(strings.Split(list, "\n")[1])
	require.Equal(t, pc, row[1])
	show := ok(t, "result", "show", row[0])
	require.Regexp(t, `exit code +0\n`, show)
	require.Contains(t, show, "  stdout:\n    hello from a\n")
	require.Len(t, okJSON[[]any](t, "result", "list", "--exec", first["exec_id"].(string)), 1)
	require.Empty(t, okJSON[[]any](t, "result", "list", "--pc", "p"), "ids are whole, not patterns")
	require.Empty(t, okJSON[[]any](t, "result", "list", "--exec", first["exec_id"].(string), "--since", "2990-01-31T08:00:00Z"))
	require.Contains(t, kanade(t, "result", "list", "--since", "yesterday").err, "--since")

	eventually(t, "hello from a", "result", "search", "HELLO", "from a", "--since", "1h")
	require.Empty(t, okJSON[[]any](t, "result", "search", "hello", "nobody"))
	groups := ok(t, "result", "groups", "--job", "a")
	require.Regexp(t, `succeeded +0 +hello from a +[-0-9a-f]{36} +`+pc, groups)
	file := filepath.Join(t.TempDir(), "results.csv")
	require.Regexp(t, `results.csv: \d+ bytes\n$`, ok(t, "result", "export", "--job", "a", "-o", file))
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Regexp(t, `(?s)^result_id,.*,"hello from a\n",`, string(text))
	require.Contains(t, ok(t, "result", "export", "--format", "ndjson"), `"stdout":"hello from a\n"`)
	exec := first["exec_id"].(string)
	for _, args := range [][]string{
		{"exec", "export", "nobody", "-o", file}, {"result", "export", "--format", "xml", "-o", file},
		{"--backend-url", "http://127.0.0.1:1", "result", "export", "-o", file}, {"result", "export", "-o", filepath.Join(file, "no", "directory")},
	} {
		require.Equal(t, 1, kanade(t, args...).code, args)
		kept, err := os.ReadFile(file)
		require.NoError(t, err)
		require.Equal(t, string(text), string(kept), "what failed leaves the file as it was: %v", args)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(file), "*"))
	require.NoError(t, err)
	require.Equal(t, []string{file}, left)
	require.Regexp(t, os.DevNull+`: \d+ bytes\n$`, ok(t, "result", "export", "-o", os.DevNull), "what is no file is not replaced")
	ok(t, "result", "export", "--job", "nobody", "-o", file)
	text, err = os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, 1, strings.Count(string(text), "\n"), "the head")
	require.Regexp(t, `^exec_id,job_id,.*\n(.*\n)*`+exec+`,a,`, ok(t, "exec", "export"))
	require.Len(t, strings.Split(ok(t, "exec", "export", "--status", "pending"), "\n"), 2, "the head")
	require.Regexp(t, `^pc_id,.*\n`+pc+`,true,0,succeeded,0,.*\n$`, ok(t, "exec", "export", exec))
	require.Empty(t, ok(t, "exec", "export", exec, "--state", "failed", "--format", "ndjson"))
	require.Regexp(t, `^pc_id,.*\n`+pc+`,`, ok(t, "agent", "export", "-q", pc))
	require.Regexp(t, `^id,actor,.*\n(.*\n)*\d+,operator,exec,`, ok(t, "audit", "export", "--action", "exec"))
	for args, says := range map[string]string{
		"exec export --state failed": "name one", "exec export x --job a": "--job and --status are of execs", "exec export nobody": "not found",
		"exec export " + exec + " --state lost": "state: expected one of", "exec export --format xml": "--format",
	} {
		r := kanade(t, strings.Fields(args)...)
		require.Equal(t, 1, r.code, args)
		require.Contains(t, r.err, says, args)
	}
}

func TestLongOutput(t *testing.T) {
	needsShell(t)
	system(t)
	ok(t, "job", "create", file(t, "a.yaml", script("a", "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done; echo short >&2")))
	waited := ok(t, "exec", "a", "--pc", pc, "--wait")
	cut := regexp.MustCompile("\n    39\n    … 110 of 108890 bytes are shown; `kanade result output (\\S+) stdout` prints it whole\n").FindStringSubmatch(waited)
	require.NotNil(t, cut, waited)
	require.NotContains(t, waited, " more\n")
	require.Regexp(t, `\n    … 3\d{4} of 108890 bytes are shown; `, ok(t, "result", "show", cut[1]))
	whole := ok(t, "result", "output", cut[1])
	require.Len(t, whole, 108890)
	require.True(t, strings.HasSuffix(whole, "\n19998\n19999\n"))
	require.Equal(t, "short\n", ok(t, "result", "output", cut[1], "stderr"))
	require.Equal(t, "short\n", okJSON[map[string]string](t, "result", "output", cut[1], "stderr")["stderr"])
	require.Contains(t, kanade(t, "result", "output", "nope").err, "404 Not Found")
}

func TestAgentsAndGroups(t *testing.T) {
	system(t)
	list := eventually(t, pc, "agent", "list")
	require.Contains(t, list, "LAST HEARD")
	require.Regexp(t, `alive +yes\n`, eventually(t, "yes", "agent", "show", pc))
	require.Equal(t, 1, kanade(t, "agent", "show", "nobody").code)

	require.Equal(t, "pc-01: sales\npc-02: sales\n", ok(t, "group", "add", "sales", pc, "pc-02"))
	require.Equal(t, "pc-01: sales,west\n", ok(t, "group", "add", "west", pc))
	eventually(t, "pc-01,pc-02", "group", "list")
	require.Equal(t, "pc-01: west\n", ok(t, "group", "rm", "sales", pc))
	require.Eventually(t, func() bool { return !strings.Contains(ok(t, "group", "list"), "pc-01,pc-02") }, 10*time.Second, 10*time.Millisecond)
	require.Equal(t, 1, kanade(t, "group", "add", "bad group", pc).code)
}

func TestSchedules(t *testing.T) {
	system(t)
	create := func(id string) ran {
		return kanade(t, "schedule", "create", file(t, "s.yaml", "id: "+id+"\njob_id: a\nwhen: {calendar: {at: '02:30'}}\ntz: utc\ntarget: {all: true}\n"))
	}
	r := create("nightly")
	require.Equal(t, 1, r.code, "its job is unknown")
	require.Contains(t, r.err, "s.yaml: ")
	ok(t, "job", "create", file(t, "a.yaml", script("a", "true")))
	require.Zero(t, create("nightly").code)

	list := eventually(t, "nightly", "schedule", "list")
	require.Equal(t, []string{"nightly", "a", "at", "02:30", "utc", "all", "yes"}, strings.Fields(strings.Split(list, "\n")[1]))
	require.Contains(t, ok(t, "schedule", "show", "nightly"), "when: {calendar")
	ticks := ok(t, "schedule", "ticks", "nightly")
	require.Equal(t, 3, strings.Count(ticks, "next  "))
	require.Regexp(t, `next  \d{4}-\d\d-\d\d \d\d:\d\d:00\n`, ticks)

	require.Empty(t, create("nightly").err, "it fires")
	for keys, says := range map[string]string{
		"when: {cron: '0 0 30 2 *'}\n":                                     "note: schedule silent fires nothing as it is: no time of it is to come",
		"when: {cron: '0 12 * * *'}\nconstraints: {window: 22:00-05:00}\n": "note: schedule silent fires nothing soon: its next 20 times are held back, the first: outside of the window 22:00-05:00",
		"when: {per_pc: once}\n":                                           "or nobody is in its target",
	} {
		r = kanade(t, "schedule", "create", file(t, "silent.yaml", "id: silent\njob_id: a\ntz: utc\ntarget: {groups: [nobody]}\n"+keys))
		require.Zero(t, r.code)
		require.Contains(t, r.err, says)
	}
	ok(t, "schedule", "delete", "silent")

	require.Equal(t, "schedule nightly disabled\n", ok(t, "schedule", "disable", "nightly"))
	eventually(t, " no\n", "schedule", "list")
	require.Equal(t, "schedule nightly enabled\n", ok(t, "schedule", "enable", "nightly"))
	r = kanade(t, "job", "delete", "a")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "409 Conflict")
	require.Equal(t, "schedule nightly deleted\n", ok(t, "schedule", "delete", "nightly"))
	require.NotZero(t, okJSON[map[string]any](t, "job", "delete", "a")["sequence"])
}

func TestCompletionOfNames(t *testing.T) {
	system(t)
	ok(t, "job", "create", file(t, "a.yaml", script("disk-free", "true")))
	eventually(t, "disk-free", "job", "list")
	eventually(t, pc, "agent", "list")
	require.Contains(t, completes(t, "kanade exec dis"), "disk-free")
	require.Equal(t, []string{pc}, completes(t, "kanade exec disk-free --pc p"))
	id := begin(t, "disk-free", "--pc", "nobody")
	eventually(t, id, "exec", "list")
	require.Equal(t, []string{id}, completes(t, "kanade kill "))
	require.Equal(t, []string{id}, completes(t, "kanade exec show "))
	require.Equal(t, []string{pc}, completes(t, "kanade run p"))
}

func TestWrongToken(t *testing.T) {
	system(t)
	r := kanade(t, "job", "list", "--auth-token-file", file(t, "token", "wrong"))
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "The token came from")
}

func TestUnknownIsNoted(t *testing.T) {
	system(t)
	eventually(t, pc, "agent", "list")
	for _, line := range []string{"job delete nope", "schedule delete nope", "job kill nope", "revoke nope", "unrevoke nope"} {
		r := kanade(t, strings.Fields(line)...)
		require.Zero(t, r.code, line)
		require.Regexp(t, `^kanade: note: no (job|schedule) nope is known`, r.err, line)
		require.NotContains(t, r.out, "deleted")
	}
}
