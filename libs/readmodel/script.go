package readmodel

import (
	"context"
	"time"

	"kanade/libs/events"
)

// Script is whether the commands of a job may run. A job that was never revoked has no row: its commands may.
type Script struct {
	JobID   string
	Revoked bool
	// Reason, Actor and At are those of the last change: Reason is empty where nobody gave one, At is by the broker's
	// clock. Sequence is its LOG sequence.
	Reason   string
	Actor    events.Actor
	At       time.Time
	Sequence uint64
}

var scripts = relation{name: "scripts", key: 1, columns: []string{
	"job_id TEXT", "revoked INTEGER", "reason TEXT", "actor TEXT", "at INTEGER", "sequence INTEGER",
}}

func (s *Script) fields() []any {
	return []any{&s.JobID, &s.Revoked, &s.Reason, &s.Actor, nanos{&s.At}, sequence{&s.Sequence}}
}

type scriptProjection struct{ *rows[Script, *Script] }

func beginScripts(db *database) projection { return scriptProjection{newRows[Script](db, &scripts)} }

func (p scriptProjection) Apply(f *fact) error {
	var said Script
	switch e := f.payload.(type) {
	case events.ScriptRevoked:
		said = Script{JobID: e.JobID, Revoked: true, Reason: e.Reason}
	case events.ScriptUnrevoked:
		said = Script{JobID: e.JobID, Reason: e.Reason}
	default:
		return nil
	}
	row, err := p.get(said.JobID)
	if err != nil {
		return err
	}
	said.Actor, said.At, said.Sequence = f.event.Actor, f.event.Time, f.seq
	row.row = said
	p.put(row)
	return nil
}

func (p scriptProjection) Flush() error { return p.flush() }

func scanScript(scan func(...any) error) (s Script, err error) { return s, scan(s.fields()...) }

// Scripts lists the jobs that have ever been revoked, by id.
func (r *Reader) Scripts(ctx context.Context) ([]Script, error) {
	return list(ctx, r, scanScript, scripts.all()+" ORDER BY job_id")
}

// Script reads whether a job is revoked; ErrNotFound for one that never was.
func (r *Reader) Script(ctx context.Context, jobID string) (Script, error) {
	return one(ctx, r, scanScript, scripts.all()+" WHERE job_id = ?", jobID)
}
