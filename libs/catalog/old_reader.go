package catalog

import (
	"slices"
	"strings"
)

// OldReadable reports whether agents of kanade 0.43.45 read the manifest as it is stored: they refuse every key and word
// that they do not know.
func (m *Manifest) OldReadable() bool {
	e := &m.Execute
	return (e.Shell == PowerShell || e.Shell == Cmd) && len(m.Tags) == 0 &&
		len(e.Env) == 0 && len(e.Args) == 0 && e.Stdin == nil && e.SuccessCodes == nil && len(e.Params) == 0
}

// OldReadable reports whether agents of kanade 0.43.45 read the schedule as it is stored: they pass over our keys at the
// root, and refuse those in its blocks and forms that they do not know.
func (s *Schedule) OldReadable() bool { return s.oldUnreadable() == "" }

// oldUnreadable is the path of the first thing that makes the schedule unreadable to 0.43.45; empty when there is none.
func (s *Schedule) oldUnreadable() string {
	w := &s.When
	switch {
	case w.Cron != "":
		return "when.cron"
	case w.PerPC != nil && w.PerPC.Word == OncePerVersion:
		return "when.per_pc"
	case w.Calendar != nil && slices.ContainsFunc(w.Calendar.Days, func(day string) bool {
		return strings.Contains(day, "#") || strings.HasSuffix(strings.ToLower(day), "l")
	}):
		return "when.calendar.days"
	case s.TZ != "local" && s.TZ != "utc":
		return "tz"
	case s.Constraints != nil && s.Constraints.SkipDates != nil:
		return "constraints.skip_dates"
	}
	return ""
}

// agentOnly names the keys of an agent-run schedule that nobody would carry out: agents of 0.43.45 run it, and know only
// what that version knows.
func (s *Schedule) agentOnly(g *gate) {
	const only = "with runs_on: backend"
	if path := s.oldUnreadable(); path != "" {
		g.refuse(true, path, only)
	}
	for _, key := range []struct {
		path string
		set  bool
	}{
		{"expires_after", s.ExpiresAfter != nil}, {"max_failures", s.MaxFailures != nil}, {"max_parallel", s.MaxParallel != nil},
		{"params", len(s.Params) > 0}, {"retry", s.Retry != nil}, {"require_targets", s.RequireTargets},
		{"catch_up", s.CatchUp != "" && s.CatchUp != CatchUpLast}, {"overlap", s.Overlap != "" && s.Overlap != OverlapSkip},
		{"calendars", len(s.Calendars) > 0},
	} {
		g.refuse(key.set, key.path, only)
	}
}
