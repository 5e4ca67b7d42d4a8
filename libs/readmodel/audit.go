package readmodel

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"kanade/libs/events"
)

// AuditRecord is one act of an operator: a fact that he caused, or what an old CLI recorded of itself. An old CLI that writes
// into a bucket leaves two, its own record and the fact as which its write was adopted.
type AuditRecord struct {
	// EventID is the id of the fact: one that was stored twice is one act. An old CLI's record has none; it is known by its
	// sequence.
	EventID string
	// Actor is the kind of who did it, in the words of old ("operator"); Sub is who, where that is known.
	Actor, Sub string
	// Action and Target are what was done to what: "job_delete" to "hello". The words that kanade 0.43.45 had are kept, that
	// of its API for facts; an old CLI's record says what that wrote.
	Action, Target string
	// ExecID is the exec that was asked for, or that it was done to; empty for other acts.
	ExecID string
	// Payload says more, as a JSON value with sorted keys and without blanks; at most maxAuditPayload bytes.
	Payload string
	// OccurredAt is when it was done: by the broker's clock, in an old CLI's record by that CLI's own.
	OccurredAt time.Time
	// Type is the fact's versioned name, or events.TypeWireAudit.
	Type string
	// Sequence is its LOG sequence, RecordedAt when the broker stored it.
	Sequence   uint64
	RecordedAt time.Time
}

// audits has an index for each filter that is looked up, in the order of the list, and one by the broker's time, for whoever
// forgets.
var audits = relation{
	name: "audit", key: 1, rowid: true, columns: []string{
		"event_id TEXT", "actor TEXT", "sub TEXT", "action TEXT", "target TEXT", "exec_id TEXT", "payload TEXT", "occurred_at INTEGER", "type TEXT",
		"sequence INTEGER", "recorded_at INTEGER",
	},
	indexes: []string{
		"CREATE INDEX audit_occurred ON audit (occurred_at, sequence)",
		"CREATE INDEX audit_actor ON audit (actor, occurred_at, sequence)",
		"CREATE INDEX audit_sub ON audit (sub, occurred_at, sequence)",
		"CREATE INDEX audit_action ON audit (action, occurred_at, sequence)",
		"CREATE INDEX audit_target ON audit (target, occurred_at, sequence)",
		"CREATE INDEX audit_recorded ON audit (recorded_at)",
		"CREATE INDEX audit_exec ON audit (exec_id) WHERE exec_id <> ''",
	},
}

func (a *AuditRecord) fields() []any {
	return []any{
		&a.EventID, &a.Actor, &a.Sub, &a.Action, &a.Target, &a.ExecID, &a.Payload, nanos{&a.OccurredAt}, &a.Type, sequence{&a.Sequence}, nanos{&a.RecordedAt},
	}
}

// maxAuditPayload is the longest payload that is kept, in bytes; of a longer one the length is kept instead.
const maxAuditPayload = 64 << 10

type auditProjection struct {
	*rows[AuditRecord, *AuditRecord]
}

func beginAudit(db *database) projection { return auditProjection{newRows[AuditRecord](db, &audits)} }

func (p auditProjection) Apply(f *fact) error {
	if f.run != nil {
		return nil // what endpoints say is no act, and most of the log
	}
	if reduced, ok := f.payload.(events.ExecReduced); ok {
		return p.forgetExec(reduced.ExecID)
	}
	record, ok := auditOf(f)
	if !ok {
		return nil
	}
	row, err := p.get(record.EventID)
	if err != nil || row.live && !row.row.RecordedAt.Before(p.db.retain.HistoryAt(f.at)) { // a second time; or forgotten, if not yet removed
		return err
	}
	row.row = record
	p.put(row)
	return nil
}

func (p auditProjection) Flush() error { return p.flush() }

// forgetExec forgets what was done to an exec that is reduced: its facts leave the log together, also those that are younger
// than the history.
func (p auditProjection) forgetExec(execID string) error {
	var ids []string
	err := p.db.take("SELECT event_id FROM audit WHERE exec_id = ? AND exec_id <> ''", func(scan func(...any) error) error {
		var id string
		err := scan(&id)
		ids = append(ids, id)
		return err
	}, execID)
	if err != nil {
		return fmt.Errorf("read table audit: %w", err)
	}
	for _, e := range p.touched { // of the same batch
		if e.row.ExecID == execID {
			ids = append(ids, e.key)
		}
	}
	for _, id := range ids {
		row, err := p.get(id)
		if err != nil {
			return err
		}
		p.remove(row)
	}
	return nil
}

// Acts are as old as the broker's time of the fact, whatever an old CLI's clock said.
var forgetAudit = forgetting{
	due:     "SELECT 1 FROM audit INDEXED BY audit_recorded WHERE recorded_at < ?",
	horizon: events.Retain.HistoryAt,
	remove: func(d *database, horizon time.Time, limit int) (int, error) {
		return d.removeOld("DELETE FROM audit WHERE rowid IN (SELECT rowid FROM audit INDEXED BY audit_recorded WHERE recorded_at < ?1 LIMIT ?2)",
			horizon, limit)
	},
}

// Whose facts are acts: a user's, and a cli's, which are those that were adopted from a bucket that an old CLI wrote into.
const (
	kindUser = "user"
	kindCLI  = "cli"
)

// auditOperator is what kanade 0.43.45 calls every operator in the field actor.
const auditOperator = "operator"

// auditOf is the act that a fact is; false for any other.
func auditOf(f *fact) (AuditRecord, bool) {
	a := AuditRecord{EventID: f.event.ID, Type: f.event.Type, OccurredAt: f.event.Time, Sequence: f.seq, RecordedAt: f.at}
	if old := f.audit; old != nil {
		a.EventID = "log/" + strconv.FormatUint(f.seq, 10)
		a.Actor, a.Action, a.Target, a.OccurredAt = old.Actor, old.Action, old.Target, old.OccurredAt
		var says any
		d := json.NewDecoder(bytes.NewReader(old.Payload))
		d.UseNumber() // a number stays as it was written
		if err := d.Decode(&says); err != nil {
			says = nil // there is none
		}
		a.says(says)
		return a, true
	}
	kind, name := f.event.Actor.Kind(), f.event.Actor.Name()
	if f.payload == nil || kind != kindUser && kind != kindCLI {
		return a, false
	}
	act, ok := actOf(f.payload)
	if !ok {
		return a, false
	}
	a.Actor, a.Action, a.Target = auditOperator, act.action, act.target
	if f.event.Aggregate() == events.AggregateExec {
		a.ExecID = f.event.Subject
	}
	says := map[string]any{}
	maps.Copy(says, act.says)
	if kind == kindCLI {
		says["source"], says["bucket"] = kindCLI, name
	} else {
		says["sub"] = name
		if f.event.Origin != "" {
			says["source"] = f.event.Origin
		}
	}
	a.says(says)
	return a, true
}

// says sets the payload, and who it was if that says so.
func (a *AuditRecord) says(payload any) {
	object, _ := payload.(map[string]any)
	a.Sub, _ = object["sub"].(string)
	a.Payload = compactJSON(payload)
	if n := len(a.Payload); n > maxAuditPayload {
		a.Payload = compactJSON(map[string]any{"left_out_bytes": n})
	}
}

// compactJSON is a value of strings, numbers, lists and objects as JSON, keys sorted, without blanks.
func compactJSON(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // a script is searched as it was written
	if err := enc.Encode(v); err != nil {
		return "null"
	}
	return strings.TrimSuffix(b.String(), "\n")
}
