package fanout

import (
	"strconv"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// Command is one message to agents.
type Command struct {
	// Subject is where it goes; MessageID, made of exec, wave and subject, is the broker's key against doubles.
	Subject   string
	MessageID string
	Body      wire.Command
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
	from, to := r.From, r.To
	if to == 0 {
		to = w.Size()
	}
	if from < 0 || from > to || to > w.Size() {
		return nil, false
	}
	ids := make([]string, 0, to-from)
	for place := from; place < to; place++ {
		ids = append(ids, w.At(place))
	}
	return ids, true
}

// Commands are the messages of a wave, or of the part of it that was released: one on the broadcast subject, or one an
// endpoint. A release that does not fit the plan has none.
func Commands(req events.ExecRequested, plan *catalog.Plan, p events.ExecPlanned, r events.WaveReleased) []Command {
	ids, ok := Part(p, r)
	if !ok {
		return nil
	}
	base := body(req, plan)
	base.DeadlineAt = &p.DeadlineAt
	if r.DeadlineAt != nil {
		base.DeadlineAt = r.DeadlineAt
	}
	command := func(subject, requestID string) Command {
		c := Command{Subject: subject, MessageID: MessageID(req.ExecID, r.Wave, subject), Body: base}
		c.Body.RequestID = requestID
		return c
	}
	if len(p.Subjects) > 0 {
		commands := make([]Command, len(p.Subjects))
		for i, subject := range p.Subjects {
			commands[i] = command(subject, p.RequestID)
		}
		return commands
	}
	commands := make([]Command, len(ids))
	for i, pc := range ids {
		commands[i] = command(wire.SubjectCommandPC(pc), RequestID(req.ExecID, pc))
	}
	return commands
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
