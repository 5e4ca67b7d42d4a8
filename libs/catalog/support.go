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
	g.refuse(!slices.Contains(e.RunAs.words(), string(e.RunAs)), "execute.run_as", either(e.RunAs.words()))
	g.refuse(e.ScriptFile != nil, "execute.script_file", "by the CLI, which sends the text as script")
	g.refuse(m.RequireApproval, "require_approval", "false")
	g.refuse(m.Inventory != nil, "inventory", "")
	g.refuse(m.Emit != nil, "emit", "")
	g.refuse(m.Check != nil, "check", "")
	mode := m.Staleness.Mode
	g.refuse(!slices.Contains(mode.words(), string(mode)), "staleness.mode", either(mode.words()))
	g.refuse(m.Client != nil, "client", "")
	return g.err()
}

// Unsupported names the keys of the schedule that are not carried out yet; see [Manifest.Unsupported].
func (s *Schedule) Unsupported() error {
	var g gate
	s.When.support(&g)
	g.refuse(s.Active != nil && *s.Active != Active{}, "active", "")
	if c := s.Constraints; c != nil {
		g.refuse(c.Window != "", "constraints.window", "")
		g.refuse(c.MaxConcurrent != nil, "constraints.max_concurrent", "")
		g.refuse(len(c.SkipDates) > 0, "constraints.skip_dates", "")
	}
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
