package catalog

import (
	"time"

	"kanade/libs/events"
)

// Retry is further attempts on the endpoint after a failure: Max is 1 to 10 beside the first one, Backoff the pause before
// each, at least 1 s and used in whole seconds.
type Retry struct {
	Max     int      `json:"max" is:"required"`
	Backoff Duration `json:"backoff" is:"required"`
}

// Resolve is the retry as it goes into an exec; nil for nil.
func (r *Retry) Resolve() *events.Retry {
	if r == nil {
		return nil
	}
	return &events.Retry{Max: r.Max, BackoffSecs: uint64(r.Backoff.value() / time.Second)}
}

func (r *Retry) check(p *problems, path string) {
	if r.Max < 1 || r.Max > 10 {
		p.add(Invalid, path+".max", "%d is outside of 1 to 10", r.Max)
	}
	before := len(p.list)
	if d := p.duration(path+".backoff", &r.Backoff); d < time.Second && len(p.list) == before {
		p.add(Invalid, path+".backoff", "must be at least 1s")
	}
}
