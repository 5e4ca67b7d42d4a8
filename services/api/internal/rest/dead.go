package rest

import (
	"context"
	"encoding/base64"
	"net/http"
	"strconv"
	"unicode/utf8"

	"kanade/libs/bus"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
	"kanade/services/api/internal/journal"
)

// letter is a message of DEAD as answered: sequence is its place there, stream and stream_sequence that of the message.
type letter struct {
	Sequence       uint64  `json:"sequence"`
	ParkedAt       instant `json:"parked_at"`
	Handler        string  `json:"handler"`
	Reason         string  `json:"reason"`
	Stream         string  `json:"stream"`
	StreamSequence uint64  `json:"stream_sequence"`
	Subject        string  `json:"subject"`
	// Size of the body in bytes; null where it was too large to be kept with the letter.
	Size      *int    `json:"size"`
	RetriedAt instant `json:"retried_at"`
	RetriedBy *string `json:"retried_by"`
	// RetryRefused is why a retry is refused; null where it is not.
	RetryRefused *string `json:"retry_refused"`
}

func letterOf(l *bus.Letter) letter {
	answer := letter{
		Sequence: l.Seq, ParkedAt: instant(l.ParkedAt), Handler: l.Handler, Reason: l.Reason,
		Stream: l.Message.Stream, StreamSequence: l.Message.Seq, Subject: l.Message.Subject,
	}
	if !l.Omitted {
		answer.Size = &l.Size
	}
	if l.Retried != nil {
		answer.RetriedAt, answer.RetriedBy = instant(l.Retried.At), &l.Retried.Actor
	}
	if err := journal.DeadOf(l).Retry(); err != nil {
		answer.RetryRefused = known(err.Error())
	}
	return answer
}

// listDead answers newest first. A page may be short, or empty, and have a next one: it looks at some thousand letters at
// most, whosever they are.
func (s *server) listDead(w http.ResponseWriter, r *http.Request, _ string) error {
	q := queryOf(r)
	handler, l := q.text("handler"), q.list(r, defaultLimit)
	before, given := q.sequence("cursor")
	if given && before == 0 {
		q.refuse("cursor", "expected a sequence number from 1 on")
	}
	if q.err != nil {
		return q.err
	}
	return writeList(w, r, l, sheetOf[letter]("dead"), func(ctx context.Context, p readmodel.Page) ([]letter, string, error) {
		page, last, err := s.journal.Letters(ctx, handler, before, min(p.Limit, bus.MaxLetters))
		before = last
		next := ""
		if last > 0 && p.Limit > 0 {
			next = strconv.FormatUint(last, 10)
		}
		return rowsOf(page, next, err, letterOf)
	})
}

func (s *server) getDead(w http.ResponseWriter, r *http.Request, _ string) error {
	seq, err := pathSequence(r, "seq")
	if err != nil {
		return err
	}
	l, err := s.journal.Letter(r.Context(), seq)
	if err != nil {
		return err
	}
	answer := struct {
		letter
		// Headers of the message, but for those that the broker reads.
		Headers map[string]string `json:"headers"`
		// Body is null where it was too large to be kept, and its stream has it no more. Encoding is text or base64.
		Body     *string `json:"body"`
		Encoding *string `json:"encoding"`
	}{letter: letterOf(&l), Headers: map[string]string{}}
	for name, values := range l.Message.Header {
		if len(values) > 0 {
			answer.Headers[name] = values[0]
		}
	}
	if !l.Omitted {
		body, encoding := string(l.Message.Data), "text"
		if !utf8.ValidString(body) {
			body, encoding = base64.StdEncoding.EncodeToString(l.Message.Data), "base64"
		}
		answer.Body, answer.Encoding = &body, &encoding
	}
	return writeJSON(w, answer)
}

func (s *server) retryDead(w http.ResponseWriter, r *http.Request, route string) error {
	seq, err := pathSequence(r, "seq")
	if err != nil {
		return err
	}
	body, err := readOptional(w, r, &struct{}{})
	if err != nil {
		return err
	}
	c, err := caller(r, route, body)
	if err != nil {
		return err
	}
	appended, again, err := s.journal.RetryLetter(r.Context(), c, seq)
	if err != nil {
		return err
	}
	written(w, appended)
	return writeJSON(w, struct {
		DeadSequence uint64 `json:"dead_sequence"`
		// Sequence is where in LOG the message is now.
		Sequence uint64 `json:"sequence"`
		// Again: it had been retried before, and was not appended a second time.
		Again bool `json:"again"`
	}{seq, appended, again})
}

// pathSequence is a segment of the path that is a sequence number.
func pathSequence(r *http.Request, name string) (uint64, error) {
	v, err := pathValue(r, name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil {
		return 0, domain.RefuseField(domain.Invalid, name, "expected a sequence number, got %q", v)
	}
	return n, nil
}
