package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// paramAsOf asks for the past: a LOG sequence, or a time, which means the last fact that the broker had stored then.
const paramAsOf = "as_of"

// A model of the past that is not there is waited for so long, and looked for so often.
const (
	pastWait = 10 * time.Second
	pastPoll = 20 * time.Millisecond
)

// moment is where in the log a request looks; sequence 0 is the present. at is the time that was asked for, or that of the
// sequence's fact, by the broker's clock: what "now" means in an answer.
type moment struct {
	sequence uint64
	at       time.Time
}

// asOf reads the parameter; false without one.
func asOf(r *http.Request) (string, bool) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", false // whoever reads the other parameters says so
	}
	all, given := values[paramAsOf]
	return strings.Join(all, ", "), given // given twice, it is neither a number nor a time
}

// presentOnly is for what knows no past: as_of is refused before anything else.
func presentOnly(r *http.Request) error {
	if _, given := asOf(r); given {
		return fail(http.StatusBadRequest, paramAsOf+": only what is read from the read model can be asked as of a past moment; this is not")
	}
	return nil
}

// present makes a handler refuse as_of, where it would be taken for another answer.
func present(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request, route string) error {
		if err := presentOnly(r); err != nil {
			return err
		}
		return h(w, r, route)
	}
}

// readPast answers with the same handler from the model of a past moment.
func (s *server) readPast(w http.ResponseWriter, r *http.Request, route, text string, h reader) error {
	least, err := minSequence(r)
	if err != nil {
		return err
	}
	m, present, err := s.moment(r.Context(), text)
	if err != nil {
		return err
	}
	if least > m.sequence {
		return fail(http.StatusBadRequest, fmt.Sprintf("%s: what is as of sequence %d has not seen %s %d", paramAsOf, m.sequence, headerMin, least))
	}
	model, at, err := s.past(r, m.sequence, present)
	if err != nil {
		return err
	}
	defer func() {
		if err := model.Close(); err != nil {
			s.Logger.Warn("close the read model of a past moment", "sequence", m.sequence, "error", err)
		}
	}()
	if m.at.IsZero() {
		m.at = at
	}
	announceApplied(w, m.sequence, at)
	then := *s
	then.Reader, then.then = model, m
	return h(&then, w, pinned(r, m.sequence), route)
}

// pinned is a request as of a sequence, whatever it named: a link to the next page leads to the same moment.
func pinned(r *http.Request, sequence uint64) *http.Request {
	u := *r.URL
	values := u.Query()
	values.Set(paramAsOf, strconv.FormatUint(sequence, 10))
	u.RawQuery = values.Encode()
	r = r.WithContext(r.Context())
	r.URL = &u
	return r
}

// momentTimeout bounds finding a moment in the log.
const momentTimeout = 5 * time.Second

// moment finds what a request asks for, and the log's last message. What the log does not hold any more, or not yet, is
// refused.
func (s *server) moment(ctx context.Context, text string) (m moment, present bus.RawMsg, err error) {
	if !s.Bus.Connected() {
		return m, present, fmt.Errorf("look for %s in the log: %w", text, bus.ErrUnavailable)
	}
	ctx, cancel := context.WithTimeout(ctx, momentTimeout)
	defer cancel()
	present, ok, err := s.Bus.LastRaw(ctx, events.StreamLog, ">")
	if err != nil {
		return m, present, err
	}
	if !ok {
		return m, present, fail(http.StatusBadRequest, paramAsOf+": the log is empty: there is no past yet")
	}
	m.sequence, err = strconv.ParseUint(text, 10, 64)
	if err == nil {
		ok, err = s.holds(ctx, m.sequence, present)
	} else if m.at, ok = parseMoment(text); ok {
		m.sequence, ok, err = s.sequenceAt(ctx, m.at, present)
	} else {
		err = nil
	}
	if err == nil && !ok {
		err = s.refuseMoment(ctx, text, present)
	}
	return m, present, err
}

// holds reports whether the log tells what was true as of a sequence: all that is shown of that moment is in it.
func (s *server) holds(ctx context.Context, sequence uint64, present bus.RawMsg) (bool, error) {
	if sequence == 0 || sequence >= present.Seq {
		return sequence == present.Seq, nil
	}
	first, ok, err := s.Bus.Next(ctx, events.StreamLog, 1)
	if err != nil || !ok || sequence < first.Seq {
		return false, err
	}
	next, ok, err := s.Bus.Next(ctx, events.StreamLog, sequence+1) // until this one the moment lasts
	return ok && next.Time.After(s.horizon(present)), err
}

// sequenceAt is the last fact at a time; false if the log does not tell.
func (s *server) sequenceAt(ctx context.Context, at time.Time, present bus.RawMsg) (uint64, bool, error) {
	now, err := s.Bus.Now(ctx)
	if err != nil || at.Before(s.horizon(present)) || at.After(now) {
		return 0, false, err
	}
	return s.Bus.LastAt(ctx, events.StreamLog, at)
}

// horizon is the log's time before which run facts are not shown.
func (s *server) horizon(present bus.RawMsg) time.Time { return present.Time.Add(-s.History) }

// refuseMoment says what may be asked for.
func (s *server) refuseMoment(ctx context.Context, text string, present bus.RawMsg) error {
	first, ok, err := s.Bus.Next(ctx, events.StreamLog, 1)
	if err != nil || !ok {
		return err
	}
	from, since := first.Seq, first.Time
	if horizon := s.horizon(present); horizon.After(since) {
		since = horizon
		seq, ok, err := s.Bus.LastAt(ctx, events.StreamLog, horizon)
		if err != nil {
			return err
		}
		if ok {
			from = seq
		}
	}
	return fail(http.StatusBadRequest, fmt.Sprintf(
		"%s: expected a sequence of the log from %d to %d, or a time from %s until now, like 2026-01-31 or 2026-01-31T08:00:00Z (without a zone it is UTC), got %q",
		paramAsOf, from, present.Seq, instant(since).text(), text))
}

// parseMoment reads RFC 3339, or a date, which is its first moment; either without a zone is UTC.
func parseMoment(text string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", time.DateOnly, "2006-01-02Z07:00"} {
		if t, err := time.Parse(layout, strings.Replace(text, " ", "T", 1)); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}

// past opens the model of a sequence. One that is not there is asked for, and waited for; then it says when its last fact
// was stored.
func (s *server) past(r *http.Request, sequence uint64, present bus.RawMsg) (*readmodel.Reader, time.Time, error) {
	ctx, cancel := context.WithTimeout(r.Context(), pastWait)
	defer cancel()
	for asked := false; ; asked = true {
		model, at, err := s.openPast(ctx, sequence, present.Time.Add(-readmodel.PastKept))
		if err == nil || ctx.Err() == nil && !errors.Is(err, readmodel.ErrNotFound) {
			return model, at, err
		}
		if !asked {
			if err := s.journal.AskPast(r.Context(), actorOf(r.Context()), sequence); err != nil {
				return nil, time.Time{}, err
			}
		}
		select {
		case <-time.After(pastPoll):
			continue
		case <-ctx.Done():
		}
		if err := r.Context().Err(); err != nil {
			return nil, time.Time{}, err
		}
		return nil, time.Time{}, fail(http.StatusServiceUnavailable, fmt.Sprintf(
			"the read model as of sequence %d is not built yet: a projector of this API's directory builds it, which takes as long as replaying the log from the snapshot before. Repeat the request", sequence))
	}
}

// openPast opens a model that was built since a time of the log, of the log that is there.
func (s *server) openPast(ctx context.Context, sequence uint64, since time.Time) (*readmodel.Reader, time.Time, error) {
	model, err := s.Reader.Past(ctx, sequence, since)
	if err != nil {
		return nil, time.Time{}, err
	}
	applied, at, err := model.Applied(ctx)
	if err == nil {
		var same bool
		if same, err = s.Bus.StoredAt(ctx, events.StreamLog, applied, at); err == nil && !same {
			err = fmt.Errorf("the model of %d is of another log: %w", sequence, readmodel.ErrNotFound)
		}
	}
	if err != nil {
		return nil, time.Time{}, errors.Join(err, model.Close())
	}
	return model, at, nil
}
