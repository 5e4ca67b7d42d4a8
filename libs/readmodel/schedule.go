package readmodel

import (
	"context"

	"kanade/libs/events"
)

// Schedule is the current document of a schedule.
type Schedule struct {
	ID, JobID string
	Enabled   bool
	Revision
}

var schedules = relation{
	name: "schedules", key: 1, rowid: true, columns: withRevision("id TEXT", "job_id TEXT", "enabled INTEGER"),
	indexes: []string{"CREATE INDEX schedules_written ON schedules (sequence)"},
}

func (s *Schedule) fields() []any {
	return s.Revision.fields(&s.ID, &s.JobID, &s.Enabled)
}

type scheduleProjection struct{ *rows[Schedule, *Schedule] }

func beginSchedules(db *database) projection {
	return scheduleProjection{newRows[Schedule](db, &schedules)}
}

func (p scheduleProjection) Apply(f *fact) error {
	switch e := f.payload.(type) {
	case events.ScheduleSaved:
		row, err := p.get(e.ID)
		if err != nil {
			return err
		}
		row.row = Schedule{ID: e.ID, JobID: e.JobID, Enabled: e.Enabled, Revision: revisionOf(e.DocumentRevision, f)}
		p.put(row)
	case events.ScheduleDeleted:
		row, err := p.get(e.ID)
		if err != nil {
			return err
		}
		p.remove(row)
	}
	return nil
}

func (p scheduleProjection) Flush() error { return p.flush() }

func scanSchedule(scan func(...any) error) (s Schedule, err error) { return s, scan(s.fields()...) }

const scheduleOrder order = "schedules"

// Schedules lists schedules, the last written last, and gives the cursor of the next page; ErrCursor. One that is written
// while the list is read comes once more, at the end.
func (r *Reader) Schedules(ctx context.Context, p Page) ([]Schedule, string, error) {
	var sequence int64
	if err := p.begin(scheduleOrder, &sequence); err != nil {
		return nil, "", err
	}
	rows, err := list(ctx, r, scanSchedule, schedules.all()+" WHERE sequence > ? ORDER BY sequence LIMIT ?", sequence, p.more())
	rows, next := cut(rows, p, func(s *Schedule) string { return scheduleOrder.cursor(s.Sequence) })
	return rows, next, err
}

// CountSchedules counts all schedules.
func (r *Reader) CountSchedules(ctx context.Context) (int, error) {
	return one(ctx, r, scanCount, "SELECT COUNT(*) FROM schedules")
}

// Schedule reads one schedule; ErrNotFound.
func (r *Reader) Schedule(ctx context.Context, id string) (Schedule, error) {
	return one(ctx, r, scanSchedule, schedules.all()+" WHERE id = ?", id)
}
