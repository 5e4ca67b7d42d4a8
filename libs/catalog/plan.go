package catalog

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Plan says whom an exec reaches and how: the body of POST /api/exec/{job_id}, and part of a schedule.
type Plan struct {
	Target Target `json:"target"`
	// Rollout releases the exec in waves; the target is then only a label.
	Rollout *Rollout `json:"rollout,omitzero" is:"null"`
	// Jitter spreads the starts of the endpoints over this time.
	Jitter *Duration `json:"jitter,omitzero" is:"null"`
	// DeadlineAt is when a command can't start any more; a schedule replaces it at each tick.
	DeadlineAt *time.Time `json:"deadline_at,omitzero" is:"null"`
	// ExpiresAfter counts from the last wave; unset means seven days.
	ExpiresAfter *Duration `json:"expires_after,omitzero" is:"null"`
	// MaxFailures halts the exec when more endpoints than this have failed.
	MaxFailures *Amount `json:"max_failures,omitzero" is:"null"`
	// MaxParallel is the budget of endpoints in flight.
	MaxParallel *Amount `json:"max_parallel,omitzero" is:"null"`
	// Params are the values of the job's inputs.
	Params map[string]jsontext.Value `json:"params,omitzero" is:"null"`
	// Retry is further attempts on each endpoint; unset means none.
	Retry *Retry `json:"retry,omitzero" is:"null"`
	// RequireTargets refuses the exec when nobody matches; a schedule's tick is then skipped either way.
	RequireTargets bool `json:"require_targets,omitzero"`
}

// Target names endpoints; the union of what it names is meant, each endpoint once.
type Target struct {
	Groups []string `json:"groups"`
	PCs    []string `json:"pcs"`
	All    bool     `json:"all"`
}

// IsZero reports whether the target names nobody at all.
func (t Target) IsZero() bool { return !t.All && len(t.Groups) == 0 && len(t.PCs) == 0 }

// Strategy is the form of a rollout.
type Strategy string

// Rollout is a list of waves, at least one.
type Rollout struct {
	Strategy Strategy `json:"strategy"`
	Waves    []Wave   `json:"waves" is:"required"`
}

// Wave is one step of a rollout: exactly one of Group, Percent, Count and PCs says who, the rest says when.
type Wave struct {
	Group string `json:"group,omitzero"`
	// Delay counts from the submission of the exec, or from the end of the wave before with After.
	Delay Duration `json:"delay,omitzero"`
	// Percent of the target, 1 to 100.
	Percent int `json:"percent,omitzero" is:"null"`
	// Count of endpoints of the target, at least 1.
	Count int      `json:"count,omitzero" is:"null"`
	PCs   []string `json:"pcs,omitzero" is:"null"`
	After After    `json:"after,omitzero" is:"null"`
	// Pause waits for an operator's release.
	Pause bool `json:"pause,omitzero"`
}

// After says what the delay of a wave counts from; empty means the submission.
type After string

func (Strategy) words() []string { return []string{"wave"} }
func (After) words() []string    { return []string{"previous"} }

func (t *Target) defaults()  { t.Groups, t.PCs = []string{}, []string{} }
func (p *Plan) defaults()    { p.Target.defaults() }
func (r *Rollout) defaults() { r.Strategy = "wave" }
