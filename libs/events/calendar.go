package events

// CalendarSaved stores a named calendar; it is the current one until the next fact of this calendar.
type CalendarSaved struct {
	// ID of the aggregate is CalendarID of the calendar's.
	ID       string `json:"id"`
	Calendar string `json:"calendar"`
	DocumentRevision
}

func (CalendarSaved) EventType() string     { return "kanade.config.calendar-saved.v1" }
func (p CalendarSaved) AggregateID() string { return p.ID }

// CalendarDeleted removes a named calendar.
type CalendarDeleted struct {
	ID       string `json:"id"`
	Calendar string `json:"calendar"`
}

func (CalendarDeleted) EventType() string     { return "kanade.config.calendar-deleted.v1" }
func (p CalendarDeleted) AggregateID() string { return p.ID }

// CalendarID is the id of the aggregate "config" that holds a named calendar.
func CalendarID(calendar string) string { return "calendar/" + calendar }

var (
	sampleCalendarSaved   = CalendarSaved{ID: CalendarID("holidays"), Calendar: "holidays", DocumentRevision: sampleDocument}
	sampleCalendarDeleted = CalendarDeleted{ID: CalendarID("holidays"), Calendar: "holidays"}
)
