// Package supervisor keeps the scheduler's fold of the log in memory and takes the steps that follow from it alone: it
// registers endpoints, closes execs, records what schedules remember, and sets the timers of ticks and expiries.
//
// Contract. The fold follows LOG in order from a saved position; presence follows PRESENCE. A step is decided on the fold
// and appended with the expected sequence of its aggregate, under an id derived from its cause: any number of schedulers
// may do it, one does, the others find it done. A step whose append is refused is decided again when the fold has moved;
// one that the broker can't take is tried again every second. Nothing is decided before the fold has reached what the log
// and PRESENCE held when it started, so that a restart decides nothing on the past.
//
// The saved state only makes a start faster. One that does not fit the log (pruned, restored, of another version) is
// thrown away and the fold begins at the log's beginning.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/scheduler/internal/domain"
)

const (
	// retryEvery is how soon a step that failed is looked at again.
	retryEvery = time.Second
	// sweepEvery is how often everything is looked at, whether it changed or not.
	sweepEvery = time.Hour
	// saveEvery is how often the fold is saved.
	saveEvery = 30 * time.Second
)

// Supervisor holds the fold. Make one with New, then Run it once.
type Supervisor struct {
	bus     *bus.Bus
	logger  *slog.Logger
	metrics *metrics

	mu    sync.RWMutex
	state *domain.State
	moved chan struct{} // closed and replaced whenever the position moves

	nudge chan struct{}
	ready chan struct{} // closed when the fold has reached what was there at the start
	// logGoal and presenceGoal are what the fold has to reach for that; presence is how far it is.
	logGoal, presenceGoal, presence atomic.Uint64
	saved                           uint64 // position of the last save
	// lost are heartbeats that say something the log does not know, armed the generations of timers that are set; both
	// are guarded by mu.
	lost  map[string]wire.Heartbeat
	armed map[string]string
}

// New makes a supervisor; reg may be nil.
func New(b *bus.Bus, logger *slog.Logger, reg prometheus.Registerer) (*Supervisor, error) {
	m, err := newMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("make supervisor: %w", err)
	}
	return &Supervisor{
		bus: b, logger: logger, metrics: m, state: domain.New(), moved: make(chan struct{}),
		nudge: make(chan struct{}, 1), ready: make(chan struct{}), lost: map[string]wire.Heartbeat{}, armed: map[string]string{},
	}, nil
}

// Run folds and supervises until ctx ends, then saves the fold. A broker that is away is waited for.
func (s *Supervisor) Run(ctx context.Context) error {
	defer s.metrics.close()
	if err := s.start(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.followLog(ctx) })
	group.Go(func() error { return s.followPresence(ctx) })
	group.Go(func() error { return s.steps(ctx) })
	group.Go(func() error { return s.saves(ctx) })
	return group.Wait()
}

// start loads the saved fold and notes what the fold has to reach before it may decide.
func (s *Supervisor) start(ctx context.Context) error {
	for {
		err := s.load(ctx)
		var logSeq, presenceSeq uint64
		if err == nil {
			logSeq, err = s.bus.LastSeq(ctx, events.StreamLog)
		}
		if err == nil {
			presenceSeq, err = s.bus.LastSeq(ctx, events.StreamPresence)
		}
		if err == nil {
			s.logGoal.Store(logSeq)
			s.presenceGoal.Store(presenceSeq)
			s.checkReady()
			return nil
		}
		if !errors.Is(err, bus.ErrUnavailable) || ctx.Err() != nil {
			return fmt.Errorf("start supervisor: %w", err)
		}
		s.logger.Warn("the broker is away; waiting", "error", err)
		if err := wait(ctx, retryEvery); err != nil {
			return err
		}
	}
}

func (s *Supervisor) followLog(ctx context.Context) error {
	for {
		s.mu.RLock()
		from := s.state.Position + 1
		s.mu.RUnlock()
		err := s.bus.Follow(ctx, bus.FollowConfig{Stream: events.StreamLog, From: from, Name: "supervisor"}, s.fold)
		var pruned *bus.LogPruned
		var reset *bus.LogReset
		if !errors.As(err, &pruned) && !errors.As(err, &reset) {
			return err
		}
		s.logger.Warn("the saved fold does not fit the log; folding it from the beginning", "reason", err)
		s.mu.Lock()
		fresh := domain.New()
		for id, e := range s.state.Fleet {
			if !e.HeardAt.IsZero() {
				fresh.Fleet[id] = &domain.Endpoint{AgentSeen: events.AgentSeen{PCID: id}, HeardAt: e.HeardAt}
			}
		}
		s.state, s.saved = fresh, 0
		s.mu.Unlock()
	}
}

func (s *Supervisor) fold(_ context.Context, batch []bus.RawMsg) error {
	s.mu.Lock()
	for _, m := range batch {
		e, err := m.Event()
		if err == nil {
			err = s.state.Apply(e, m.Seq, m.Time)
		} else {
			s.state.Position = m.Seq
		}
		if err != nil {
			// The projector parks it; for the fold it says nothing.
			s.metrics.undecodable.Inc()
			s.logger.Debug("skip undecodable fact", "sequence", m.Seq, "subject", m.Subject, "error", err)
		}
	}
	s.metrics.position.Set(float64(s.state.Position))
	s.metrics.execs.Set(float64(len(s.state.Execs)))
	close(s.moved)
	s.moved = make(chan struct{})
	s.mu.Unlock()
	s.checkReady()
	s.wake()
	return nil
}

func (s *Supervisor) followPresence(ctx context.Context) error {
	return s.bus.Follow(ctx, bus.FollowConfig{Stream: events.StreamPresence, LastPerSubject: true, Name: "presence"}, s.heard)
}

func (s *Supervisor) heard(ctx context.Context, batch []bus.RawMsg) error {
	now, err := s.bus.Now(ctx)
	if err != nil {
		now = batch[len(batch)-1].Time // the newest arrival is the broker's clock too
	}
	s.mu.Lock()
	for _, m := range batch {
		h, err := wire.DecodeHeartbeat(m.Data)
		if err != nil || events.ValidID(h.PCID) != nil {
			s.metrics.undecodable.Inc()
			s.logger.Debug("skip heartbeat", "subject", m.Subject, "pc", h.PCID, "error", err)
			continue
		}
		if _, _, unknown := s.state.Fleet.Seen(h); unknown {
			s.lost[h.PCID] = h
		}
		s.state.Heard(h.PCID, m.Time, now)
	}
	s.mu.Unlock()
	s.presence.Store(batch[len(batch)-1].Seq)
	s.checkReady()
	s.wake()
	return nil
}

func (s *Supervisor) checkReady() {
	s.mu.RLock()
	there := s.state.Position >= s.logGoal.Load() && s.presence.Load() >= s.presenceGoal.Load()
	s.mu.RUnlock()
	if !there {
		return
	}
	select {
	case <-s.ready:
	default:
		s.mu.Lock()
		defer s.mu.Unlock()
		select {
		case <-s.ready:
		default:
			close(s.ready)
			s.logger.Info("supervisor has caught up", "sequence", s.state.Position, "execs", len(s.state.Execs), "endpoints", len(s.state.Fleet))
		}
	}
}

// Ready is closed when the fold has caught up with the log of the start.
func (s *Supervisor) Ready() <-chan struct{} { return s.ready }

// Fresh waits until the fold holds everything that the log held when it was called: what a decision needs that rests on
// facts outside of its own aggregate.
func (s *Supervisor) Fresh(ctx context.Context) error {
	last, err := s.bus.LastSeq(ctx, events.StreamLog)
	if err != nil {
		return err
	}
	select {
	case <-s.ready:
	case <-ctx.Done():
		return fmt.Errorf("wait for the fold: %w", ctx.Err())
	}
	for {
		s.mu.RLock()
		position, moved := s.state.Position, s.moved
		s.mu.RUnlock()
		if position >= last {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("wait for the fold to reach %d, it is at %d: %w", last, position, ctx.Err())
		}
	}
}

// Read gives the state to look at; nothing of it may be kept or changed.
func (s *Supervisor) Read(look func(*domain.State)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	look(s.state)
}

// TouchSchedule asks for a look at one schedule.
func (s *Supervisor) TouchSchedule(id string) {
	s.mu.Lock()
	s.state.Touched.Schedules[id] = struct{}{}
	s.mu.Unlock()
	s.wake()
}

func (s *Supervisor) wake() {
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
