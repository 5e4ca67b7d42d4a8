package domain

import (
	"fmt"
	"iter"
	"slices"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/catalog/fanout"
	"kanade/libs/events"
)

// ExecRequest is what a client asks for with POST /api/exec/{job_id}, and what becomes of the retry of another exec.
type ExecRequest struct {
	// ExecID is drawn, or derived from caller, route and key.
	ExecID, JobID string
	Plan          *catalog.Plan
	// ScheduleID is the schedule in whose place an operator asks; empty otherwise. Nominal is the tick that is made up for; nil:
	// none.
	ScheduleID string
	Nominal    *time.Time
	// RetryOf is the exec whose endpoints are tried again; empty otherwise.
	RetryOf string
	// Reason is what the operator gave for it.
	Reason string
	// Origin is what the client calls itself; empty when it does not say.
	Origin string
	// Key is the client's Idempotency-Key, BodyHash the SHA-256 of the body in lower-case hex.
	Key, BodyHash string
	// At is the broker's time of the request.
	At time.Time
}

// RequestExec decides the fact that asks for a job to be run. The job is pinned by sequence and hash and its script
// resolved, so that nothing that changes afterwards changes what runs. A script object is named in it and not pinned yet.
func RequestExec(job Job, r ExecRequest) (events.ExecRequested, error) {
	none := events.ExecRequested{}
	if job.Saved == nil {
		return none, Refuse(NotFound,
			"job '%s' not found in catalog — register it first with `kanade job create <manifest.yaml>`", r.JobID)
	}
	m, err := catalog.ParseManifestDocument(job.Saved.Document)
	if err != nil {
		return none, fmt.Errorf("request exec of job %s: %w", r.JobID, err)
	}
	script, err := m.Resolve(r.Plan.Params)
	for _, check := range []error{m.Unsupported(), err, r.Plan.CheckDeadline(r.At)} {
		if check != nil {
			return none, refuseCatalog(check, Unprocessable)
		}
	}
	if at := r.Plan.DeadlineAt; at != nil && !at.After(r.At) {
		return none, RefuseField(Invalid, "deadline_at", "%s has passed: nothing could start any more", at.UTC().Format(time.RFC3339))
	}
	plan, err := r.Plan.Document()
	if err != nil {
		return none, fmt.Errorf("request exec of job %s: %w", r.JobID, err)
	}
	e := events.ExecRequested{
		ExecID: r.ExecID, JobID: r.JobID, Version: job.Saved.Version, JobSequence: job.Seq, JobHash: job.Saved.Hash,
		Script: script, Plan: plan, DeadlineAt: r.Plan.DeadlineAt, Retry: r.Plan.Retry.Resolve(), RetryOf: r.RetryOf, Reason: r.Reason, Origin: r.Origin,
		ScheduleID: r.ScheduleID, Nominal: r.Nominal,
	}
	if n, named := CountNames(r.Plan); named {
		e.TargetCount = &n
	}
	if r.Key != "" {
		e.IdempotencyKey, e.RequestHash = r.Key, r.BodyHash
	}
	return e, nil
}

// RepeatExec checks that a request may be answered with the exec that its Idempotency-Key, or its own choice of an id,
// met.
func RepeatExec(met events.ExecRequested, r ExecRequest) error {
	same := met.JobID == r.JobID || r.ScheduleID != "" // whose job may have become another one meanwhile
	if r.Key != "" && met.IdempotencyKey == r.Key && same && met.RetryOf == r.RetryOf && met.RequestHash == r.BodyHash &&
		met.ScheduleID == r.ScheduleID {
		return nil
	}
	if r.Nominal != nil && met.Nominal != nil && met.ScheduleID == r.ScheduleID && met.Nominal.Equal(*r.Nominal) {
		return nil // the tick has been fired, or made up for, meanwhile
	}
	if r.Key == "" {
		return Refuse(Conflict, "execution '%s' is there already: take another id, or none", r.ExecID)
	}
	return keyReused(r.Key, fmt.Sprintf("exec %s of job '%s'", met.ExecID, met.JobID))
}

// RepeatForgotten refuses a request whose Idempotency-Key, or choice of an id, met an exec of which the log knows no more
// than what it was: whether it asks for the same can't be told.
func RepeatForgotten(r ExecRequest) error {
	if r.Key == "" {
		return Refuse(Conflict, "execution '%s' is there already: take another id, or none", r.ExecID)
	}
	return Refuse(Conflict, "Idempotency-Key %q made execution '%s', which has ended and is older than the history; take a new key for a new request", r.Key, r.ExecID)
}

// keyReused refuses an Idempotency-Key that stands for another request.
func keyReused(key, met string) error {
	return Refuse(Unprocessable, "Idempotency-Key %q was used for another request, which made %s; take a new key for a new request", key, met)
}

// Repeated is keyReused for facts that hold no hash of the body they were made of.
func Repeated(key, noun, id string, sequence uint64) error {
	return keyReused(key, fmt.Sprintf("sequence %d of %s '%s'", sequence, noun, id))
}

// Subjects are the command subjects of the plan's form, in the order all, groups as given, PCs as given, repetitions
// kept; with a rollout one a wave instead. How the exec is really addressed is decided when it is planned.
func Subjects(p *catalog.Plan) []string {
	subjects := []string{}
	if p.Rollout != nil {
		for _, w := range p.Rollout.Waves {
			if w.Group != "" {
				subjects = append(subjects, "commands.group."+w.Group)
			}
			subjects = append(subjects, prefixed("commands.pc.", w.PCs)...)
		}
		return subjects
	}
	if p.Target.All {
		subjects = append(subjects, "commands.all")
	}
	subjects = append(subjects, prefixed("commands.group.", p.Target.Groups)...)
	return append(subjects, prefixed("commands.pc.", p.Target.PCs)...)
}

func prefixed(prefix string, names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = prefix + n
	}
	return out
}

// Audience is whom a plan asks for: the union of everybody known, the known members of groups and the PCs that are named.
type Audience struct {
	All         bool
	Groups, PCs []string
}

// AudienceOf is the target, or with a rollout what its waves name. It is not exact when a wave takes a share or a number
// of the target: how many those are says the plan of the exec alone.
func AudienceOf(p *catalog.Plan) (a Audience, exact bool) {
	a, exact = Audience{All: p.Target.All, Groups: p.Target.Groups, PCs: p.Target.PCs}, true
	if p.Rollout != nil {
		a = Audience{}
		for _, w := range p.Rollout.Waves {
			if w.Percent > 0 || w.Count > 0 {
				exact = false
			}
			if w.Group != "" {
				a.Groups = append(a.Groups, w.Group)
			}
			a.PCs = append(a.PCs, w.PCs...)
		}
	}
	a.Groups, a.PCs = unique(a.Groups), unique(a.PCs)
	return a, exact
}

// CountNames counts the endpoints of a plan that names each of them, for which nothing of the fleet need be known; false
// for any other plan.
func CountNames(p *catalog.Plan) (int, bool) {
	a, exact := AudienceOf(p)
	if a.All || len(a.Groups) > 0 || !exact && (p.Target.All || len(p.Target.Groups) > 0) {
		return 0, false
	}
	if exact {
		return len(a.PCs), true
	}
	return Asked(fanout.Plan(events.ExecRequested{}, p, nobody{}, time.Time{})), true
}

// Asked is how many endpoints a plan asked for, as it was decided: those that get a command, now or when they return, and
// those that it leaves out.
func Asked(p events.ExecPlanned) int {
	n := len(p.Skipped)
	for _, w := range p.Waves {
		n += w.Size()
	}
	return n
}

// nobody is a fleet of which nothing is known.
type nobody struct{}

func (nobody) Endpoint(string) (fanout.Endpoint, bool) { return fanout.Endpoint{}, false }
func (nobody) Endpoints() iter.Seq[fanout.Endpoint]    { return func(func(fanout.Endpoint) bool) {} }

func unique(names []string) []string {
	sorted := slices.Sorted(slices.Values(names))
	return slices.Compact(sorted)
}

// RequireTargets refuses an exec that asks for endpoints and reaches nobody.
func RequireTargets(p *catalog.Plan, planned events.ExecPlanned) error {
	if !p.RequireTargets || len(planned.Waves) > 0 {
		return nil
	}
	if n := len(planned.Skipped); n > 0 {
		return RefuseField(Unprocessable, "require_targets", "no endpoint of the target can run it: %d would be skipped, %s first (%s)",
			n, planned.Skipped[0].PCID, planned.Skipped[0].Reason)
	}
	return RefuseField(Unprocessable, "require_targets", "no known endpoint matches the target")
}
