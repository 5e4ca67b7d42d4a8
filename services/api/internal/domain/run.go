package domain

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// RunSlack is how long after its jitter and its timeout a run is waited for.
const RunSlack = 10 * time.Second

// maxRunSecs bounds how long a request is held.
const maxRunSecs = 24 * 3600

// Run is an inline script for one endpoint: the body of POST /api/run.
type Run struct {
	PCID, Script string
	// Shell is powershell (also when empty, or ps), pwsh, cmd or sh; RunAs as in a manifest, system when empty.
	Shell, RunAs string
	// TimeoutSecs of nil is 60, at least 1 is used.
	TimeoutSecs, JitterSecs *uint64
}

// RunID is the id that a client wants its run to have, under the key's present or old name; empty: none. Agents of 0.43.45
// read nothing but UUIDs.
func RunID(execID, jobID string) (string, error) {
	field, id := "exec_id", execID
	if execID == "" {
		field, id = "job_id", jobID
	} else if jobID != "" {
		return "", RefuseField(Unprocessable, "job_id", "is the old name of exec_id: give one of them")
	}
	if id == "" {
		return "", nil
	}
	parsed, err := uuid.Parse(id)
	if err != nil {
		return "", RefuseField(Invalid, field, "expected a UUID, got %q", id)
	}
	return parsed.String(), nil
}

// Wait is how long the result is waited for, and how late the script may start.
func (r Run) Wait() time.Duration {
	return time.Duration(r.timeoutSecs()+r.jitterSecs())*time.Second + RunSlack
}

func (r Run) timeoutSecs() uint64 {
	if r.TimeoutSecs == nil {
		return 60
	}
	return max(*r.TimeoutSecs, 1)
}

func (r Run) jitterSecs() uint64 {
	if r.JitterSecs == nil {
		return 0
	}
	return *r.JitterSecs
}

// Request decides the fact that asks for the run: an exec of one named endpoint, which must start before its requester
// has gone. x bears the id, key and time; its job and plan do not matter.
func (r Run) Request(x ExecRequest) (events.ExecRequested, error) {
	none := events.ExecRequested{}
	for field, secs := range map[string]uint64{"timeout_secs": r.timeoutSecs(), "jitter_secs": r.jitterSecs()} {
		if secs > maxRunSecs {
			return none, RefuseField(Invalid, field, "%d is more than the limit of %d", secs, maxRunSecs)
		}
	}
	if err := CheckID("pc_id", r.PCID); err != nil {
		return none, err
	}
	m := catalog.Manifest{ID: wire.AdHocJobID, Version: wire.AdHocVersion, Staleness: catalog.Staleness{Mode: catalog.Cached}, Execute: catalog.Execute{
		Shell: catalog.Shell(cmp.Or(r.Shell, "powershell")), Script: r.Script, RunAs: catalog.RunAs(cmp.Or(r.RunAs, string(catalog.System))),
		Timeout: catalog.Duration(fmt.Sprintf("%ds", r.timeoutSecs())),
	}}
	if m.Execute.Shell == "ps" {
		m.Execute.Shell = catalog.PowerShell
	}
	if r.Script == "" {
		return none, RefuseField(Invalid, "script", "must not be empty")
	}
	for _, err := range []error{m.Validate(), m.Unsupported()} {
		if err != nil {
			return none, refuseRun(err)
		}
	}
	script, err := m.Resolve(nil)
	if err != nil {
		return none, refuseRun(err)
	}
	deadline := x.At.Add(r.Wait()).UTC().Truncate(time.Millisecond)
	plan := catalog.Plan{Target: catalog.Target{Groups: []string{}, PCs: []string{r.PCID}}, DeadlineAt: &deadline}
	if secs := r.jitterSecs(); secs > 0 {
		jitter := catalog.Duration(fmt.Sprintf("%ds", secs))
		plan.Jitter = &jitter
	}
	doc, err := plan.Document()
	if err != nil {
		return none, fmt.Errorf("request run on %s: %w", r.PCID, err)
	}
	e := events.ExecRequested{
		ExecID: x.ExecID, JobID: wire.AdHocJobID, Version: wire.AdHocVersion, Script: script, Plan: doc, DeadlineAt: &deadline, Origin: x.Origin,
		TargetCount: new(1),
	}
	if x.Key != "" {
		e.IdempotencyKey, e.RequestHash = x.Key, x.BodyHash
	}
	return e, nil
}

// refuseRun gives the places in a made manifest as those in the body of the request.
func refuseRun(err error) error {
	var e *catalog.Error
	if !errors.As(err, &e) {
		return err
	}
	mapped := catalog.Error{Kind: catalog.Invalid}
	for _, p := range e.Problems {
		p.Path = strings.TrimPrefix(p.Path, "execute.")
		if words, is := strings.CutPrefix(p.Message, "not supported yet (only "); is {
			p.Message = "expected " + strings.TrimSuffix(words, ")")
		}
		mapped.Problems = append(mapped.Problems, p)
	}
	return refuseCatalog(&mapped, Invalid)
}
