package catalog

import "slices"

// gate collects keys that are understood and not carried out yet.
type gate struct{ problems }

// refuse names a key; only says what is carried out of it, if anything.
func (g *gate) refuse(asked bool, path, only string) {
	switch {
	case !asked:
	case only == "":
		g.add(Unsupported, path, "not supported yet")
	default:
		g.add(Unsupported, path, "not supported yet (only %s)", only)
	}
}

// Unsupported names the keys of the manifest that are not carried out yet, or nil. The error is an *[Error] of kind
// Unsupported. Keys at their default pass.
func (m *Manifest) Unsupported() error {
	var g gate
	e := &m.Execute
	g.refuse(!slices.Contains(e.Shell.words(), string(e.Shell)), "execute.shell", either(e.Shell.words()))
	g.refuse(e.ScriptFile != nil, "execute.script_file", "by the CLI, which sends the text as script")
	g.refuse(e.ScriptObject != nil, "execute.script_object", "")
	g.refuse(e.RunAs != System, "execute.run_as", "system")
	g.refuse(e.Cwd != "", "execute.cwd", "")
	g.refuse(len(e.Env) > 0, "execute.env", "")
	g.refuse(len(e.Args) > 0, "execute.args", "")
	g.refuse(e.Stdin != nil, "execute.stdin", "")
	g.refuse(e.SuccessCodes != nil && !slices.Equal(e.SuccessCodes, []int{0}), "execute.success_codes", "[0]")
	g.refuse(len(e.Params) > 0, "execute.params", "")
	g.refuse(m.RequireApproval, "require_approval", "false")
	g.refuse(m.Inventory != nil, "inventory", "")
	g.refuse(m.Emit != nil, "emit", "")
	g.refuse(m.Check != nil, "check", "")
	g.refuse(m.Staleness.Mode != Cached, "staleness.mode", "cached")
	g.refuse(m.Client != nil, "client", "")
	return g.err()
}

// Unsupported names the keys of the plan that are not carried out yet; see [Manifest.Unsupported].
func (p *Plan) Unsupported() error {
	var g gate
	p.support(&g)
	return g.err()
}

func (p *Plan) support(g *gate) {
	g.refuse(p.Rollout != nil, "rollout", "")
	g.refuse(p.Jitter.value() != 0, "jitter", "")
	g.refuse(p.DeadlineAt != nil, "deadline_at", "")
	g.refuse(p.ExpiresAfter != nil, "expires_after", "")
	g.refuse(p.MaxFailures != nil, "max_failures", "")
	g.refuse(p.MaxParallel != nil, "max_parallel", "")
	g.refuse(len(p.Params) > 0, "params", "")
}

// Unsupported names the keys of the schedule that are not carried out yet; see [Manifest.Unsupported].
func (s *Schedule) Unsupported() error {
	var g gate
	s.When.support(&g)
	s.Plan.support(&g)
	g.refuse(s.Active != nil && *s.Active != Active{}, "active", "")
	if c := s.Constraints; c != nil {
		g.refuse(c.Window != "", "constraints.window", "")
		g.refuse(c.MaxConcurrent != nil, "constraints.max_concurrent", "")
		g.refuse(len(c.SkipDates) > 0, "constraints.skip_dates", "")
	}
	g.refuse(s.OnFailure != nil && s.OnFailure.Retry != nil, "on_failure.retry", "")
	g.refuse(s.StartingDeadline != nil, "starting_deadline", "")
	g.refuse(s.RunsOn != Backend, "runs_on", "backend")
	g.refuse(s.CatchUpPolicy() != CatchUpLast, "catch_up", "last")
	g.refuse(s.OverlapPolicy() != OverlapSkip, "overlap", "skip")
	g.refuse(len(s.Calendars) > 0, "calendars", "")
	return g.err()
}

func (w *When) support(g *gate) {
	g.refuse(w.PerTarget != nil, "when.per_target", "")
	g.refuse(w.PerPC != nil && w.PerPC.Word != "", "when.per_pc", "every")
	if w.Calendar != nil {
		_, date, _ := parseAt(w.Calendar.At)
		g.refuse(date, "when.calendar.at", "a time of day")
	}
	none := w.PerPC == nil && w.PerTarget == nil && w.Calendar == nil && w.Cron == ""
	g.refuse(none, "when", "per_pc, calendar and cron")
}
