package readmodel

import (
	"context"
	"math"
	"time"

	"kanade/libs/events"
)

// Tick is how one nominal tick of a schedule ended, or a run of consecutive ones with the same outcome and no exec.
// Ticks outlive their schedule.
type Tick struct {
	// EventID is the id of the fact: a fact that was stored twice is one tick.
	EventID, ScheduleID string
	// ScheduleSequence is the LOG sequence of the schedule's revision that made it.
	ScheduleSequence uint64
	Outcome          events.TickOutcome
	Reason           string
	// From and To are nominal times, equal unless Count is more than one.
	From, To time.Time
	Count    int
	// ExecID is empty unless it fired or was caught up.
	ExecID string
	// Sequence is the LOG sequence of the fact, At its time by the broker's clock.
	Sequence uint64
	At       time.Time
}

var ticks = relation{
	name: "ticks", key: 1, columns: []string{
		"event_id TEXT", "schedule_id TEXT", "schedule_sequence INTEGER", "outcome TEXT", "reason TEXT",
		"from_at INTEGER", "to_at INTEGER", "count INTEGER", "exec_id TEXT", "sequence INTEGER", "at INTEGER",
	},
	indexes: []string{
		"CREATE INDEX ticks_schedule ON ticks (schedule_id, sequence)",
		"CREATE INDEX ticks_stored ON ticks (at)",
		"CREATE INDEX ticks_fired ON ticks (schedule_id, sequence) WHERE exec_id <> ''",
	},
}

func (t *Tick) fields() []any {
	return []any{
		&t.EventID, &t.ScheduleID, sequence{&t.ScheduleSequence}, &t.Outcome, &t.Reason, nanos{&t.From}, nanos{&t.To}, &t.Count, &t.ExecID,
		sequence{&t.Sequence}, nanos{&t.At},
	}
}

type tickProjection struct{ *rows[Tick, *Tick] }

func beginTicks(db *database) projection { return tickProjection{newRows[Tick](db, &ticks)} }

func (p tickProjection) Apply(f *fact) error {
	e, ok := f.payload.(events.ScheduleTicked)
	if !ok {
		return nil
	}
	row, err := p.get(f.event.ID)
	if err != nil || row.live {
		return err
	}
	row.row = Tick{
		EventID: f.event.ID, ScheduleID: e.ID, ScheduleSequence: e.ScheduleSequence, Outcome: e.Outcome, Reason: e.Reason,
		From: e.From, To: e.To, Count: e.Count, Sequence: f.seq, At: f.event.Time,
	}
	if e.Exec != nil {
		row.row.ExecID = e.Exec.ExecID
	}
	p.db.old(row.row.At, p.db.retain.LedgerAt(f.at))
	p.put(row)
	return nil
}

func (p tickProjection) Flush() error { return p.flush() }

var forgetTicks = forgetting{
	due:     "SELECT 1 FROM ticks WHERE at < ?",
	horizon: events.Retain.LedgerAt,
	remove: func(d *database, horizon time.Time, limit int) (int, error) {
		return d.removeOld("DELETE FROM ticks WHERE event_id IN (SELECT event_id FROM ticks WHERE at < ? ORDER BY at LIMIT ?)", horizon, limit)
	},
}

func scanTick(scan func(...any) error) (t Tick, err error) { return t, scan(t.fields()...) }

const tickOrder order = "ticks"

// Ticks lists the ticks of a schedule, the newest first, and gives the cursor of the next page; ErrCursor.
func (r *Reader) Ticks(ctx context.Context, scheduleID string, p Page) ([]Tick, string, error) {
	last := int64(math.MaxInt64)
	if err := p.begin(tickOrder, &last); err != nil {
		return nil, "", err
	}
	rows, err := list(ctx, r, scanTick, ticks.all()+" WHERE schedule_id = ? AND sequence < ? ORDER BY sequence DESC LIMIT ?", scheduleID, last, p.more())
	rows, next := cut(rows, p, func(t *Tick) string { return tickOrder.cursor(t.Sequence) })
	return rows, next, err
}
