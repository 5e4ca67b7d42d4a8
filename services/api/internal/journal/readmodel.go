package journal

import (
	"context"
	"strconv"
	"time"

	"kanade/libs/bus"
	"kanade/libs/events"
)

// CheckReadModel asks every projector to hold its copy against the log, and to build it anew where rebuild is set.
func (j *Journal) CheckReadModel(ctx context.Context, c Caller, rebuild bool, reason string) (uint64, error) {
	s := subject{aggregate: events.AggregateConfig, id: events.ReadModelID, fact: factCheckRequested, unchecked: true}
	return j.write(ctx, c, s, func(context.Context) (decision, error) {
		return decision{fact: events.ReadModelCheckRequested{ID: events.ReadModelID, Rebuild: rebuild, Reason: reason}}, nil
	})
}

// askPastAgain is how long a request for a past moment stands: within it nothing more is written. A projector builds what
// was asked for up to five minutes ago.
const askPastAgain = time.Minute

// AskPast asks the projectors for a model of the log up to a sequence. Requests for the same one are one fact, whoever
// makes them, unless others came between them at the turn of a minute; then there is one more, and still one file.
func (j *Journal) AskPast(ctx context.Context, actor events.Actor, sequence uint64) error {
	ctx, cancel, err := j.begin(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	now, err := j.bus.Now(ctx)
	if err != nil {
		return err
	}
	last, ok, err := j.bus.Last(ctx, events.StreamLog, events.FactSubject(events.AggregateConfig, events.ReadModelID, factPastRequested))
	if err != nil {
		return err
	}
	if ok && now.Sub(last.StoredAt) < askPastAgain {
		if p, err := last.Payload(); err == nil && p == events.Payload(events.ReadModelPastRequested{ID: events.ReadModelID, Sequence: sequence}) {
			return nil
		}
	}
	id := events.DeriveID(events.ReadModelID, factPastRequested, strconv.FormatUint(sequence, 10), now.Truncate(askPastAgain).UTC().Format(time.RFC3339))
	e, err := events.New(events.ReadModelPastRequested{ID: events.ReadModelID, Sequence: sequence},
		events.Meta{ID: id, Source: source, Time: now, Actor: actor})
	if err == nil {
		_, err = j.append(ctx, e, bus.Any)
	}
	return err
}
