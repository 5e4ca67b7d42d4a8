package rest

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
)

// Bounds of forecasts: rows, days ahead, and nominal times of a simulation.
const (
	defaultPreview  = 5
	maxPreview      = 1000
	defaultUpcoming = 50
	defaultDays     = 7
	maxDays         = 366
	defaultSimulate = 1000
	maxSimulate     = 10_000
)

// due is a forecast as answered.
type due struct {
	At        instant             `json:"at"`
	Local     string              `json:"local"`
	Zone      string              `json:"zone"`
	Outcome   events.TickOutcome  `json:"outcome"`
	Reason    string              `json:"reason,omitempty"`
	Clock     catalog.ClockChange `json:"clock,omitempty"`
	Endpoints int                 `json:"endpoints,omitempty"`
	PCs       []string            `json:"pcs,omitempty"`
	Notes     []string            `json:"notes,omitempty"`
	// Note is the first of the notes.
	Note string `json:"note,omitempty"`
}

func dueOf(f domain.Forecast) due {
	d := due{instant(f.At), f.Local, f.Zone, f.Outcome, f.Reason, f.Clock, f.Endpoints, f.PCs, f.Notes, ""}
	if len(f.Notes) > 0 {
		d.Note = f.Notes[0]
	}
	return d
}

func duesOf(list []domain.Forecast) []due {
	answer := make([]due, len(list))
	for i, f := range list {
		answer[i] = dueOf(f)
	}
	return answer
}

// installation reads what due times depend on beside a schedule: the zone from the log, the rest from the read model.
func (s *server) installation(ctx context.Context) (*domain.Installation, error) {
	local, set, err := s.journal.Zone(ctx)
	if err != nil {
		return nil, err
	}
	in := domain.Installation{Gates: catalog.Gates{Local: local, Calendars: map[string]*catalog.DayCalendar{}}, Zoned: set}
	rows, _, err := s.Reader.Calendars(ctx, readmodel.Page{Limit: readmodel.All})
	if err != nil {
		return nil, err
	}
	for i := range rows {
		if c, err := catalog.ParseDayCalendarDocument([]byte(rows[i].Document)); err == nil {
			in.Calendars[rows[i].ID] = c
		}
	}
	z, frozen, err := s.Reader.Freeze(ctx)
	if err != nil {
		return nil, err
	}
	if frozen {
		in.Freeze, in.Since = &catalog.Freeze{From: z.From, Until: z.Until, Reason: z.Reason, TZ: catalog.FreezeZone(z.TZ)}, z.SavedAt
	}
	return &in, nil
}

// scheduleDocument is the schedule that the path names, as its document.
func (s *server) scheduleDocument(r *http.Request) (*catalog.Schedule, error) {
	row, err := s.schedule(r)
	if err != nil {
		return nil, err
	}
	return catalog.ParseScheduleDocument([]byte(row.Document))
}

// previewSchedule answers what comes next of a schedule. With a cadence, that is when its endpoints are due by what they
// have done so far.
func (s *server) previewSchedule(w http.ResponseWriter, r *http.Request, _ string) error {
	q := queryOf(r)
	count, from := min(q.number("count", defaultPreview), maxPreview), q.time("from")
	if q.err != nil {
		return q.err
	}
	doc, err := s.scheduleDocument(r)
	if err != nil {
		return err
	}
	if doc.Cadence() != nil && !from.IsZero() {
		return fail(http.StatusBadRequest, "from: this schedule counts from what its endpoints do; when they are due after some other time nobody can say")
	}
	o, err := s.outlook(r.Context())
	if err != nil {
		return err
	}
	if from.IsZero() {
		from = o.now
	}
	list, err := o.next(r.Context(), doc, from, time.Time{}, count)
	if err != nil {
		return err
	}
	return writeJSON(w, duesOf(list))
}

// outlook is what forecasts of one request are made of: one moment, and one look at the fleet.
type outlook struct {
	*server
	*domain.Installation
	now time.Time
	// heard is the fleet by id; nil until somebody asks.
	heard []readmodel.Agent
}

func (s *server) outlook(ctx context.Context) (*outlook, error) {
	in, err := s.installation(ctx)
	return &outlook{server: s, Installation: in, now: s.now(ctx)}, err
}

// farAhead is until when something is looked for: no schedule has a time behind it.
const farAhead = 100

// next is what comes of a schedule in (from, until], at most count of it; a zero until is far ahead. With a cadence it
// begins now.
func (o *outlook) next(ctx context.Context, doc *catalog.Schedule, from, until time.Time, count int) ([]domain.Forecast, error) {
	if until.IsZero() {
		until = from.AddDate(farAhead, 0, 0)
	}
	if doc.Cadence() == nil || doc.RunsOn == catalog.Agent {
		list, _ := domain.Forecasts(doc, o.Installation, from, until, count)
		return list, nil
	}
	members, err := o.members(ctx, doc.Target)
	if err != nil {
		return nil, err
	}
	memory, _, err := o.memory(ctx, doc.ID)
	if err != nil {
		return nil, err
	}
	version, err := o.jobVersion(ctx, doc.JobID)
	if err != nil {
		return nil, err
	}
	return domain.ForecastCadence(doc, o.Installation, members, memory, version, o.now, count), nil
}

// nextFire is the next that would fire, or where none of the next thousand would, the first of them; nil: nothing comes.
func (o *outlook) nextFire(ctx context.Context, doc *catalog.Schedule) (*due, error) {
	list, err := o.next(ctx, doc, o.now, time.Time{}, maxPreview)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	i := slices.IndexFunc(list, func(f domain.Forecast) bool { return f.Outcome == events.TickFired })
	d := dueOf(list[max(i, 0)])
	return &d, nil
}

// members are the endpoints of a target that are known, by id, and whether they are alive.
func (o *outlook) members(ctx context.Context, t catalog.Target) ([]domain.Member, error) {
	ids, err := o.Reader.AudienceMembers(ctx, readmodel.Audience{All: t.All, Groups: t.Groups, PCs: t.PCs})
	if err == nil && o.heard == nil {
		o.heard, _, err = o.Reader.Agents(ctx, readmodel.AgentFilter{ByID: true, Page: readmodel.Page{Limit: readmodel.All}})
	}
	if err != nil {
		return nil, err
	}
	members, at := make([]domain.Member, len(ids)), 0
	for i, id := range ids {
		for at < len(o.heard) && o.heard[at].PCID < id {
			at++
		}
		members[i] = domain.Member{PCID: id, Alive: at < len(o.heard) && o.heard[at].PCID == id && isAlive(&o.heard[at], o.now)}
	}
	return members, nil
}

// memory is what a schedule remembers of its endpoints, open runs in it, and the states of those.
func (s *server) memory(ctx context.Context, scheduleID string) (domain.Memory, map[string]events.TargetState, error) {
	rows, err := s.Reader.Progress(ctx, scheduleID)
	if err != nil {
		return nil, nil, err
	}
	runs, err := s.Reader.OpenRuns(ctx, scheduleID)
	if err != nil {
		return nil, nil, err
	}
	memory, open := make(domain.Memory, len(rows)), make(map[string]events.TargetState, len(runs))
	for _, p := range rows {
		memory[p.PCID] = p.Of("")
	}
	for _, run := range runs {
		for _, id := range []string{run.PCID, ""} { // the whole target has one while any endpoint has
			p := memory[id]
			p.PCID, p.ExecID = id, run.ExecID
			memory[id] = p
		}
		open[run.PCID] = run.State
	}
	return memory, open, nil
}

// jobVersion is the present version of a job; empty where there is none.
func (s *server) jobVersion(ctx context.Context, id string) (string, error) {
	j, err := s.Reader.Job(ctx, id)
	if errors.Is(err, readmodel.ErrNotFound) {
		return "", nil
	}
	return j.Version, err
}

// upcoming is a forecast in a list of several schedules.
type upcoming struct {
	ScheduleID string `json:"schedule_id"`
	JobID      string `json:"job_id"`
	due
}

// listUpcoming answers what comes next of all enabled schedules that the backend fires, in the order of time.
func (s *server) listUpcoming(w http.ResponseWriter, r *http.Request, _ string) error {
	q := queryOf(r)
	days, limit := min(q.number("days", defaultDays), maxDays), min(q.number("limit", defaultUpcoming), maxPreview)
	if q.err != nil {
		return q.err
	}
	rows, _, err := s.Reader.Schedules(r.Context(), readmodel.Page{Limit: readmodel.All})
	if err != nil {
		return err
	}
	o, err := s.outlook(r.Context())
	if err != nil {
		return err
	}
	until := o.now.AddDate(0, 0, days)
	answer := []upcoming{}
	for i := range rows {
		doc, err := catalog.ParseScheduleDocument([]byte(rows[i].Document))
		if err != nil || !doc.Enabled || doc.RunsOn == catalog.Agent {
			continue
		}
		list, err := o.next(r.Context(), doc, o.now, until, limit)
		if err != nil {
			return err
		}
		for _, f := range list {
			if !f.At.IsZero() && !f.At.After(until) {
				answer = append(answer, upcoming{doc.ID, doc.JobID, dueOf(f)})
			}
		}
	}
	slices.SortStableFunc(answer, func(a, b upcoming) int {
		return cmp.Or(time.Time(a.At).Compare(time.Time(b.At)), strings.Compare(a.ScheduleID, b.ScheduleID))
	})
	return writeJSON(w, answer[:min(len(answer), limit)])
}

// simulation is what a document would fire in a span.
type simulation struct {
	ScheduleID string  `json:"schedule_id"`
	From       instant `json:"from"`
	To         instant `json:"to"`
	Fired      int     `json:"fired"`
	Skipped    int     `json:"skipped"`
	// More: there are nominal times behind the last one that is listed, and nothing is said of them.
	More  bool     `json:"more"`
	Ticks []due    `json:"ticks"`
	Notes []string `json:"notes"`
	// Stored is the difference to the schedule of that id as it is stored; null where there is none. With More it is that of
	// the part that is listed.
	Stored *difference `json:"stored"`
}

// difference lists nominal times that fire by the document only, and by the stored one only.
type difference struct {
	Added   []instant `json:"added"`
	Removed []instant `json:"removed"`
}

// simulateDocument answers for the document in the body.
func (s *server) simulateDocument(w http.ResponseWriter, r *http.Request, _ string) error {
	doc, err := s.simulated(w, r)
	if err != nil {
		return err
	}
	row, err := s.Reader.Schedule(r.Context(), doc.ID)
	if errors.Is(err, readmodel.ErrNotFound) {
		return s.simulate(w, r, doc, nil)
	}
	if err != nil {
		return err
	}
	stored, err := catalog.ParseScheduleDocument([]byte(row.Document))
	if err != nil {
		return err
	}
	return s.simulate(w, r, doc, stored)
}

// simulateSchedule answers for the stored schedule, or for the document in the body in its place.
func (s *server) simulateSchedule(w http.ResponseWriter, r *http.Request, _ string) error {
	stored, err := s.scheduleDocument(r)
	if err != nil {
		return err
	}
	if r.ContentLength == 0 {
		return s.simulate(w, r, stored, stored)
	}
	doc, err := s.simulated(w, r)
	if err != nil {
		return err
	}
	if doc.ID != stored.ID {
		return domain.RefuseField(domain.Invalid, "id", "the document is of schedule '%s', the path of '%s'", doc.ID, stored.ID)
	}
	return s.simulate(w, r, doc, stored)
}

// simulated reads the document of the body.
func (s *server) simulated(w http.ResponseWriter, r *http.Request) (*catalog.Schedule, error) {
	body, err := readBody(w, r)
	if err != nil {
		return nil, err
	}
	doc, err := catalog.ParseSchedule(body, documentType(r))
	if err == nil {
		err = doc.Unsupported()
	}
	if err != nil {
		return nil, domain.RefuseDocument(err)
	}
	return doc, nil
}

func (s *server) simulate(w http.ResponseWriter, r *http.Request, doc, stored *catalog.Schedule) error {
	q := queryOf(r)
	q.only("from", "to", "limit")
	from, to, limit := q.time("from"), q.time("to"), min(q.number("limit", defaultSimulate), maxSimulate)
	if q.err != nil {
		return q.err
	}
	if from.IsZero() {
		from = s.now(r.Context())
	}
	if to.IsZero() {
		to = from.AddDate(0, 0, defaultDays)
	}
	if !from.Before(to) {
		return fail(http.StatusBadRequest, "to: must be later than from")
	}
	in, err := s.installation(r.Context())
	if err != nil {
		return err
	}
	list, more := domain.Forecasts(doc, in, from, to, limit)
	answer := simulation{
		ScheduleID: doc.ID, From: instant(from), To: instant(to), More: more, Ticks: duesOf(list), Notes: some(domain.Reservations(doc, in)),
	}
	if doc.Cadence() != nil {
		answer.Notes = append(answer.Notes, "it counts from what each endpoint does: there are no nominal times to simulate")
	}
	for _, f := range list {
		if f.Outcome == events.TickFired {
			answer.Fired++
		} else {
			answer.Skipped++
		}
	}
	if stored != nil {
		if more {
			to = from // of what is not listed nothing is said
		}
		if more && len(list) > 0 {
			to = list[len(list)-1].At
		}
		was, _ := domain.Forecasts(stored, in, from, to, maxSimulate)
		d := domain.Differ(list, was)
		answer.Stored = &difference{instants(d.Added), instants(d.Removed)}
	}
	return writeJSON(w, answer)
}

func instants(list []time.Time) []instant {
	answer := make([]instant, len(list))
	for i, t := range list {
		answer[i] = instant(t)
	}
	return answer
}
