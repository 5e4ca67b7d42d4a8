package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// begin starts an exec and gives its id.
func begin(t *testing.T, args ...string) string {
	t.Helper()
	return okJSON[map[string]any](t, append([]string{"exec"}, args...)...)["exec_id"].(string)
}

func jobs(t *testing.T, lines map[string]string) {
	t.Helper()
	for id, line := range lines {
		ok(t, "job", "create", file(t, id+".yaml", script(id, line)))
	}
}

func TestDryRun(t *testing.T) {
	system(t)
	jobs(t, map[string]string{"a": "true"})
	eventually(t, " yes ", "agent", "list")
	ok(t, "group", "add", "canary", pc)
	eventually(t, pc, "group", "list")
	args := []string{"exec", "a", "--all", "--pcs-file", file(t, "pcs", "pc-02\n"), "--wave", "group=canary", "--wave", "percent=50,after,delay=90s",
		"--wave", "percent=100,pause", "--max-failures", "1", "--max-parallel", "50%", "--deadline", "2h", "--retry", "1,1s", "--jitter", "1s", "--dry-run"}
	text := ok(t, args...)
	require.Regexp(t, `^dry run of a 1\.0\.0: 2 endpoints in 3 waves, nothing was written\nnothing begins after 20\S+ \S+, nobody is waited for after 20.*\n`+
		`halts when more than 1 endpoint has failed\nat most 1 endpoint at work at once, those that failed included\n\nWAVE .*\n`+
		`0 +group canary +20\S+ \S+ +1 +pc-01 +-\n1 +50% +1m30s after the end of wave 0 +1 +pc-02 +-\n2 +100% +when it is released +0 +- +-\n`+
		`\nEACH COMMAND.*\nshell +\w+\ntimeout +30s\nrun as +system\njitter +1s\nretry +1 more, 1s apart\nscript\n    true\n$`, text)
	raw := okJSON[map[string]any](t, args...)
	require.Equal(t, true, raw["dry_run"])
	require.Len(t, raw["waves"], 3)
	require.Empty(t, okJSON[[]any](t, "exec", "list"), "nothing was written")

	r := kanade(t, "exec", "a", "--group", "nobody", "--require-targets")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "422")
	require.Regexp(t, `^exec \S+: a 1\.0\.0 on 0 endpoints \(log \d+\)\n`, ok(t, "exec", "a", "--group", "nobody"))
	require.Regexp(t, `^exec \S+: a 1\.0\.0 on 1 endpoint \(log \d+\)\n`, ok(t, "exec", "a", "--group", "canary", "--wave", "percent=50", "--wave", "percent=100,pause"))
	budget := eventually(t, " allowed\n", "exec", "show", begin(t, "a", "--pc", "away", "--max-failures", "1", "--max-parallel", "2"))
	require.Regexp(t, `\nfailures +0 of 1 allowed\nat once +2 endpoints at most, those that failed included \(0\)\n`, budget)
	ok(t, "revoke", "a")
	require.Contains(t, ok(t, "exec", "a", "--all", "--dry-run"), "every endpoint skips them (revoked)\n")
	r = kanade(t, "exec", "a", "--all", "--dry-run", "--wait")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "see `kanade exec run --help`")
}

func TestRolloutIsSteered(t *testing.T) {
	needsShell(t)
	system(t)
	jobs(t, map[string]string{"good": "echo out"})
	eventually(t, " yes ", "agent", "list")
	plan := file(t, "plan.yaml", "target: {all: true}\nrollout:\n  waves:\n    - {pcs: [pc-01], delay: 1h}\n    - {pcs: [pc-02], pause: true}\n")
	id := begin(t, "good", "--plan", plan, "--key", "k")
	require.Equal(t, id, begin(t, "good", "--plan", plan, "--key", "k"))

	show := eventually(t, "when it is released", "exec", "show", id)
	require.Regexp(t, `\n0 +1 named +pending +\S+ +at .* \(in (1h|59m\d+s)\) +░{20}  1 expected\n1 +1 named +paused +\S+ +when it is released +░{20}  1 expected\n`, show)
	paused := ok(t, "pause", id, "--reason", "lunch")
	require.Regexp(t, `^exec `+id+` is paused: no further wave goes out until it is resumed \(log \d+\)\nIt is pending: 2 expected\.\n$`, paused)
	require.Contains(t, ok(t, "exec", "show", id), "when the exec is resumed")
	require.Contains(t, ok(t, "explain", id, pc), "user:service-token paused the exec at ")
	require.Contains(t, ok(t, "resume", id), " goes on (log ")

	require.Regexp(t, `^wave 0 of exec `+id+` goes out \(log \d+\)\n$`, ok(t, "release", id, "--wave", "0", "-r", "now"))
	eventually(t, "1 succeeded", "exec", "show", id)
	x := ok(t, "explain", id, pc)
	require.Regexp(t, `^pc-01 in exec `+id+`: succeeded\nIt ran .*\n\nLOG +AT +FACT +WHAT IT SAYS\n`, x)
	require.Regexp(t, `\d+ +20\S+ \S+ +exec\.wave-advanced\.v1 +user:service-token let wave 0 \(1 named\) go out at once \(now\)\.\n`, x)
	require.NotEmpty(t, okJSON[map[string]any](t, "explain", id, "pc-02")["summary"])
	require.Contains(t, ok(t, "explain", id, "pc-99"), "pc-99 in exec "+id+": not a target (not_in_plan)\n")

	require.Contains(t, ok(t, "release", id), "wave 1 of exec "+id)
	require.Contains(t, kanade(t, "release", id).err, "all 2 waves")
	cancelled := ok(t, "cancel", id, "-r", "wrong group")
	require.Contains(t, cancelled, "exec "+id+" is cancelled: nothing more of it begins, what runs goes on (log ")
	watched := ok(t, "exec", "show", id, "--watch")
	require.Regexp(t, `exec completed, cancelled by user:service-token \(wrong group\), cancelled \(1 succeeded, 1 skipped\)\n`, watched)
	require.Regexp(t, `stopped +cancelled by user:service-token at .* \(wrong group\)\n`, ok(t, "exec", "show", id))

	r := kanade(t, "pause", id)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "was cancelled: there is nothing to pause (409 Conflict)")
	for _, word := range []string{"kill", "cancel", "pause", "resume", "release", "retry"} {
		r := kanade(t, word, "nothing")
		require.Equal(t, 1, r.code)
		require.Contains(t, r.err, "not found (404 Not Found). `kanade exec list` shows which there are")
	}
}

func TestKillSaysWhomItReaches(t *testing.T) {
	needsShell(t)
	system(t)
	jobs(t, map[string]string{"slow": "exec sleep 60"})
	eventually(t, " yes ", "agent", "list")
	id := begin(t, "slow", "--pc", pc+",away")
	eventually(t, "1 running", "exec", "show", id)
	killed := ok(t, "kill", id, "--reason", "fills the disk")
	require.Regexp(t, `^exec `+id+` is killed \(log \d+\)\nTold to stop it: 1 endpoint, pc-01\n`+
		`1 endpoint had not begun, and will not: also those that are away\.\nIt is .*\.\n$`, killed)
	eventually(t, "1 skipped, 1 killed", "exec", "show", id)
	require.Contains(t, ok(t, "explain", id, "away"), "away in exec "+id+": skipped (exec_killed)\n")
	require.Equal(t, id, okJSON[map[string]any](t, "kill", id)["exec_id"], "again is the same")

	second, third := begin(t, "slow", "--pc", pc), begin(t, "slow", "--pc", "away")
	eventually(t, "1 running", "exec", "show", second)
	lines := strings.Split(strings.TrimSpace(ok(t, "job", "kill", "slow")), "\n")
	require.ElementsMatch(t, []string{"exec " + second + " is killed", "exec " + third + " is killed"}, lines)
	eventually(t, "killed by ", "exec", "show", second)
	eventually(t, "completed", "exec", "show", second)
	require.Equal(t, "job slow: no exec of it was under way\n", ok(t, "job", "kill", "slow"))
	require.Empty(t, okJSON[map[string]any](t, "job", "kill", "slow")["killed"])

	waited := kanade(t, "exec", "slow", "--pc", pc, "--max-failures", "0", "--wave", "pcs="+pc, "--wave", "pcs=away,after", "--wait", "--timeout", "1ms")
	require.Equal(t, 3, waited.code)
}

func TestRetry(t *testing.T) {
	needsShell(t)
	system(t)
	flag := filepath.Join(t.TempDir(), "flag")
	jobs(t, map[string]string{"once": "test -e " + flag + " || { echo no such file >&2; exit 4; }"})
	eventually(t, " yes ", "agent", "list")
	r := kanade(t, "exec", "once", "--pc", pc, "--wait")
	require.Equal(t, 2, r.code)
	id := regexp.MustCompile(`^exec (\S+):`).FindStringSubmatch(r.out)[1]
	show := ok(t, "exec", "show", id)
	require.Contains(t, show, "  1 endpoint: failed, exit code 4  pc-01\n    | no such file\n")

	require.NoError(t, os.WriteFile(flag, nil, 0o600))
	again := kanade(t, "retry", id, "--wait", "--reason", "mended")
	require.Zero(t, again.code, again.err)
	require.Contains(t, again.out, "succeeded: 1 succeeded")
	second := regexp.MustCompile(`^exec (\S+):`).FindStringSubmatch(again.out)[1]
	require.Regexp(t, `tries again +`+id+`\n`, ok(t, "exec", "show", second))
	require.Equal(t, id, okJSON[struct{ Execution map[string]any }](t, "exec", "show", second).Execution["retry_of"])
	none := kanade(t, "retry", second)
	require.Equal(t, 1, none.code)
	require.Contains(t, none.err, "409 Conflict")
	require.Contains(t, kanade(t, "retry", id, "--state", "odd").err, "states[0]")
	require.NoError(t, os.Remove(flag))
	ok(t, "job", "delete", "once")
	pinned := kanade(t, "retry", id, "--pinned")
	require.Zero(t, pinned.code)
	require.Contains(t, pinned.out, ": once 1.0.0 on 1 endpoint (log ")
	require.Contains(t, pinned.err, "job once is revoked")
	require.Contains(t, kanade(t, "unrevoke", "once").err, "no job once is known")
	require.NotEqual(t, id, okJSON[map[string]any](t, "retry", second, "--state", "succeeded", "--pinned")["exec_id"])
}

func TestRun(t *testing.T) {
	needsShell(t)
	system(t)
	eventually(t, " yes ", "agent", "list")
	r := kanade(t, "run", pc, "--", "echo", "out;", "echo err >&2")
	require.Zero(t, r.code, r.err)
	require.Equal(t, "out\n", r.out)
	require.Regexp(t, `^err\npc-01: succeeded, exit code 0, took \S+\n$`, r.err)
	r = kanade(t, "run", pc, "--shell", "sh", "--", "printf err >&2; exit 4")
	require.Equal(t, 2, r.code)
	require.Regexp(t, `^err\npc-01: failed, exit code 4, took \S+\n$`, r.err)
	r = kanade(t, "run", pc, "--timeout", "1s", "--", "exec sleep 60")
	require.Equal(t, 2, r.code)
	require.Contains(t, r.err, "pc-01: timed_out, ")
	var answer struct{ Stdout string }
	require.NoError(t, json.Unmarshal([]byte(ok(t, "--json", "run", pc, "--", "echo out")), &answer))
	require.Equal(t, "out\n", answer.Stdout)

	r = kanade(t, "run", "nobody", "--", "true")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "`kanade agent list` shows which there are")
	require.Contains(t, kanade(t, "run", pc, "--timeout", "1ms", "--", "true").err, "at least 1s")
	require.Contains(t, kanade(t, "run", pc, "--shell", "fish", "--", "true").err, "shell: ")
}

func TestRevokeAndDisable(t *testing.T) {
	needsShell(t)
	system(t)
	jobs(t, map[string]string{"good": "true"})
	eventually(t, " yes ", "agent", "list")
	require.Contains(t, ok(t, "revoke", "good", "--reason", "broken"), "job good is revoked")
	r := kanade(t, "exec", "good", "--pc", pc, "--wait")
	require.Equal(t, 2, r.code)
	require.Contains(t, r.out, "skipped: revoked")
	require.Contains(t, ok(t, "unrevoke", "good"), "job good may run again")
	require.Zero(t, kanade(t, "exec", "good", "--pc", pc, "--wait").code)

	ok(t, "schedule", "create", file(t, "s.yaml", "id: s\njob_id: good\nwhen: {cron: '0 4 * * *'}\ntarget: {all: true}\n"))
	require.Equal(t, "schedule s disabled, its job revoked, what ran of its job killed\n", ok(t, "schedule", "disable", "s", "--cascade", "--cascade-kill"))
	require.Equal(t, 2, kanade(t, "exec", "good", "--pc", pc, "--wait").code)
	require.NotZero(t, okJSON[map[string]any](t, "unrevoke", "good")["sequence"])
}

func TestFreeze(t *testing.T) {
	system(t)
	require.Equal(t, "not frozen\n", ok(t, "freeze", "status"))
	require.Equal(t, "schedules: frozen until it is cleared\n", ok(t, "freeze", "set", "--reason", "holidays"))
	require.Regexp(t, `^frozen until it is cleared\nfrom +-\nuntil +-\ndates in +local\nreason +holidays\n$`, eventually(t, "holidays", "freeze", "status"))
	require.Contains(t, ok(t, "freeze", "set", "--from", "2100-01-01", "--until", "2100-01-02T12:00:00+01:00", "--utc"), "not frozen yet, from ")
	eventually(t, "utc", "freeze", "status")
	require.Equal(t, "2100-01-01", okJSON[map[string]any](t, "freeze", "status")["from"])
	r := kanade(t, "freeze", "set", "--from", "soon")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "from: expected YYYY-MM-DD")
	require.Equal(t, "schedules fire again\n", ok(t, "freeze", "clear", "--reason", "back"))
	eventually(t, "not frozen", "freeze", "status")
	require.Nil(t, okJSON[any](t, "freeze", "status"))
}

func TestScriptObjects(t *testing.T) {
	needsShell(t)
	system(t)
	text := "echo \"from an object\"\n"
	require.Regexp(t, `^script tool/1\.0 published: 22 bytes, SHA-256=\S+\n$`, ok(t, "script", "publish", "tool", "1.0", file(t, "tool.sh", text)))
	require.Regexp(t, `\ntool +1\.0 +22 +20\S+ \S+ +SHA-256=`, ok(t, "script", "list"))
	require.Equal(t, text, ok(t, "script", "get", "tool", "1.0"))
	require.Equal(t, text, okJSON[map[string]any](t, "script", "get", "tool", "1.0")["script"])
	to := filepath.Join(t.TempDir(), "out.sh")
	require.Contains(t, ok(t, "script", "get", "tool", "1.0", "-o", to), "22 bytes")
	written, err := os.ReadFile(to)
	require.NoError(t, err)
	require.Equal(t, text, string(written))

	ok(t, "job", "create", file(t, "j.yaml", "id: j\nversion: '1'\nexecute: {shell: sh, timeout: 30s, script_object: tool/1.0}\n"))
	eventually(t, " yes ", "agent", "list")
	require.Contains(t, ok(t, "exec", "j", "--pc", pc, "--wait"), "    from an object\n")
	r := kanade(t, "script", "delete", "tool", "1.0")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "409 Conflict")
	require.Contains(t, kanade(t, "script", "delete", "tool", "2.0").err, "`kanade script list` shows which there are")
	require.Contains(t, kanade(t, "script", "publish", "tool", "3", file(t, "empty", "")).err, "must not be empty")
	ok(t, "script", "publish", "spare", "1", file(t, "spare.sh", "true"))
	require.Equal(t, "script spare/1 deleted\n", ok(t, "script", "delete", "spare", "1"))
}
