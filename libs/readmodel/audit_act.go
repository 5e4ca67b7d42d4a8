package readmodel

import (
	"encoding/json"
	"strings"

	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// act is what an operator did: the word, to what, and what is said of it beside.
type act struct {
	action, target string
	says           map[string]any
}

// targetFreeze is the target of acts on the freeze, of which there is one.
const targetFreeze = "freeze"

// actOf is the act that a fact is when an operator causes it; false where it is none, whoever causes it. A test holds what is
// decided here against the list of all facts.
func actOf(p events.Payload) (act, bool) {
	switch e := p.(type) {
	case events.JobSaved:
		return act{"job_upsert", e.ID, map[string]any{"version": e.Version, "inventory": hasInventory(e.Document), "hash": e.Hash}}, true
	case events.JobDeleted:
		return act{"job_delete", e.ID, map[string]any{"cascade_revoke": true}}, true
	case events.ScheduleSaved:
		return scheduleAct(e), true
	case events.ScheduleDeleted:
		return act{"schedule_delete", e.ID, nil}, true
	case events.ExecRequested:
		return execAct(e), true
	case events.ExecCancelled:
		return act{"cancel", e.ExecID, reasoned(e.Reason)}, true
	case events.ExecKilled:
		return act{"kill", e.ExecID, reasoned(e.Reason)}, true
	case events.ExecPaused:
		return act{"pause", e.ExecID, reasoned(e.Reason)}, true
	case events.ExecResumed:
		return act{"resume", e.ExecID, reasoned(e.Reason)}, true
	case events.WaveAdvanced:
		says := reasoned(e.Reason)
		says["wave"] = e.Wave
		return act{"release", e.ExecID, says}, true
	case events.ScriptRevoked:
		return act{"script_revoke", e.JobID, reasoned(e.Reason)}, true
	case events.ScriptUnrevoked:
		return act{"script_unrevoke", e.JobID, reasoned(e.Reason)}, true
	case events.CalendarSaved:
		return act{"calendar_upsert", e.Calendar, map[string]any{"hash": e.Hash}}, true
	case events.CalendarDeleted:
		return act{"calendar_delete", e.Calendar, nil}, true
	case events.FreezeSaved:
		return act{"freeze_set", targetFreeze, map[string]any{
			"from": orNull(e.From), "until": orNull(e.Until), "reason": orNull(e.Reason), "tz": e.TZ,
		}}, true
	case events.FreezeCleared:
		return act{"freeze_clear", targetFreeze, reasoned(e.Reason)}, true
	case events.AgentGrouped:
		return act{"group_set", e.PCID, map[string]any{"groups": e.Groups}}, true
	case events.ReadModelCheckRequested:
		word := "read_model_verify"
		if e.Rebuild {
			word = "read_model_rebuild"
		}
		return act{word, e.ID, reasoned(e.Reason)}, true
	case events.InstallationSaved:
		return act{"installation_set", e.ID, map[string]any{"zone": e.Zone}}, true
	}
	return act{}, false
}

func reasoned(reason string) map[string]any {
	if reason == "" {
		return map[string]any{}
	}
	return map[string]any{"reason": reason}
}

func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}

// hasInventory tells whether a manifest makes an inventory of what it gives.
func hasInventory(document json.RawMessage) bool {
	var m struct {
		Inventory json.RawMessage `json:"inventory"`
	}
	return json.Unmarshal(document, &m) == nil && len(m.Inventory) > 0 && string(m.Inventory) != "null"
}

func scheduleAct(e events.ScheduleSaved) act {
	says := map[string]any{"job_id": e.JobID}
	switch {
	case e.Switched && e.Enabled:
		return act{"schedule_enable", e.ID, says}
	case e.Switched:
		return act{"schedule_disable", e.ID, says}
	}
	says["enabled"], says["hash"] = e.Enabled, e.Hash
	if when := whenText(e.Document); when != "" {
		says["when"] = when
	}
	return act{"schedule_upsert", e.ID, says}
}

// whenText is the form of a schedule's document as people read it, in the words of catalog.Schedule's WhenText.
func whenText(document json.RawMessage) string {
	var s struct {
		When struct {
			PerPC     json.RawMessage `json:"per_pc"`
			PerTarget json.RawMessage `json:"per_target"`
			Calendar  *struct {
				At   string   `json:"at"`
				Days []string `json:"days"`
			} `json:"calendar"`
			Cron string `json:"cron"`
		} `json:"when"`
	}
	if json.Unmarshal(document, &s) != nil {
		return ""
	}
	cadence := func(name string, c json.RawMessage) string {
		var word string
		var interval struct {
			Every string `json:"every"`
		}
		if json.Unmarshal(c, &word) == nil {
			return name + " " + word
		}
		if json.Unmarshal(c, &interval) == nil {
			return name + " every " + interval.Every
		}
		return name
	}
	switch w := s.When; {
	case w.PerPC != nil:
		return cadence("per_pc", w.PerPC)
	case w.PerTarget != nil:
		return cadence("per_target", w.PerTarget)
	case w.Calendar != nil && len(w.Calendar.Days) > 0:
		return "at " + w.Calendar.At + " [" + strings.Join(w.Calendar.Days, ",") + "]"
	case w.Calendar != nil:
		return "at " + w.Calendar.At
	case w.Cron != "":
		return "cron " + w.Cron
	}
	return ""
}

// Of a request, at most so many subjects and so many characters of a script are told: the rest is in the exec.
const (
	toldSubjects = 100
	toldScript   = 500
)

// execAct is "exec" of a job, or "run" of a script on one endpoint.
func execAct(e events.ExecRequested) act {
	says := reasoned(e.Reason)
	says["exec_id"] = e.ExecID
	if e.RetryOf != "" {
		says["retry_of"] = e.RetryOf
	}
	var plan struct {
		Target  planned `json:"target"`
		Rollout *struct {
			Waves []struct {
				planned
				Group string `json:"group"`
			} `json:"waves"`
		} `json:"rollout"`
	}
	_ = json.Unmarshal(e.Plan, &plan) // what can't be read names nobody
	subjects := plan.Target.subjects()
	if plan.Rollout != nil {
		subjects = []string{}
		for _, w := range plan.Rollout.Waves {
			if w.Group != "" {
				subjects = append(subjects, "commands.group."+w.Group)
			}
			subjects = append(subjects, w.subjects()...)
		}
	}
	if e.JobID == wire.AdHocJobID && len(plan.Target.PCs) == 1 {
		script := []rune(e.Script.Body)
		says["shell"], says["run_as"], says["script"] = e.Script.Shell, e.Script.RunAs, string(script[:min(toldScript, len(script))])
		return act{"run", plan.Target.PCs[0], says}
	}
	says["version"], says["wave_mode"], says["target_count"] = e.Version, plan.Rollout != nil, nil
	if e.TargetCount != nil {
		says["target_count"] = *e.TargetCount
	}
	if n := len(subjects) - toldSubjects; n > 0 {
		subjects, says["subjects_left_out"] = subjects[:toldSubjects], n
	}
	says["subjects"] = subjects
	return act{"exec", e.JobID, says}
}

// planned is whom a plan, or a wave of one, names.
type planned struct {
	All    bool     `json:"all"`
	Groups []string `json:"groups"`
	PCs    []string `json:"pcs"`
}

// subjects are the command subjects of that form, as the request was answered.
func (p planned) subjects() []string {
	subjects := []string{}
	if p.All {
		subjects = append(subjects, "commands.all")
	}
	for _, g := range p.Groups {
		subjects = append(subjects, "commands.group."+g)
	}
	for _, pc := range p.PCs {
		subjects = append(subjects, "commands.pc."+pc)
	}
	return subjects
}
