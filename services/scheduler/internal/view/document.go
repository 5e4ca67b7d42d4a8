package view

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"kanade/libs/bus"
	"kanade/libs/catalog"
	"kanade/libs/events"
)

// Jobs and schedules stand in the bucket catalog as they are stored, for our agents, and in the buckets jobs and schedules
// for those of 0.43.45, where they can read them: what they can't read is not there.

func documentFilters() []string {
	var filters []string
	for _, a := range []events.Aggregate{events.AggregateJob, events.AggregateSchedule} {
		filters = append(filters, events.FactFilter(a, "saved"), events.FactFilter(a, "deleted"))
	}
	return filters
}

// shownDocument is a document as the buckets show it; nil values are no keys.
type shownDocument struct {
	bucket, id string
	whole, old []byte
}

func documentOf(p events.Payload) (d shownDocument, ok bool, err error) {
	switch p := p.(type) {
	case events.JobSaved:
		d = shownDocument{bucket: events.BucketJobs, id: p.ID, whole: p.DocumentRevision.Document}
		m, err := catalog.ParseManifestDocument(d.whole)
		if err == nil && m.OldReadable() {
			d.old = d.whole
		}
		return d, true, err
	case events.ScheduleSaved:
		d = shownDocument{bucket: events.BucketSchedules, id: p.ID, whole: p.DocumentRevision.Document}
		s, err := catalog.ParseScheduleDocument(d.whole)
		if err == nil && s.OldReadable() {
			d.old = d.whole
		}
		return d, true, err
	case events.JobDeleted:
		return shownDocument{bucket: events.BucketJobs, id: p.ID}, true, nil
	case events.ScheduleDeleted:
		return shownDocument{bucket: events.BucketSchedules, id: p.ID}, true, nil
	}
	return shownDocument{}, false, nil
}

// showDocument is the handler that writes a job or a schedule, or deletes it.
func showDocument(b *bus.Bus, logger *slog.Logger) bus.Handler {
	return func(ctx context.Context, m bus.Stored) error {
		p, err := m.Payload()
		if err != nil {
			return bus.Permanent(err)
		}
		d, ok, err := documentOf(p)
		if err != nil {
			return bus.Permanent(fmt.Errorf("show %s: %w", m.Subject, err))
		}
		if !ok {
			return nil
		}
		for _, x := range []struct {
			bucket, key string
			value       []byte
		}{
			{events.BucketCatalog, d.bucket + "." + d.id, d.whole}, {d.bucket, d.id, d.old},
		} {
			err := b.PutView(ctx, x.bucket, x.key, x.value, m.Seq)
			if errors.Is(err, bus.ErrForeign) {
				logger.Warn("a document that somebody else wrote stands in the way; it is left alone", "bucket", x.bucket, "key", x.key, "sequence", m.Seq)
			} else if err != nil {
				return err
			}
		}
		return nil
	}
}
