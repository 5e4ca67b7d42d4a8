package inbox

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/synadia-io/orbit.go/jetstreamext"

	"kanade/libs/events"
	"kanade/services/agent/internal/domain"
	"kanade/services/agent/internal/ledger"
)

// A page of the catch-up: at most so many commands, and so many bytes (unless a single one is larger).
const (
	pageSize    = 64
	pageBytes   = 4 << 20
	pageTimeout = 30 * time.Second
)

// catchUp reads what EXEC has behind each position. A subject that fails does not keep the others waiting.
func (in *Inbox) catchUp(ctx context.Context) error {
	var errs []error
	for _, subject := range slices.Sorted(maps.Keys(in.positions)) {
		for more := true; more; {
			var err error
			if more, err = in.readPage(ctx, subject); err != nil {
				errs = append(errs, fmt.Errorf("catch up on %s: %w", subject, err))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// readPage takes one page into the ledger, then moves the position behind it, and reports whether there may be more.
func (in *Inbox) readPage(ctx context.Context, subject string) (more bool, err error) {
	reading, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	pos := in.positions[subject]
	from := jetstreamext.GetBatchSeq(pos.Seq + 1)
	if !pos.Since.IsZero() {
		from = jetstreamext.GetBatchStartTime(pos.Since)
	}
	seq := uint64(0)
	for m, readErr := range in.Bus.Batch(reading, events.StreamExec, pageSize,
		jetstreamext.GetBatchSubject(subject), from, jetstreamext.GetBatchMaxBytes(pageBytes)) {
		err = readErr
		if err == nil {
			err = in.Receive(ctx, domain.Heard{Data: m.Data, TraceParent: m.Header.Get(events.HeaderTraceParent), Late: true})
		}
		if err != nil {
			break
		}
		seq = m.Sequence
	}
	if seq == 0 {
		return false, err
	}
	return err == nil, errors.Join(err, in.move(map[string]*ledger.Position{subject: {Seq: seq}}))
}
