package catalog

import (
	"maps"
	"slices"
	"strings"
	"time"
)

func (p *Plan) check(out *problems) {
	if p.Target.IsZero() && p.Rollout == nil {
		out.add(Invalid, "target", "must name at least one of all, groups, pcs (or set rollout.waves)")
	}
	p.Target.check(out)
	out.duration("jitter", p.Jitter)
	if p.ExpiresAfter != nil && out.duration("expires_after", p.ExpiresAfter) == 0 {
		out.add(Invalid, "expires_after", "must be more than 0")
	}
	p.MaxFailures.check(out, "max_failures", 0)
	p.MaxParallel.check(out, "max_parallel", 1)
	for _, name := range slices.Sorted(maps.Keys(p.Params)) {
		if !isIdentifier(name) {
			out.add(Invalid, join("params", name), "can't be the name of a parameter: expected letters, digits and _")
		}
	}
	if p.Retry != nil {
		p.Retry.check(out, "retry")
	}
	if p.Rollout != nil {
		p.Rollout.check(out, p.Target.IsZero())
	}
	if total := p.pcs(); total > MaxPlanPCs {
		out.add(Invalid, "", "%d named endpoints are more than the limit of %d", total, MaxPlanPCs)
	}
}

// pcs counts the endpoints that the plan names, repetitions included.
func (p *Plan) pcs() int {
	total := len(p.Target.PCs)
	if p.Rollout != nil {
		for i := range p.Rollout.Waves {
			total += len(p.Rollout.Waves[i].PCs)
		}
	}
	return total
}

func (t *Target) check(out *problems) {
	out.ids("target.groups", t.Groups)
	out.ids("target.pcs", t.PCs)
}

func (a *Amount) check(out *problems, path string, least int) {
	switch {
	case a == nil:
	case a.Percent > 100:
		out.add(Invalid, path, "%s is more than the limit of 100%%", a)
	case a.Percent == 0 && a.Count < least:
		out.add(Invalid, path, "must be at least %d", least)
	}
}

func (r *Rollout) check(out *problems, noTarget bool) {
	if len(r.Waves) == 0 {
		out.add(Invalid, "rollout.waves", "must not be empty")
	}
	for i := range r.Waves {
		path := place("rollout.waves", i)
		r.Waves[i].check(out, path, i)
		if noTarget && (r.Waves[i].Percent > 0 || r.Waves[i].Count > 0) {
			out.add(Invalid, path, "percent and count are parts of the target, and it names nobody")
		}
	}
}

func (w *Wave) check(out *problems, path string, i int) {
	who := 0
	for _, is := range []bool{strings.TrimSpace(w.Group) != "", w.Percent != 0, w.Count != 0, len(w.PCs) > 0} {
		if is {
			who++
		}
	}
	switch {
	case who == 0:
		out.add(Invalid, path, "a wave must name a group, percent, count or pcs")
	case who > 1:
		out.add(Invalid, path, "a wave must name only one of group, percent, count, pcs")
	case strings.TrimSpace(w.Group) != "":
		out.id(path+".group", w.Group)
	}
	if w.Percent < 0 || w.Percent > 100 {
		out.add(Invalid, path+".percent", "%d is outside of 1 to 100", w.Percent)
	}
	if w.Count < 0 {
		out.add(Invalid, path+".count", "must be at least 1")
	}
	out.ids(path+".pcs", w.PCs)
	switch {
	case w.Delay == "" && w.After == "" && !w.Pause:
		out.add(Invalid, path+".delay", "missing: a wave has a delay, or after, or pause")
	case w.Delay != "":
		out.duration(path+".delay", &w.Delay)
	}
	if w.After != "" && i == 0 {
		out.add(Invalid, path+".after", "the first wave has no wave before it")
	}
}

// CheckDeadline refuses waves that would be released when no command can start any more: a delay at or beyond
// deadline_at, for a plan submitted at that time. The error is an *[Error] of kind Invalid.
func (p *Plan) CheckDeadline(submitted time.Time) error {
	if p.DeadlineAt == nil {
		return nil
	}
	var out problems
	p.checkDelays(&out, p.DeadlineAt.Sub(submitted), "deadline_at")
	return out.err()
}

// checkDelays refuses delays at or beyond a limit that counts from the submission.
func (p *Plan) checkDelays(out *problems, limit time.Duration, name string) {
	if p.Rollout == nil {
		return
	}
	for i, w := range p.Rollout.Waves {
		if d, err := w.Delay.Parse(); err == nil && d > 0 && d >= limit {
			out.add(Invalid, place("rollout.waves", i)+".delay", "%s is at or beyond %s: nothing of this wave could start", w.Delay, name)
		}
	}
}
