package catalog

import "time"

func (s *Schedule) check(p *problems) {
	p.id("id", s.ID)
	p.id("job_id", s.JobID)
	if _, err := s.Location(time.UTC); err != nil {
		p.add(Invalid, "tz", "%v", err)
	}
	s.When.check(p)
	s.Plan.check(p)
	if limit := p.duration("starting_deadline", s.StartingDeadline); limit > 0 {
		s.checkDelays(p, limit, "starting_deadline")
	}
	p.duration("catch_up_window", s.CatchUpWindow)
	p.ids("calendars", s.Calendars)
	if s.Active != nil {
		s.Active.check(p)
	}
	if s.Constraints != nil {
		s.Constraints.check(p, s.When.Calendar)
	}
	if s.OnFailure != nil && s.OnFailure.Retry != nil {
		s.OnFailure.Retry.check(p, "on_failure.retry")
		if s.Retry != nil {
			p.add(Invalid, "retry", "excludes on_failure.retry, which means the same")
		}
	}
	if s.RunsOn == Agent && s.When.PerTarget != nil {
		p.add(Invalid, "when.per_target", "can't be used with runs_on: agent, which knows of one endpoint only")
	}
	if s.RunsOn == Agent && s.Constraints != nil && s.Constraints.MaxConcurrent != nil {
		p.add(Invalid, "constraints.max_concurrent", "can't be used with runs_on: agent, which knows of one endpoint only")
	}
	if doc, err := s.Document(); err != nil {
		p.add(Invalid, "", "%v", err)
	} else if len(doc) > MaxSchedule {
		p.add(Invalid, "", "%d bytes as stored are more than the limit of %d", len(doc), MaxSchedule)
	}
}

func (w *When) check(p *problems) {
	forms := 0
	for _, is := range []bool{w.PerPC != nil, w.PerTarget != nil, w.Calendar != nil, w.Cron != ""} {
		if is {
			forms++
		}
	}
	if forms != 1 {
		p.add(Invalid, "when", "exactly one of per_pc, per_target, calendar, cron must be set")
	}
	w.PerPC.check(p, "when.per_pc")
	w.PerTarget.check(p, "when.per_target")
	if w.PerTarget != nil && w.PerTarget.Word == OncePerVersion {
		p.add(Invalid, "when.per_target", "expected once or a map with every: %s is for per_pc", OncePerVersion)
	}
	if w.Calendar != nil {
		w.Calendar.check(p)
	}
	if w.Cron != "" {
		if _, err := parseCron(w.Cron); err != nil {
			p.add(Invalid, "when.cron", "%v", err)
		}
	}
}

func (c *Cadence) check(p *problems, path string) {
	if c == nil || c.Word != "" {
		return
	}
	before := len(p.list)
	if d := p.duration(path+".every", &c.Every); d == 0 && len(p.list) == before {
		p.add(Invalid, path+".every", "must be more than 0")
	}
}

func (c *Calendar) check(p *problems) {
	_, date, ok := parseAt(c.At)
	if !ok {
		p.add(Invalid, "when.calendar.at", "expected HH:MM or YYYY-MM-DD HH:MM, got %q", c.At)
	}
	if ok && date && len(c.Days) > 0 {
		p.add(Invalid, "when.calendar.days", "can't stand beside a date")
	}
	for i, day := range c.Days {
		if _, err := dayField(day); err != nil {
			p.add(Invalid, place("when.calendar.days", i), "%v", err)
		}
		if day == "*" && len(c.Days) > 1 {
			p.add(Invalid, place("when.calendar.days", i), "* stands alone")
		}
	}
}

func (a *Active) check(p *problems) { p.bounds("active", a.From, a.Until) }

func (c *Constraints) check(p *problems, calendar *Calendar) {
	if c.Window != "" {
		c.checkWindow(p, calendar)
	}
	if c.MaxConcurrent != nil && *c.MaxConcurrent < 1 {
		p.add(Invalid, "constraints.max_concurrent", "must be at least 1")
	}
	for i, date := range c.SkipDates {
		if _, err := time.Parse(time.DateOnly, date); err != nil {
			p.add(Invalid, place("constraints.skip_dates", i), "expected YYYY-MM-DD, got %q", date)
		}
	}
}

func (c *Constraints) checkWindow(p *problems, calendar *Calendar) {
	const path = "constraints.window"
	start, end, ok := parseWindow(c.Window)
	switch {
	case !ok:
		p.add(Invalid, path, "expected HH:MM-HH:MM, got %q", c.Window)
		return
	case start == end:
		p.add(Invalid, path, "both ends are equal")
		return
	case calendar == nil:
		return
	}
	if at, _, ok := parseAt(calendar.At); ok && !inWindow(at, start, end) {
		p.add(Invalid, "when.calendar.at", "%s is outside of constraints.window %s: it would never run", calendar.At, c.Window)
	}
}
