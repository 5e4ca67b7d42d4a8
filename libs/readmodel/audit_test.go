package readmodel

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// Of every fact it is decided whether it is an act when an operator causes it: who adds one decides it here as well.
func TestEveryFactIsAnActOrNot(t *testing.T) {
	const none = ""
	decided := map[string]string{
		"job.saved": "job_upsert", "job.deleted": "job_delete",
		"schedule.saved": "schedule_enable", "schedule.deleted": "schedule_delete", "schedule.ticked": none, "schedule.progressed": none,
		"exec.requested": "exec", "exec.cancelled": "cancel", "exec.killed": "kill", "exec.paused": "pause", "exec.resumed": "resume",
		"exec.wave-advanced": "release", "exec.planned": none, "exec.wave-released": none, "exec.wave-dispatched": none, "exec.closed": none,
		"exec.corrected": none, "exec.expired": none, "exec.reduced": none, "exec.halted": none,
		"script.revoked": "script_revoke", "script.unrevoked": "script_unrevoke", "freeze.saved": "freeze_set", "freeze.cleared": "freeze_clear",
		"agent.seen": none, "agent.grouped": "group_set",
		"run.received": none, "run.started": none, "run.finished": none, "run.skipped": none,
		"config.check-requested": "read_model_rebuild", "config.checked": none, "config.past-requested": none, "config.saved": "installation_set",
		"config.calendar-saved": "calendar_upsert", "config.calendar-deleted": "calendar_delete", "clock.ticked": none,
	}
	words := map[string]string{}
	for _, info := range events.Types() {
		name := strings.TrimSuffix(strings.TrimPrefix(info.Name, "kanade."), ".v1")
		act, ok := actOf(info.Sample)
		require.Equal(t, ok, act.action != none, name)
		words[name] = act.action
		if _, known := decided[name]; !known {
			t.Errorf("%s: is it an act when an operator causes it? Decide in actOf, and here", name)
		}
	}
	require.Equal(t, decided, words)
}

// audit lists what a log leaves.
func audit(t *testing.T, log []Message) []AuditRecord {
	t.Helper()
	dir := t.TempDir()
	apply(t, open(t, dir), log)
	rows, next, err := read(t, dir).Audit(t.Context(), AuditFilter{Page: everything})
	require.NoError(t, err)
	require.Empty(t, next)
	return rows
}

// What people did is there with who, from where and what; what services, schedules and endpoints do is not.
func TestAuditOfFacts(t *testing.T) {
	j := &journal{t: t}
	document := func(text string) events.DocumentRevision {
		return events.DocumentRevision{Document: json.RawMessage(text), SourceType: "json", Hash: "h"}
	}
	two := 2
	exec := requested("exec-1", "hello")
	exec.Plan, exec.TargetCount, exec.Reason = json.RawMessage(`{"target":{"groups":["tokyo"],"pcs":["pc-01"]}}`), &two, "why not"
	waves := requested("exec-2", "hello")
	waves.Plan, waves.RetryOf = json.RawMessage(`{"target":{"all":true},"rollout":{"waves":[{"group":"canary"},{"pcs":["pc-02"]}]}}`), "exec-1"
	run := requested("exec-3", wire.AdHocJobID)
	run.Plan, run.Script.Body = json.RawMessage(`{"target":{"pcs":["pc-01"]}}`), "echo <"+strings.Repeat("ä", 600)
	for _, p := range []events.Payload{
		events.JobSaved{ID: "hello", Version: "1", DocumentRevision: document(`{"inventory":{"display":[]}}`)},
		events.JobSaved{ID: "hello", Version: "2", DocumentRevision: document(`{"inventory":null}`)},
		events.JobDeleted{ID: "hello"},
		events.ScheduleSaved{ID: "s", JobID: "hello", Enabled: true, DocumentRevision: document(`{"when":{"per_pc":{"every":"6h"}}}`)},
		events.ScheduleSaved{ID: "s", JobID: "hello", Switched: true},
		exec, waves, run,
		events.ExecKilled{ExecID: "exec-1"}, events.WaveAdvanced{ExecID: "exec-2", Wave: 1, Reason: "good"},
		events.FreezeSaved{ID: events.FleetID, Reason: "year end", TZ: "local"}, events.FreezeCleared{ID: events.FleetID},
		events.AgentGrouped{PCID: "pc-01", Groups: []string{"a"}}, events.ReadModelCheckRequested{ID: events.ReadModelID},
	} {
		j.append(p, "user:ann")
	}
	acts := len(j.messages)
	j.append(events.ScriptRevoked{JobID: "hello"}, "cli:script_status")
	j.append(events.ScriptRevoked{JobID: "hello"}, "cli:script_status") // stored twice
	j.append(events.InstallationSaved{ID: events.InstallationID, Zone: "UTC"}, "service:scheduler")
	j.append(requested("exec-4", "hello"), "schedule:s")
	j.append(events.ExecClosed{ExecID: "exec-1"}, "user:ann")
	rows := audit(t, j.messages)
	slices.Reverse(rows)
	require.Len(t, rows, acts+1)
	var said []string
	for i, a := range rows {
		require.Equal(t, []any{"operator", uint64(i + 1), begin.Add(time.Duration(i+1) * time.Millisecond)}, []any{a.Actor, a.Sequence, a.RecordedAt})
		require.Equal(t, begin.Add(time.Duration(i)*time.Millisecond), a.OccurredAt)
		said = append(said, a.Action+" "+a.Target+" "+a.Payload)
	}
	require.Equal(t, []string{
		`job_upsert hello {"hash":"h","inventory":true,"sub":"ann","version":"1"}`,
		`job_upsert hello {"hash":"h","inventory":false,"sub":"ann","version":"2"}`,
		`job_delete hello {"cascade_revoke":true,"sub":"ann"}`,
		`schedule_upsert s {"enabled":true,"hash":"h","job_id":"hello","sub":"ann","when":"per_pc every 6h"}`,
		`schedule_disable s {"job_id":"hello","sub":"ann"}`,
		`exec hello {"exec_id":"exec-1","reason":"why not","sub":"ann","subjects":["commands.group.tokyo","commands.pc.pc-01"],"target_count":2,"version":"1.0.0","wave_mode":false}`,
		`exec hello {"exec_id":"exec-2","retry_of":"exec-1","sub":"ann","subjects":["commands.group.canary","commands.pc.pc-02"],"target_count":null,"version":"1.0.0","wave_mode":true}`,
		`run pc-01 {"exec_id":"exec-3","run_as":"system","script":"echo <` + strings.Repeat("ä", 494) + `","shell":"sh","sub":"ann"}`,
		`kill exec-1 {"sub":"ann"}`,
		`release exec-2 {"reason":"good","sub":"ann","wave":1}`,
		`freeze_set freeze {"from":null,"reason":"year end","sub":"ann","tz":"local","until":null}`,
		`freeze_clear freeze {"sub":"ann"}`,
		`group_set pc-01 {"groups":["a"],"sub":"ann"}`,
		`read_model_verify read-model {"sub":"ann"}`,
		`script_revoke hello {"bucket":"script_status","source":"cli"}`,
	}, said)
	require.Equal(t, "kanade.script.revoked.v1", rows[acts].Type)
}

// What the old system recorded is listed as it listed it.
func TestAuditOfOldRecords(t *testing.T) {
	j := &journal{t: t}
	var recs []wire.AuditEvent
	for _, m := range recorded(t, "audit.json") {
		j.store(m.Subject, nil, m.JSON)
		rec, err := wire.DecodeAuditEvent(m.JSON)
		require.NoError(t, err)
		recs = append(recs, rec)
	}
	require.Greater(t, len(recs), 50)
	rows := audit(t, j.messages)
	require.Len(t, rows, len(recs))
	slices.Reverse(rows)
	for i, a := range rows {
		require.Equal(t, []any{recs[i].Actor, recs[i].Action, recs[i].Target, recs[i].OccurredAt}, []any{a.Actor, a.Action, a.Target, a.OccurredAt})
		require.Equal(t, events.TypeWireAudit, a.Type)
		require.JSONEq(t, string(recs[i].Payload), a.Payload)
		require.Contains(t, []string{"auth-disabled", "unknown"}, a.Sub)
	}
}

// A record is as large as its writer likes; what is kept of it is not. One that can't be read is parked like any other.
func TestAuditOfOddRecords(t *testing.T) {
	w := open(t, t.TempDir())
	j := &journal{t: t}
	for _, body := range []string{
		`{"actor":"operator","action":"a","payload":{"z":1.50,"a":"<>"},"occurred_at":"2026-11-23T17:40:57Z"}`,
		`{"actor":"operator","action":"a","payload":null,"occurred_at":"2026-11-23T17:40:57Z"}`,
		`{"actor":"operator","action":"a","payload":{"sub":"ann","x":"` + strings.Repeat("x", maxAuditPayload) + `"},"occurred_at":"2026-11-23T17:40:57Z"}`,
		`{"actor":"operator"}`, `no JSON`,
	} {
		j.store("audit.operator.a", nil, []byte(body))
	}
	parked, err := w.Apply(t.Context(), events.StreamLog, j.messages)
	require.NoError(t, err)
	require.Len(t, parked, 2)
	var said []string
	for _, a := range audit(t, j.messages) {
		said = append(said, a.EventID+" "+a.Sub+" "+a.Payload)
	}
	require.Equal(t, []string{`log/3 ann {"left_out_bytes":65556}`, `log/2  null`, `log/1  {"a":"<>","z":1.50}`}, said)
}

// Whatever a filter asks for, the list is what looking at every act by itself gives, in the order of the list.
func TestAuditFilters(t *testing.T) {
	dir := t.TempDir()
	w, r := open(t, dir), read(t, dir)
	j := &journal{t: t}
	for n := range 60 {
		who := events.Actor([]string{"user:ann", "user:bob", "cli:script_status"}[n%3])
		job := fmt.Sprintf("job-%d", n%5)
		j.append([]events.Payload{events.ScriptRevoked{JobID: job, Reason: fmt.Sprint(n)}, events.ScriptUnrevoked{JobID: job, Reason: fmt.Sprint(n)}}[n%2], who)
		j.raw("audit.operator.kill.x", wire.AuditEvent{ // its clock goes wrong, and is the same for several
			Actor: []string{"operator", "admin"}[n%2], Action: "kill", Target: job, Payload: json.RawMessage(`{"sub":"ann"}`), OccurredAt: begin.Add(time.Duration(n/4*7%20) * time.Millisecond),
		})
	}
	apply(t, w, j.messages)
	all, _, err := r.Audit(t.Context(), AuditFilter{Page: everything})
	require.NoError(t, err)
	require.Len(t, all, 120)
	require.True(t, slices.IsSortedFunc(all, func(a, b AuditRecord) int {
		if d := b.OccurredAt.Compare(a.OccurredAt); d != 0 {
			return d
		}
		return int(b.Sequence) - int(a.Sequence)
	}))
	find := func(re *regexp.Regexp, text string) bool { return re == nil || re.MatchString(text) }
	expression := rapid.SampledFrom([]string{"", "^kill$", "script", "^job-1$", "job-[23]", "^script_revoke$", `"sub":"ann"`, "7"})
	at := rapid.SampledFrom([]time.Time{{}, begin, begin.Add(10 * time.Millisecond), begin.Add(time.Hour)})
	rapid.Check(t, func(t *rapid.T) {
		re := func(label string) *regexp.Regexp {
			if text := expression.Draw(t, label); text != "" {
				return regexp.MustCompile(text)
			}
			return nil
		}
		f := AuditFilter{
			Actor: rapid.SampledFrom([]string{"", "operator", "admin"}).Draw(t, "actor"), Sub: rapid.SampledFrom([]string{"", "ann", "bob"}).Draw(t, "sub"),
			Action: re("action"), Target: re("target"), Payload: re("payload"), Since: at.Draw(t, "since"), Until: at.Draw(t, "until"),
			Page: Page{Limit: rapid.IntRange(1, 50).Draw(t, "limit")},
		}
		var want, got []AuditRecord
		for _, a := range all {
			if (f.Actor == "" || a.Actor == f.Actor) && (f.Sub == "" || a.Sub == f.Sub) && find(f.Action, a.Action) && find(f.Target, a.Target) &&
				find(f.Payload, a.Payload) && !a.OccurredAt.Before(f.Since) && (f.Until.IsZero() || a.OccurredAt.Before(f.Until)) {
				want = append(want, a)
			}
		}
		for {
			page, next, err := r.Audit(t.Context(), f)
			require.NoError(t, err)
			got = append(got, page...)
			if f.After = next; next == "" {
				break
			}
		}
		require.Equal(t, want, got)
	})
	none, _, err := r.Audit(t.Context(), AuditFilter{})
	require.NoError(t, err)
	require.Empty(t, none, "limit 0 is none")
}

// An act is forgotten by the broker's time of its fact; one that is told again later, when it should be gone, is there again,
// as it would be in a file made of what the log still holds.
func TestAuditForgets(t *testing.T) {
	dir := t.TempDir()
	slot, err := ClaimSlot(dir, brief)
	require.NoError(t, err)
	w, _, err := slot.Continue(t.Context())
	require.NoError(t, err)
	w.slot = slot
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	require.NoError(t, w.Serve(t.Context()))
	r := read(t, dir)
	j := &journal{t: t}
	list := func() (ids []uint64) {
		rows, _, err := r.Audit(t.Context(), AuditFilter{Page: everything})
		require.NoError(t, err)
		for _, a := range rows {
			ids = append(ids, a.Sequence)
		}
		return ids
	}
	j.append(events.JobSaved{ID: "hello", Version: "1"}, "user:ann")
	j.raw("audit.operator.kill.x", wire.AuditEvent{Actor: "operator", Action: "kill", OccurredAt: begin.Add(999 * aDay)})
	j.later = 9 * aDay
	j.append(events.ScriptRevoked{JobID: "hello"}, "user:ann")
	apply(t, w, j.messages)
	require.NoError(t, w.ForgetAll(t.Context()))
	require.Equal(t, []uint64{2, 3, 1}, list())
	j.later = 11 * aDay
	j.append(events.JobSaved{ID: "hello", Version: "1"}, "user:ann") // the same, again
	apply(t, w, j.messages)
	require.Equal(t, []uint64{2, 3, 4}, list())
	require.NoError(t, w.ForgetAll(t.Context()))
	require.Equal(t, []uint64{3, 4}, list())
}

// With an exec that is reduced goes all that was done to it, in whatever batch that was: the log loses it together.
func TestAuditForgetsWithItsExec(t *testing.T) {
	dir := t.TempDir()
	w, r := open(t, dir), read(t, dir)
	j := &journal{t: t}
	j.append(requested("exec-1", "hello"), "user:ann")
	j.append(requested("exec-2", "hello"), "user:ann")
	apply(t, w, j.messages)
	j.append(events.ExecKilled{ExecID: "exec-1"}, "user:ann")
	j.append(events.ExecKilled{ExecID: "exec-2"}, "user:ann")
	j.append(events.ExecReduced{ExecID: "exec-1"}, "service:scheduler")
	apply(t, w, j.messages)
	rows, _, err := r.Audit(t.Context(), AuditFilter{Page: everything})
	require.NoError(t, err)
	require.Len(t, rows, 2)
	for _, a := range rows {
		require.Equal(t, "exec-2", a.ExecID)
	}
}
