package readmodel

import (
	"context"
	"time"

	"kanade/libs/events"
)

// Progress is what a schedule remembers of one endpoint, or with an empty PCID of its whole target: its last run by the
// schedule that has ended. It is forgotten with the schedule, and by nothing else.
type Progress struct {
	ScheduleID, PCID string
	// Fired is the nominal time of that run, Succeeded that of the last one that succeeded; zero: none.
	Fired, Succeeded time.Time
	// Version is the job's version that succeeded then; empty: none.
	Version string
	// Failures counts the runs since then that did not succeed; NotBefore is when it may be fired again after the last of
	// them.
	Failures  int
	NotBefore time.Time
	// Sequence is the LOG sequence of the fact, At its time by the broker's clock.
	Sequence uint64
	At       time.Time
}

// Of is the row as libs/catalog judges it, with execID as the open run; empty: none.
func (p Progress) Of(execID string) events.Progress {
	some := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		return &t
	}
	return events.Progress{
		PCID: p.PCID, ExecID: execID, Fired: some(p.Fired), Succeeded: some(p.Succeeded), Version: p.Version, Failures: p.Failures,
		NotBefore: some(p.NotBefore),
	}
}

var progress = relation{
	name: "progress", key: 2, columns: []string{
		"schedule_id TEXT", "pc_id TEXT", "fired_at INTEGER", "succeeded_at INTEGER", "version TEXT", "failures INTEGER",
		"not_before INTEGER", "sequence INTEGER", "at INTEGER",
	},
	indexes: []string{
		"CREATE INDEX progress_failing ON progress (schedule_id, failures, pc_id) WHERE failures > 0",
		"CREATE INDEX progress_succeeded ON progress (schedule_id, succeeded_at)",
	},
}

func (p *Progress) fields() []any {
	return []any{
		&p.ScheduleID, &p.PCID, nanos{&p.Fired}, nanos{&p.Succeeded}, &p.Version, &p.Failures, nanos{&p.NotBefore},
		sequence{&p.Sequence}, nanos{&p.At},
	}
}

// progressProjection holds the endpoints that a batch touches, schedule by schedule.
type progressProjection struct {
	db        *database
	schedules map[string]*scheduleProgress
	order     []*scheduleProgress
}

// scheduleProgress is the part of one schedule's memory that a batch touches. removed: what is stored is to go first, and
// nothing of it counts.
type scheduleProgress struct {
	id      string
	removed bool
	rows    map[string]*entry[Progress]
	touched []*entry[Progress]
}

func beginProgress(db *database) projection {
	return &progressProjection{db: db, schedules: map[string]*scheduleProgress{}}
}

func (p *progressProjection) schedule(id string) *scheduleProgress {
	x := p.schedules[id]
	if x == nil {
		x = &scheduleProgress{id: id, rows: map[string]*entry[Progress]{}}
		p.schedules[id] = x
		p.order = append(p.order, x)
	}
	return x
}

// Apply takes the latest change of each endpoint by the nominal time of its fire, as the scheduler's fold does: a change
// that comes after a later fire's says nothing.
func (p *progressProjection) Apply(f *fact) error {
	switch e := f.payload.(type) {
	case events.ScheduleProgressed:
		x := p.schedule(e.ID)
		for _, c := range e.Changes {
			row, err := p.row(x, c.PCID)
			if err != nil {
				return err
			}
			next := Progress{ScheduleID: e.ID, PCID: c.PCID, Version: c.Version, Failures: c.Failures, Sequence: f.seq, At: f.event.Time}
			for _, t := range []struct {
				from *time.Time
				to   *time.Time
			}{{c.Fired, &next.Fired}, {c.Succeeded, &next.Succeeded}, {c.NotBefore, &next.NotBefore}} {
				if t.from != nil {
					*t.to = t.from.UTC()
				}
			}
			if row.live && row.row.Fired.After(next.Fired) {
				continue
			}
			row.row, row.live = next, true
			if !row.dirty {
				row.dirty = true
				x.touched = append(x.touched, row)
			}
		}
	case events.ScheduleDeleted:
		x := p.schedule(e.ID)
		x.removed, x.touched = true, nil
		x.rows = map[string]*entry[Progress]{}
	}
	return nil
}

func (p *progressProjection) row(x *scheduleProgress, pcID string) (*entry[Progress], error) {
	if row, ok := x.rows[pcID]; ok {
		return row, nil
	}
	row := &entry[Progress]{}
	x.rows[pcID] = row
	if x.removed {
		return row, nil
	}
	found, err := p.db.load(&progress, row.row.fields(), x.id, pcID)
	row.stored, row.live = found, found
	return row, err
}

func (p *progressProjection) Flush() error {
	inserted := insertion{db: p.db, rel: &progress}
	for _, x := range p.order {
		if x.removed {
			if err := p.db.exec(&progress, opDeletePrefix, x.id); err != nil {
				return err
			}
		}
		for _, row := range x.touched {
			if err := row.write(&inserted, row.row.fields()); err != nil {
				return err
			}
		}
	}
	return inserted.flush()
}

func scanProgress(scan func(...any) error) (p Progress, err error) { return p, scan(p.fields()...) }

// Progress lists what a schedule remembers, by endpoint; the whole target (an empty id) comes first.
func (r *Reader) Progress(ctx context.Context, scheduleID string) ([]Progress, error) {
	return list(ctx, r, scanProgress, progress.all()+" WHERE schedule_id = ? ORDER BY pc_id", scheduleID)
}

// Failing lists endpoints whose last runs by a schedule failed, those that failed most often in a row first, and counts
// all of them.
func (r *Reader) Failing(ctx context.Context, scheduleID string, limit int) ([]Progress, int, error) {
	rows, err := list(ctx, r, scanProgress,
		progress.all()+" INDEXED BY progress_failing WHERE schedule_id = ? AND failures > 0 ORDER BY failures DESC, pc_id DESC LIMIT ?", scheduleID, limit)
	if err != nil {
		return nil, 0, err
	}
	n, err := one(ctx, r, scanCount, "SELECT COUNT(*) FROM progress INDEXED BY progress_failing WHERE schedule_id = ? AND failures > 0", scheduleID)
	return rows, n, err
}

// Succeeded is the nominal time of the newest run by a schedule that succeeded, as it remembers; zero: none.
func (r *Reader) Succeeded(ctx context.Context, scheduleID string) (t time.Time, err error) {
	return one(ctx, r, func(scan func(...any) error) (t time.Time, err error) { return t, scan(nanos{&t}) },
		"SELECT COALESCE(MAX(succeeded_at), 0) FROM progress WHERE schedule_id = ?", scheduleID)
}
