package catalog

// ParseManifest reads a manifest strictly and checks its rules. Every error is an *[Error]. What it asks for may still be
// unsupported: see [Manifest.Unsupported].
func ParseManifest(src []byte, t SourceType) (*Manifest, error) {
	m := new(Manifest)
	d, err := parse(src, t, MaxManifest, m)
	if err != nil {
		return nil, err
	}
	m.check(&d.problems)
	if err := d.err(); err != nil {
		return nil, err
	}
	return m, nil
}

// ParseSchedule reads a schedule strictly and checks its rules, those apart that need to know more than the schedule (that
// the job exists). Every error is an *[Error].
func ParseSchedule(src []byte, t SourceType) (*Schedule, error) {
	s := new(Schedule)
	d, err := parse(src, t, MaxSchedule, s, "target", "rollout", "jitter")
	if err != nil {
		return nil, err
	}
	s.check(&d.problems)
	if err := d.err(); err != nil {
		return nil, err
	}
	return s, nil
}

// ParsePlan reads the JSON body of POST /api/exec/{job_id} strictly and checks its rules, those apart that need to know
// more than the plan ([Plan.CheckDeadline], the members of groups). Every error is an *[Error].
func ParsePlan(body []byte) (*Plan, error) {
	p := new(Plan)
	d, err := parse(body, JSON, MaxPlan, p)
	if err != nil {
		return nil, err
	}
	p.check(&d.problems)
	if err := d.err(); err != nil {
		return nil, err
	}
	return p, nil
}

// Validate checks the rules that ParseManifest checks. The error is an *[Error] of kind Invalid.
func (m *Manifest) Validate() error { return validate(m) }

// Validate checks the rules that ParseSchedule checks. The error is an *[Error] of kind Invalid.
func (s *Schedule) Validate() error { return validate(s) }

// Validate checks the rules that ParsePlan checks. The error is an *[Error] of kind Invalid.
func (p *Plan) Validate() error { return validate(p) }

func validate(doc interface{ check(*problems) }) error {
	var p problems
	doc.check(&p)
	return p.err()
}
