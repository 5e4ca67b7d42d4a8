package journal

import (
	"context"
	"fmt"

	"github.com/synadia-io/orbit.go/jetstreamext"

	"kanade/libs/bus"
	"kanade/libs/events"
)

// Limits of a page: messages, and bytes together.
const (
	pageMessages = 128
	pageBytes    = 1 << 20
)

// Page reads a page of the log from a sequence on, by direct get: no consumer is left behind. filter is a subject with
// wildcards; empty means the whole log. A page is empty only if nothing lies there, as far as the server that answers
// knows: a follower may lag.
func Page(ctx context.Context, b *bus.Bus, filter string, from uint64) ([]bus.RawMsg, error) {
	opts := []jetstreamext.GetBatchOpt{jetstreamext.GetBatchSeq(from), jetstreamext.GetBatchMaxBytes(pageBytes)}
	if filter != "" {
		opts = append(opts, jetstreamext.GetBatchSubject(filter))
	}
	var page []bus.RawMsg
	for m, err := range b.Batch(ctx, events.StreamLog, pageMessages, opts...) {
		if err != nil {
			return nil, fmt.Errorf("read log from %d: %w: %w", from, bus.ErrUnavailable, err)
		}
		page = append(page, bus.RawMsg{
			Stream: events.StreamLog, Subject: m.Subject, Seq: m.Sequence, Time: m.Time.UTC(), Header: m.Header, Data: m.Data,
		})
	}
	return page, nil
}
