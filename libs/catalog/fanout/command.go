package fanout

import (
	"strconv"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// Command is one message to agents, but for its body.
type Command struct {
	// Subject is where it goes; MessageID, made of exec, wave and subject, is the broker's key against doubles.
	Subject   string
	MessageID string
	RequestID string
}

// Commands are the messages of a wave, or of the part of it that was released: one on the broadcast subject, or one an
// endpoint. The zero value is none.
type Commands struct {
	// Body is that of each, but for the id of its request.
	Body wire.Command

	wave      int
	requestID string   // of a broadcast
	subjects  []string // of a broadcast
	pcs       []string // of the others
}

// Len is how many there are.
func (c *Commands) Len() int { return len(c.subjects) + len(c.pcs) }

// At is the one at a place, 0 to Len()-1.
func (c *Commands) At(i int) Command {
	if i < len(c.subjects) {
		subject := c.subjects[i]
		return Command{subject, MessageID(c.Body.ExecID, c.wave, subject), c.requestID}
	}
	pc := c.pcs[i-len(c.subjects)]
	subject := wire.SubjectCommandPC(pc)
	return Command{subject, MessageID(c.Body.ExecID, c.wave, subject), RequestID(c.Body.ExecID, pc)}
}

// MessageID is the broker's key of a command: <exec>/<wave>/<subject>.
func MessageID(execID string, wave int, subject string) string {
	return execID + "/" + strconv.Itoa(wave) + "/" + subject
}

// Part lists the endpoints of a wave that were released, the expected ones first; false where the release does not fit
// the plan.
func Part(p events.ExecPlanned, r events.WaveReleased) ([]string, bool) {
	if r.Wave < 0 || r.Wave >= len(p.Waves) {
		return nil, false
	}
	w := p.Waves[r.Wave]
	first, end := events.Part(w.Size(), r.From, r.To)
	if whole := r.From == 0 && r.To == 0; !whole && (first != r.From || end != r.To) {
		return nil, false
	}
	ids := make([]string, 0, end-first)
	for place := first; place < end; place++ {
		ids = append(ids, w.At(place))
	}
	return ids, true
}

// CommandsOf a release; one that does not fit the plan has none.
func CommandsOf(req events.ExecRequested, plan *catalog.Plan, p events.ExecPlanned, r events.WaveReleased) Commands {
	pcs, ok := Part(p, r)
	if !ok {
		return Commands{}
	}
	c := Commands{Body: body(req, plan), wave: r.Wave}
	c.Body.DeadlineAt = &p.DeadlineAt
	if r.DeadlineAt != nil {
		c.Body.DeadlineAt = r.DeadlineAt
	}
	if len(p.Subjects) > 0 {
		c.subjects, c.requestID = p.Subjects, p.RequestID
	} else {
		c.pcs = pcs
	}
	return c
}

// RequestID is the request of an endpoint that gets a command of its own.
func RequestID(execID, pcID string) string { return events.DeriveID(execID, "request", pcID) }

func body(req events.ExecRequested, plan *catalog.Plan) wire.Command {
	s := req.Script
	c := wire.Command{
		ID: req.JobID, Version: req.Version, ExecID: req.ExecID,
		Shell: wire.Shell(s.Shell), Script: s.Body, ScriptObject: s.Object, ScriptObjectSHA256: s.ObjectSHA256,
		TimeoutSecs: s.TimeoutSecs, RunAs: wire.RunAs(s.RunAs), CWD: s.Cwd,
		Env: s.Env, Args: s.Args, Stdin: s.Stdin, SuccessCodes: s.SuccessCodes,
		Staleness: wire.Staleness{Mode: wire.StalenessCached},
	}
	if s.Staleness != "" {
		c.Staleness = wire.Staleness{Mode: wire.StalenessMode(s.Staleness), MaxCacheAge: seconds(s.MaxCacheAge)}
	}
	if jitter := JitterSecs(plan); jitter > 0 {
		c.JitterSecs = &jitter
	}
	if req.Retry != nil {
		c.Retry = &wire.RetrySpec{Max: uint32(min(max(req.Retry.Max, 1), 10)), BackoffSecs: req.Retry.BackoffSecs}
	}
	return c
}

// seconds writes a duration in a form that every agent reads, whatever the operator's was.
func seconds(text string) string {
	d, err := catalog.Duration(text).Parse()
	if err != nil {
		return text
	}
	return strconv.FormatInt(int64(d/time.Second), 10) + "s"
}
