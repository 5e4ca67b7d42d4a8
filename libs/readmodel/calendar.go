package readmodel

import (
	"context"

	"kanade/libs/events"
)

// Calendar is the current document of a named calendar.
type Calendar struct {
	ID string
	Revision
}

var calendars = relation{
	name: "calendars", key: 1, rowid: true, columns: withRevision("id TEXT"),
	indexes: []string{"CREATE INDEX calendars_written ON calendars (sequence)"},
}

func (c *Calendar) fields() []any {
	return c.Revision.fields(&c.ID)
}

type calendarProjection struct{ *rows[Calendar, *Calendar] }

func beginCalendars(db *database) projection {
	return calendarProjection{newRows[Calendar](db, &calendars)}
}

func (p calendarProjection) Apply(f *fact) error {
	switch e := f.payload.(type) {
	case events.CalendarSaved:
		row, err := p.get(e.Calendar)
		if err != nil {
			return err
		}
		row.row = Calendar{ID: e.Calendar, Revision: revisionOf(e.DocumentRevision, f)}
		p.put(row)
	case events.CalendarDeleted:
		row, err := p.get(e.Calendar)
		if err != nil {
			return err
		}
		p.remove(row)
	}
	return nil
}

func (p calendarProjection) Flush() error { return p.flush() }

func scanCalendar(scan func(...any) error) (c Calendar, err error) { return c, scan(c.fields()...) }

const calendarOrder order = "calendars"

// Calendars lists calendars, the last written last, and gives the cursor of the next page; ErrCursor. One that is written
// while the list is read comes once more, at the end.
func (r *Reader) Calendars(ctx context.Context, p Page) ([]Calendar, string, error) {
	var sequence int64
	if err := p.begin(calendarOrder, &sequence); err != nil {
		return nil, "", err
	}
	rows, err := list(ctx, r, scanCalendar, calendars.all()+" WHERE sequence > ? ORDER BY sequence LIMIT ?", sequence, p.more())
	rows, next := cut(rows, p, func(c *Calendar) string { return calendarOrder.cursor(c.Sequence) })
	return rows, next, err
}

// CountCalendars counts all calendars.
func (r *Reader) CountCalendars(ctx context.Context) (int, error) {
	return one(ctx, r, scanCount, "SELECT COUNT(*) FROM calendars")
}

// Calendar reads one calendar; ErrNotFound.
func (r *Reader) Calendar(ctx context.Context, id string) (Calendar, error) {
	return one(ctx, r, scanCalendar, calendars.all()+" WHERE id = ?", id)
}
