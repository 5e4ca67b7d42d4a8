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
	w := &s.When
	g.refuse(w.PerPC == nil && w.PerTarget == nil && w.Calendar == nil && w.Cron == "", "when", "per_pc, per_target, calendar and cron")
	known := func(c *Cadence, words ...string) bool {
		return c == nil || c.Word == "" || slices.Contains(words, c.Word)
	}
	g.refuse(!known(w.PerPC, Once, OncePerVersion), "when.per_pc", "once, once_per_version or every")
	g.refuse(!known(w.PerTarget, Once), "when.per_target", "once or every")
	g.refuse(!slices.Contains(s.RunsOn.words(), string(s.RunsOn)), "runs_on", either(s.RunsOn.words()))
	if s.RunsOn == Agent {
		s.agentOnly(&g)
	}
	g.refuse(!slices.Contains(s.CatchUp.words(), string(s.CatchUpPolicy())), "catch_up", either(s.CatchUp.words()))
	g.refuse(!slices.Contains(s.Overlap.words(), string(s.OverlapPolicy())), "overlap", either(s.Overlap.words()))
	return g.err()
}
