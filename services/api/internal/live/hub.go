// Package live tells clients of the event stream when the log has grown. One subscription a process knows the log's head;
// each client reads ahead by pages of direct gets from where it stands and waits here for more. A slow client therefore
// holds nothing but its own position, never the others, and the broker sees one consumer however many watch.
package live

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"kanade/libs/bus"
	"kanade/libs/events"
)

// Pauses after the subscription has failed, doubling.
const (
	firstRetry = 250 * time.Millisecond
	maxRetry   = 15 * time.Second
)

// Hub knows the log's head. Safe for concurrent use.
type Hub struct {
	bus    *bus.Bus
	logger *slog.Logger

	mu   sync.Mutex
	head uint64
	grew chan struct{} // closed when head moves
}

// NewHub makes a hub; Run feeds it.
func NewHub(b *bus.Bus, logger *slog.Logger) *Hub {
	return &Hub{bus: b, logger: logger, grew: make(chan struct{})}
}

// Run follows the log until ctx ends. Whatever breaks the subscription is logged and it is made again: nothing is lost
// by that, as the hub holds a position and no messages.
func (h *Hub) Run(ctx context.Context) {
	for wait := firstRetry; ctx.Err() == nil; wait = min(2*wait, maxRetry) {
		before, _ := h.Head()
		err := h.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !errors.Is(err, bus.ErrUnavailable) {
			h.logger.Warn("follow the log for live events; trying again", "in", wait, "error", err)
		}
		if head, _ := h.Head(); head != before {
			wait = firstRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (h *Hub) follow(ctx context.Context) error {
	last, err := h.bus.LastSeq(ctx, events.StreamLog)
	if err != nil {
		return err
	}
	h.moved(last)
	return h.bus.Follow(ctx, bus.FollowConfig{Stream: events.StreamLog, From: last + 1, Name: "api-live"},
		func(_ context.Context, batch []bus.RawMsg) error {
			if len(batch) > 0 {
				h.moved(batch[len(batch)-1].Seq)
			}
			return nil
		})
}

// moved wakes whoever waits. The head may go back, when the log was restored from an older copy.
func (h *Hub) moved(head uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.head = head
	close(h.grew)
	h.grew = make(chan struct{})
}

// Head is the newest sequence that the hub has heard of, and a channel that is closed when that changes.
func (h *Hub) Head() (uint64, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.head, h.grew
}
