package rest

import (
	"context"
	"errors"
	"net/http"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
)

// maxFailing is how many failing endpoints a status names; maxLooked how many execs are looked through for the last that
// succeeded, and listed as open.
const (
	maxFailing = 20
	maxLooked  = 100
)

// tick is how a nominal tick ended, as answered.
type tick struct {
	Nominal  instant            `json:"nominal"`
	To       instant            `json:"to"`
	Count    int                `json:"count"`
	Outcome  events.TickOutcome `json:"outcome"`
	Reason   string             `json:"reason,omitempty"`
	ExecID   string             `json:"exec_id,omitempty"`
	At       instant            `json:"at"`
	Sequence uint64             `json:"sequence"`
}

func tickOf(t *readmodel.Tick) tick {
	return tick{instant(t.From), instant(t.To), t.Count, t.Outcome, t.Reason, t.ExecID, instant(t.At), t.Sequence}
}

// openExec is an exec of a schedule of which something has not ended.
type openExec struct {
	ExecID string `json:"exec_id"`
	// Nominal is null for one that an operator asked for.
	Nominal     instant          `json:"nominal"`
	InitiatedAt instant          `json:"initiated_at"`
	Actor       events.Actor     `json:"actor"`
	Status      readmodel.Status `json:"status"`
	Totals      totals           `json:"totals"`
}

// failing is an endpoint whose last runs by a schedule failed; an empty id: its whole target.
type failing struct {
	PCID      string  `json:"pc_id"`
	Failures  int     `json:"failures"`
	NotBefore instant `json:"not_before"`
	Fired     instant `json:"fired"`
	Succeeded instant `json:"succeeded"`
}

// scheduleStatus is what a schedule is doing.
type scheduleStatus struct {
	ID      string         `json:"id"`
	JobID   string         `json:"job_id"`
	When    string         `json:"when"`
	Zone    string         `json:"zone"`
	RunsOn  catalog.RunsOn `json:"runs_on"`
	Enabled bool           `json:"enabled"`
	// HeldBy is the gate that is closed now; empty: none.
	HeldBy string `json:"held_by,omitempty"`
	// Overdue is a nominal time of which nobody has decided what becomes of it: no scheduler is there; null: there is none.
	Overdue   instant `json:"overdue"`
	LastTick  *tick   `json:"last_tick"`
	LastFired *tick   `json:"last_fired"`
	// Next is the next that would fire, or where nothing soon would, the next at all.
	Next *due `json:"next"`
	// Open are execs that have not ended, the newest first, at most 100.
	Open []openExec `json:"open"`
	// FailingCount counts the endpoints that fail, Failing has those that failed most often in a row.
	FailingCount int       `json:"failing_count"`
	Failing      []failing `json:"failing"`
	// LastSuccess is the latest nominal time whose run succeeded: of any endpoint with a cadence, else of an exec all of whose
	// expected endpoints succeeded, or its request where it has none; null: not known.
	LastSuccess instant `json:"last_success"`
}

func (s *server) getScheduleStatus(w http.ResponseWriter, r *http.Request, _ string) error {
	ctx := r.Context()
	row, err := s.schedule(r)
	if err != nil {
		return err
	}
	doc, err := catalog.ParseScheduleDocument([]byte(row.Document))
	if err != nil {
		return err
	}
	o, err := s.outlook(ctx)
	if err != nil {
		return err
	}
	known := row.SavedAt
	answer := scheduleStatus{
		ID: doc.ID, JobID: doc.JobID, When: doc.WhenText(), Zone: doc.TZ, RunsOn: doc.RunsOn, Enabled: doc.Enabled,
		HeldBy: o.Held(doc, o.now), Open: []openExec{}, Failing: []failing{},
	}
	newest, _, err := s.Reader.Ticks(ctx, doc.ID, readmodel.Page{Limit: 1})
	if err != nil {
		return err
	}
	if len(newest) > 0 {
		t := tickOf(&newest[0])
		if answer.LastTick = &t; newest[0].To.After(known) {
			known = newest[0].To
		}
	}
	fired, err := s.Reader.LastFired(ctx, doc.ID)
	if err != nil && !errors.Is(err, readmodel.ErrNotFound) {
		return err
	}
	if err == nil {
		t := tickOf(&fired)
		answer.LastFired = &t
	}
	if answer.Next, err = o.nextFire(ctx, doc); err != nil {
		return err
	}
	if err := s.openExecs(r, doc.ID, &answer); err != nil {
		return err
	}
	complete, err := s.complete(ctx, o.now)
	if err != nil {
		return err
	}
	answer.Overdue = instant(domain.Overdue(doc, o.Installation, known, complete, len(answer.Open) > 0))
	if err := s.lately(r, doc, &answer); err != nil {
		return err
	}
	return writeJSON(w, answer)
}

// complete is up to when the read model has everything: now, or where it lags, or nobody can say, its last fact's time.
func (s *server) complete(ctx context.Context, now time.Time) (time.Time, error) {
	applied, at, err := s.Reader.Applied(ctx)
	if err != nil {
		return at, err
	}
	if last, err := s.logEnd(ctx); err != nil || *last > applied {
		return at, nil
	}
	return now, nil
}

func (s *server) openExecs(r *http.Request, id string, answer *scheduleStatus) error {
	live, err := s.Reader.ScheduleExecutions(r.Context(), id, true, maxLooked)
	if err != nil {
		return err
	}
	for i := range live {
		if e := &live[i]; e.ClosedAt.IsZero() || e.Totals.Open() > 0 || e.Totals.OthersOpen() > 0 {
			answer.Open = append(answer.Open, openExec{
				e.ExecID, instant(e.Nominal), instant(e.InitiatedAt), e.Actor, e.Status, totals{counted(e.Totals.Expected), counted(e.Totals.Others)},
			})
		}
	}
	return nil
}

// lately fills in what failed and what succeeded.
func (s *server) lately(r *http.Request, doc *catalog.Schedule, answer *scheduleStatus) error {
	rows, n, err := s.Reader.Failing(r.Context(), doc.ID, maxFailing)
	if err != nil {
		return err
	}
	answer.FailingCount = n
	for _, p := range rows {
		answer.Failing = append(answer.Failing, failing{p.PCID, p.Failures, instant(p.NotBefore), instant(p.Fired), instant(p.Succeeded)})
	}
	if doc.Cadence() != nil {
		at, err := s.Reader.Succeeded(r.Context(), doc.ID)
		answer.LastSuccess = instant(at)
		return err
	}
	execs, err := s.Reader.ScheduleExecutions(r.Context(), doc.ID, false, maxLooked)
	if err != nil {
		return err
	}
	var last time.Time // a backfill is asked for later than what is newer
	for i := range execs {
		if e := &execs[i]; e.Outcome == events.OutcomeSucceeded {
			at := e.Nominal
			if at.IsZero() {
				at = e.InitiatedAt
			}
			if at.After(last) {
				last = at
			}
		}
	}
	answer.LastSuccess = instant(last)
	return nil
}

// covered is an endpoint in a coverage.
type covered struct {
	PCID      string            `json:"pc_id"`
	State     domain.CoverState `json:"state"`
	Reason    string            `json:"reason,omitempty"`
	ExecID    string            `json:"exec_id,omitempty"`
	Fired     instant           `json:"fired"`
	Succeeded instant           `json:"succeeded"`
	Failures  int               `json:"failures,omitempty"`
	NotBefore instant           `json:"not_before"`
}

// coverage is what a schedule has come to on the endpoints that it targets now.
type coverage struct {
	ScheduleID string `json:"schedule_id"`
	// Basis is what it is judged by: memory, of a per_pc schedule; exec, that of the newest nominal time of any other, fired
	// or made up for; none before that; agent of one that agents run by themselves, of which nothing is known.
	Basis   string                    `json:"basis"`
	ExecID  string                    `json:"exec_id,omitempty"`
	Nominal instant                   `json:"nominal"`
	Total   int                       `json:"total"`
	Counts  map[domain.CoverState]int `json:"counts"`
	// Forgotten: what the endpoints did in that exec is older than the history.
	Forgotten bool `json:"forgotten,omitempty"`
	// PCs are those of the states that were asked for, by id; absent where neither state, limit nor cursor was given.
	PCs []covered `json:"pcs,omitempty"`
}

func (s *server) getCoverage(w http.ResponseWriter, r *http.Request, _ string) error {
	q := queryOf(r)
	_, listed := q.values["state"]
	for _, name := range []string{"limit", "cursor"} {
		listed = listed || q.values[name] != nil
	}
	words := []string{""}
	for _, state := range domain.CoverStates() {
		words = append(words, string(state))
	}
	state, page := q.word("state", words...), q.page(defaultLimit)
	q.word("format", string(formJSON)) // an object, of which a list is only a part
	if q.err != nil {
		return q.err
	}
	doc, err := s.scheduleDocument(r)
	if err != nil {
		return err
	}
	answer := coverage{ScheduleID: doc.ID, Basis: "none", Counts: map[domain.CoverState]int{}}
	all, err := s.cover(r, doc, &answer)
	if err != nil {
		return err
	}
	var rows []covered
	for _, c := range all {
		answer.Counts[c.State]++
		if state == "" || domain.CoverState(state) == c.State {
			rows = append(rows, coveredOf(c))
		}
	}
	if !listed {
		return writeJSON(w, answer)
	}
	rows, next, err := readmodel.ByEndpoint(rows, page, func(c *covered) string { return c.PCID })
	if err != nil {
		return err
	}
	if answer.PCs = rows; rows == nil {
		answer.PCs = []covered{}
	}
	linkNext(w, r, next)
	return writeJSON(w, answer)
}

func coveredOf(c domain.Covered) covered {
	at := func(t *time.Time) instant {
		if t == nil {
			return instant{}
		}
		return instant(*t)
	}
	p := c.Progress
	return covered{c.PCID, c.State, c.Reason, p.ExecID, at(p.Fired), at(p.Succeeded), p.Failures, at(p.NotBefore)}
}

// cover judges all endpoints of the schedule's target as the read model knows it, by id.
func (s *server) cover(r *http.Request, doc *catalog.Schedule, answer *coverage) ([]domain.Covered, error) {
	ctx := r.Context()
	t := audienceOf(doc)
	ids, err := s.Reader.AudienceMembers(ctx, t)
	if err != nil {
		return nil, err
	}
	answer.Total = len(ids)
	if doc.RunsOn == catalog.Agent {
		answer.Basis = "agent"
		return nil, nil
	}
	all := make([]domain.Covered, len(ids))
	if doc.When.PerPC != nil {
		answer.Basis = "memory"
		memory, open, err := s.memory(ctx, doc.ID)
		if err != nil {
			return nil, err
		}
		version, err := s.jobVersion(ctx, doc.JobID)
		if err != nil {
			return nil, err
		}
		now := s.now(ctx)
		for i, id := range ids {
			p := memory[id]
			p.PCID = id
			all[i] = domain.CoverCadence(doc, p, open[id], version, now)
		}
		return all, nil
	}
	states := map[string]events.Target{}
	fired, err := s.Reader.NewestFire(ctx, doc.ID)
	switch {
	case errors.Is(err, readmodel.ErrNotFound):
	case err != nil:
		return nil, err
	default:
		answer.Basis, answer.ExecID, answer.Nominal = "exec", fired.ExecID, instant(fired.Nominal)
		answer.Forgotten = fired.Forgotten
		rows, _, err := s.Reader.Targets(ctx, readmodel.TargetFilter{ExecID: fired.ExecID, Page: readmodel.Page{Limit: readmodel.All}})
		if err != nil {
			return nil, err
		}
		for i := range rows {
			states[rows[i].PCID] = rows[i].Target
		}
	}
	for i, id := range ids {
		all[i] = domain.CoverTarget(id, states[id])
		if all[i].State != domain.CoverNever {
			all[i].Progress.ExecID = fired.ExecID
		}
	}
	return all, nil
}

// audienceOf is whom a schedule targets: its target, or with a rollout whom its waves name.
func audienceOf(doc *catalog.Schedule) readmodel.Audience {
	a, exact := domain.AudienceOf(&doc.Plan)
	if !exact { // waves that take a share of the target
		a.All, a.Groups, a.PCs = a.All || doc.Target.All, append(a.Groups, doc.Target.Groups...), append(a.PCs, doc.Target.PCs...)
	}
	return readmodel.Audience{All: a.All, Groups: a.Groups, PCs: a.PCs}
}
