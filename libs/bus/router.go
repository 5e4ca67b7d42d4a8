package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
)

// Handler reacts to one fact of the log. nil acknowledges; Permanent(err) parks the message in DEAD with the reason and
// goes on; any other error, a panic included, has the message delivered again after 250 ms, doubled each time, at most
// 30 s, for ever. It is called at least once for every message and must be safe to repeat. When its router is stopped
// it has DrainTimeout until its context ends.
type Handler func(ctx context.Context, m Stored) error

// RawHandler is a Handler for streams that hold something else than facts.
type RawHandler func(ctx context.Context, m RawMsg) error

// TimerHandler is a Handler for timers that have come due: nil removes the timer.
type TimerHandler func(ctx context.Context, t Timer) error

// RouterConfig of a Router; the zero value is fine.
type RouterConfig struct {
	// Middleware runs inside of the router's own, next to the handlers, the first one outermost: what it returns is
	// treated as the handler's answer. For tests: bustest.Duplicate, bustest.RandomFail.
	Middleware []message.HandlerMiddleware
}

// Router runs handlers. Register all of them, then Run once.
type Router struct {
	bus      *Bus
	router   *message.Router
	names    map[string]bool
	prepared []interface{ prepare(context.Context) error }
	err      error // of registration, told by Run
}

// NewRouter makes a router without handlers.
func (b *Bus) NewRouter(c RouterConfig) (*Router, error) {
	// Our middleware says what happened to a message, with its place in the log; Watermill's own lines would say it again.
	logger := watermill.NewSlogLoggerWithLevelMapping(b.logger, map[slog.Level]slog.Level{
		slog.LevelInfo: slog.LevelDebug, slog.LevelError: slog.LevelDebug,
	})
	router, err := message.NewRouter(message.RouterConfig{CloseTimeout: DrainTimeout + 5*time.Second}, logger)
	if err != nil {
		return nil, fmt.Errorf("make router: %w", err)
	}
	router.AddMiddleware(b.traced, b.settled, recovered)
	router.AddMiddleware(c.Middleware...)
	return &Router{bus: b, router: router, names: map[string]bool{}}, nil
}

// Handle registers a handler of facts. The name is that of the subscriber's durable: to rename a handler is to have it
// start again from the beginning. A message that is no fact is parked.
func (r *Router) Handle(name string, sub message.Subscriber, h Handler) {
	r.HandleRaw(name, sub, func(ctx context.Context, m RawMsg) error {
		s, err := m.Stored()
		if err != nil {
			return Permanent(err)
		}
		return h(ctx, s)
	})
}

// HandleTimer registers a handler of due timers; its subscriber's filters are events.TimerDueFilter of the kinds.
func (r *Router) HandleTimer(name string, sub message.Subscriber, h TimerHandler) {
	r.HandleRaw(name, sub, func(ctx context.Context, m RawMsg) error {
		t, err := timerOf(m)
		if err != nil {
			return Permanent(err)
		}
		return h(ctx, t)
	})
}

// HandleRaw registers a handler of messages as they are.
func (r *Router) HandleRaw(name string, sub message.Subscriber, h RawHandler) {
	if r.names[name] {
		r.err = errors.Join(r.err, fmt.Errorf("two handlers are called %q", name))
		return
	}
	r.names[name] = true
	if p, ok := sub.(interface{ prepare(context.Context) error }); ok {
		r.prepared = append(r.prepared, p)
	}
	r.router.AddConsumerHandler(name, name, sub, func(w *message.Message) error {
		m, err := rawOf(w)
		if err != nil {
			return Permanent(err)
		}
		return h(withDelivered(w.Context(), w), m)
	})
}

type deliveredKey struct{}

func withDelivered(ctx context.Context, w *message.Message) context.Context {
	n, err := strconv.Atoi(w.Metadata[MetadataDelivered])
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, deliveredKey{}, n)
}

// Delivered says in a handler how often its message has been delivered, 1 the first time; 0 when that is not known.
// Whoever gets it for the first time may still not be the first to see it: an attempt that failed counts, one that was
// repeated within the process does not.
func Delivered(ctx context.Context) int {
	n, _ := ctx.Value(deliveredKey{}).(int)
	return n
}

// Run makes the consumers, calls handlers until ctx ends, and returns nil when those that ran then have finished. What
// the broker refuses (a filter, a stream that does not exist) is an error at once; while it is away Run waits for it. A
// router whose context ends before it has begun returns nil.
func (r *Router) Run(ctx context.Context) error {
	if r.err != nil {
		return fmt.Errorf("run router: %w", r.err)
	}
	for _, p := range r.prepared {
		if err := p.prepare(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("run router: %w", err)
		}
	}
	if len(r.names) == 0 {
		<-ctx.Done()
		return nil
	}
	if err := r.router.Run(ctx); err != nil {
		return fmt.Errorf("run router: %w", err)
	}
	if ctx.Err() == nil {
		return errors.New("run router: every subscription has ended")
	}
	return nil
}

// Running is closed when the handlers are subscribed, for tests and readiness checks.
func (r *Router) Running() <-chan struct{} { return r.router.Running() }

// Permanent marks an error as decided by the message alone: trying again changes nothing, so the message is parked.
// What a broker, a disk or the state of something else refuses is not permanent. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// IsPermanent says whether an error has been marked by Permanent.
func IsPermanent(err error) bool {
	var p *permanentError
	return errors.As(err, &p)
}
