package rest

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/api/internal/domain"
	"kanade/services/api/internal/journal"
)

// runScheduleNow makes an exec of a schedule's job with its plan, for the operator who asks. Neither gates nor freeze hold
// it back.
func (s *server) runScheduleNow(w http.ResponseWriter, r *http.Request, route string) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	var sent struct {
		PCs    []string `json:"pcs"`
		Reason string   `json:"reason"`
	}
	body, err := readOptional(w, r, &sent)
	if err == nil {
		err = checkReason(sent.Reason)
	}
	if err != nil {
		return err
	}
	for i, pc := range sent.PCs {
		if err := domain.CheckID(fmt.Sprintf("pcs[%d]", i), pc); err != nil {
			return err
		}
	}
	c, err := caller(r, route, body)
	if err != nil {
		return err
	}
	least, err := minSequence(r)
	if err != nil {
		return err
	}
	admit := s.admitting(least)
	e, seq, err := s.journal.RunSchedule(r.Context(), c, id, sent.PCs, sent.Reason, func(ctx context.Context, e events.ExecRequested, at time.Time) (*int, error) {
		if err := s.checkNarrowed(ctx, id, sent.PCs); err != nil {
			return nil, err
		}
		return admit(ctx, e, at)
	})
	if err != nil {
		return err
	}
	return answerStored(w, e, seq)
}

// admitting is admit for the plan that the request holds.
func (s *server) admitting(least uint64) journal.Admit {
	return func(ctx context.Context, e events.ExecRequested, at time.Time) (*int, error) {
		plan, err := catalog.ParsePlanDocument(e.Plan)
		if err != nil {
			return nil, err
		}
		return s.admit(ctx, e, plan, at, least)
	}
}

// checkNarrowed asks the read model, as of what the log has, whether endpoints are of the schedule's target.
func (s *server) checkNarrowed(ctx context.Context, scheduleID string, pcs []string) error {
	if len(pcs) == 0 {
		return nil
	}
	doc, err := s.journal.ScheduleDocument(ctx, scheduleID)
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, minSequenceWait)
	defer cancel()
	if err := s.caughtUp(waiting); err != nil {
		return err
	}
	members, err := s.Reader.AudienceMembers(ctx, audienceOf(doc))
	if err != nil {
		return err
	}
	return domain.CheckNarrowed(pcs, members)
}

// backfilled is what became of one nominal time.
type backfilled struct {
	Nominal instant `json:"nominal"`
	// Outcome is requested (would be, in a dry run), known: there is an exec of it already, or held, with the reason.
	Outcome  string `json:"outcome"`
	Reason   string `json:"reason,omitempty"`
	ExecID   string `json:"exec_id,omitempty"`
	Sequence uint64 `json:"sequence,omitempty"`
}

// backfill is the answer to a backfill.
type backfill struct {
	ScheduleID string       `json:"schedule_id"`
	DryRun     bool         `json:"dry_run"`
	Requested  int          `json:"requested"`
	Known      int          `json:"known"`
	Held       int          `json:"held"`
	Ticks      []backfilled `json:"ticks"`
}

// backfillSchedule makes an exec of every nominal tick of a span that has none, oldest first, all of them at once: overlap
// is not looked at. Whoever repeats it makes none twice.
func (s *server) backfillSchedule(w http.ResponseWriter, r *http.Request, route string) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	body, err := readJSONBody(w, r)
	if err != nil {
		return err
	}
	var sent struct {
		From        time.Time `json:"from"`
		To          time.Time `json:"to"`
		DryRun      bool      `json:"dry_run"`
		IgnoreGates bool      `json:"ignore_gates"`
		Reason      string    `json:"reason"`
	}
	if err := decodeJSON(body, &sent); err != nil {
		return err
	}
	if err := checkReason(sent.Reason); err != nil {
		return err
	}
	c, err := caller(r, route, body)
	if err != nil {
		return err
	}
	doc, rows, err := s.backfills(r.Context(), id, sent.From, sent.To, sent.IgnoreGates)
	if err != nil {
		return err
	}
	answer := backfill{ScheduleID: id, DryRun: sent.DryRun, Ticks: make([]backfilled, len(rows))}
	var last uint64
	for i, b := range rows {
		t := backfilled{Nominal: instant(b.Nominal), Outcome: "requested", ExecID: b.ExecID}
		switch {
		case b.Known:
			t.Outcome = "known"
			answer.Known++
		case b.Held != "":
			t.Outcome, t.Reason, t.ExecID = "held", b.Held, ""
			answer.Held++
		default:
			answer.Requested++
		}
		if b.Asks() && !sent.DryRun {
			if _, t.Sequence, err = s.journal.BackfillTick(r.Context(), c, doc, b.Nominal, sent.Reason, s.admitting(0)); err != nil {
				return err
			}
			last = max(last, t.Sequence)
		}
		answer.Ticks[i] = t
	}
	written(w, last)
	return writeJSON(w, answer)
}

// backfills lists the nominal ticks of a span, and which of them are to be made up for.
func (s *server) backfills(ctx context.Context, id string, from, to time.Time, ignoreGates bool) (*catalog.Schedule, []domain.Backfilled, error) {
	doc, err := s.journal.ScheduleDocument(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	now, err := s.journal.Now(ctx)
	if err != nil {
		return nil, nil, err
	}
	if err := domain.CheckBackfill(doc, from, to, now); err != nil {
		return nil, nil, err
	}
	waiting, cancel := context.WithTimeout(ctx, minSequenceWait)
	defer cancel()
	if err := s.caughtUp(waiting); err != nil { // which ticks have fired is in it
		return nil, nil, err
	}
	in, err := s.installation(ctx)
	if err != nil {
		return nil, nil, err
	}
	asked := *doc
	asked.Enabled = true
	list, more := domain.Forecasts(&asked, in, from, to, maxSimulate)
	if more {
		return nil, nil, domain.Refuse(domain.Unprocessable, "there are more than %d nominal times in that span: take a shorter one", maxSimulate)
	}
	ids := make([]string, len(list))
	for i, f := range list {
		ids[i] = events.FireID(id, f.At)
	}
	found, err := s.Reader.KnownExecs(ctx, ids)
	if err != nil {
		return nil, nil, err
	}
	known := make(map[string]bool, len(found))
	for _, id := range found {
		known[id] = true
	}
	rows, err := domain.Backfill(doc, list, known, ignoreGates)
	return doc, rows, err
}
