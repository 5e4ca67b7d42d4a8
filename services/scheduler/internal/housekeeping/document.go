package housekeeping

import (
	"context"
	"fmt"
	"strings"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/services/scheduler/internal/domain"
)

// documents takes out of the log what has been superseded, or deleted, for as long as the ledger.
func (r *run) documents(ctx context.Context) error {
	for _, kind := range domain.DocumentKinds() {
		if err := r.documentsOf(ctx, kind); err != nil {
			return fmt.Errorf("forget documents of %s: %w", kind.Aggregate, err)
		}
	}
	return nil
}

func (r *run) documentsOf(ctx context.Context, kind domain.DocumentKind) error {
	var old []domain.DocumentFact
	for i, fact := range kind.Facts() {
		err := r.bus.Walk(ctx, events.FactFilter(kind.Aggregate, fact), 0, func(m bus.RawMsg) (bool, error) {
			if !m.Time.Before(r.due.Ledger) {
				return false, nil
			}
			// A subject says enough, also of a fact that this version can't read.
			id, err := events.Unescape(strings.Split(m.Subject, ".")[2])
			if err != nil {
				return true, r.leave(m.Subject, &events.DecodeError{RawSubject: m.Subject, Err: err})
			}
			old = append(old, domain.DocumentFact{ID: id, Seq: m.Seq, Ends: i >= len(kind.States)})
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	outlived := domain.Superseded(old)
	var gone []uint64
	for _, f := range old {
		if f.Seq < outlived[f.ID].Before {
			gone = append(gone, f.Seq)
		}
	}
	if err := r.delete(ctx, kindDocument, gone...); err != nil {
		return err
	}
	for id, o := range outlived {
		if o.Ended {
			if err := r.deleteAll(ctx, kindDocument, events.AggregateFilter(kind.Aggregate, id), 0, o.Last, r.due.Ledger); err != nil {
				return err
			}
		}
	}
	return nil
}

// records takes out of the log what is on record about the read model and older than the ledger.
func (r *run) records(ctx context.Context) error {
	return r.bus.Walk(ctx, events.AggregateFilter(events.AggregateConfig, events.ReadModelID), 0, func(m bus.RawMsg) (bool, error) {
		if !m.Time.Before(r.due.Ledger) {
			return false, nil
		}
		return true, r.delete(ctx, kindRecord, m.Seq)
	})
}
