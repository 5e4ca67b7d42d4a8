package journal

import (
	"context"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/services/api/internal/domain"
)

// Letters is a page of DEAD, as bus.Letters gives it.
func (j *Journal) Letters(ctx context.Context, handler string, before uint64, limit int) (page []bus.Letter, next uint64, err error) {
	ctx, cancel, err := j.begin(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer cancel()
	return j.bus.Letters(ctx, handler, before, limit)
}

// Letter is one letter of DEAD. A body that is omitted there is that of its own place, while that holds it.
func (j *Journal) Letter(ctx context.Context, seq uint64) (bus.Letter, error) {
	ctx, cancel, err := j.begin(ctx)
	if err != nil {
		return bus.Letter{}, err
	}
	defer cancel()
	return j.letter(ctx, seq)
}

func (j *Journal) letter(ctx context.Context, seq uint64) (bus.Letter, error) {
	l, ok, err := j.bus.Letter(ctx, seq)
	if err != nil {
		return bus.Letter{}, err
	}
	if !ok {
		return bus.Letter{}, domain.Refuse(domain.NotFound, "dead letter %d not found", seq)
	}
	if !l.Omitted || l.Message.Stream != events.StreamLog {
		return l, nil
	}
	m, ok, err := j.bus.Get(ctx, events.StreamLog, l.Message.Seq)
	if err != nil {
		return bus.Letter{}, err
	}
	if ok && m.Subject == l.Message.Subject {
		l.Message.Data, l.Size, l.Omitted = m.Data, len(m.Data), false
	}
	return l, nil
}

// DeadOf is what a retry of a letter is decided by.
func DeadOf(l *bus.Letter) domain.Dead {
	return domain.Dead{Seq: l.Seq, Stream: l.Message.Stream, Subject: l.Message.Subject}
}

// RetryLetter appends the message of a letter anew at the end of the log, once, and returns the sequence of that; again
// says that it had been retried before.
func (j *Journal) RetryLetter(ctx context.Context, c Caller, seq uint64) (appended uint64, again bool, err error) {
	ctx, cancel, err := j.begin(ctx)
	if err != nil {
		return 0, false, err
	}
	defer cancel()
	l, err := j.letter(ctx, seq)
	if err != nil {
		return 0, false, err
	}
	if err := DeadOf(&l).Retry(); err != nil {
		return 0, false, err
	}
	if l.Omitted {
		return 0, false, domain.DeadBodyGone(seq)
	}
	return j.bus.RetryLetter(ctx, l, string(c.Actor))
}
