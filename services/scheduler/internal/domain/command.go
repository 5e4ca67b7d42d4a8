package domain

import (
	"strconv"

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

// Commands are the messages of one wave: one a broadcast subject, or one an endpoint.
func Commands(req events.ExecRequested, p events.ExecPlanned, wave int) []Command {
	command := func(subject, requestID string) Command {
		deadline := p.DeadlineAt
		return Command{
			Subject: subject, MessageID: req.ExecID + "/" + strconv.Itoa(wave) + "/" + subject,
			Body: wire.Command{
				ID: req.JobID, Version: req.Version, RequestID: requestID, ExecID: req.ExecID,
				Shell: wire.Shell(req.Script.Shell), Script: req.Script.Body,
				ScriptObject: req.Script.Object, ScriptObjectSHA256: req.Script.ObjectSHA256,
				TimeoutSecs: req.Script.TimeoutSecs, RunAs: wire.RunAs(req.Script.RunAs), CWD: req.Script.Cwd,
				DeadlineAt: &deadline, Staleness: wire.Staleness{Mode: wire.StalenessCached},
			},
		}
	}
	if len(p.Subjects) > 0 {
		commands := make([]Command, len(p.Subjects))
		for i, subject := range p.Subjects {
			commands[i] = command(subject, p.RequestID)
		}
		return commands
	}
	w := p.Waves[wave]
	commands := make([]Command, 0, len(w.Expected)+len(w.Waiting))
	for _, ids := range [][]string{w.Expected, w.Waiting} {
		for _, pc := range ids {
			commands = append(commands, command(wire.SubjectCommandPC(pc), events.DeriveID(req.ExecID, "request", pc)))
		}
	}
	return commands
}
