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
	"math"
	"sync"
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
	// saveEvery is how often the fold is saved, if there are saveFacts new ones: to fold these again takes a restart some
	// 10 ms, to write a large fold takes longer.
	saveEvery = 30 * time.Second
	saveFacts = 1000
)

// Supervisor holds the fold. Make one with New, Run it once, then Close it. Its other methods are safe for concurrent use.
type Supervisor struct {
	bus     *bus.Bus
	retain  events.Retain
	logger  *slog.Logger
	metrics *metrics

	mu    sync.RWMutex
	state *domain.State
	moved chan struct{} // closed and replaced whenever the fold moves
	begun int           // how often it was begun anew

	nudge chan struct{}
	ready chan struct{} // closed when the fold has reached its goals for the first time

	// What follows is guarded by mu.

	// logGoal and presenceGoal are the sequences that the fold has to reach before it may decide; presence is how far it
	// is with the second.
	logGoal, presenceGoal, presence uint64
	saved                           uint64 // position of the last save
	// lost are heartbeats that say something the log does not know.
	lost map[string]wire.Heartbeat
	// armed are the generations of the timers that are set, by kind and key. It saves asking the broker again.
	armed map[string]string
	// looks are by schedule.
	looks map[string]look
	// passed is an instant that the broker's clock is known to have reached, because a timer came due then.
	passed time.Time
}

// New makes a supervisor of an installation that remembers for so long; reg may be nil.
func New(b *bus.Bus, retain events.Retain, logger *slog.Logger, reg prometheus.Registerer) (*Supervisor, error) {
	m, err := newMetrics(reg)
	if err != nil {
		return nil, fmt.Errorf("make supervisor: %w", err)
	}
	return &Supervisor{
		bus: b, retain: retain, logger: logger, metrics: m, state: domain.New(retain), moved: make(chan struct{}),
		nudge: make(chan struct{}, 1), ready: make(chan struct{}), lost: map[string]wire.Heartbeat{}, armed: map[string]string{}, looks: map[string]look{},
	}, nil
}

// Run folds and supervises until ctx ends, then saves the fold. A broker that is away is waited for.
func (s *Supervisor) Run(ctx context.Context) error {
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
	group.Go(func() error { return s.watchLooks(ctx) })
	return group.Wait()
}

// Close takes the metrics out of their registry.
func (s *Supervisor) Close() { s.metrics.close() }

// start loads the saved fold and notes what the fold has to reach before it may decide.
func (s *Supervisor) start(ctx context.Context) error {
	if err := s.patiently(ctx, s.load); err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	if err := s.patiently(ctx, s.aim); err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	s.checkReady()
	return nil
}

// patiently does something that asks the broker, which it waits for.
func (s *Supervisor) patiently(ctx context.Context, do func(context.Context) error) error {
	for {
		err := do(ctx)
		if !errors.Is(err, bus.ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		s.logger.Warn("the broker is away; waiting", "error", err)
		if err := wait(ctx, retryEvery); err != nil {
			return err
		}
	}
}

// aim notes what the streams hold: the sequences of their last messages that are still there. A stream's own last
// sequence would never be reached where that message has gone.
func (s *Supervisor) aim(ctx context.Context) error {
	log, _, err := s.bus.LastRaw(ctx, events.StreamLog, ">")
	if err != nil {
		return err
	}
	presence, _, err := s.bus.LastRaw(ctx, events.StreamPresence, ">")
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.logGoal, s.presenceGoal = log.Seq, presence.Seq
	s.signal()
	s.mu.Unlock()
	return nil
}

func (s *Supervisor) followLog(ctx context.Context) error {
	for {
		s.mu.RLock()
		c := bus.FollowConfig{Stream: events.StreamLog, From: s.state.Position + 1, KnownAt: s.state.At, Name: "supervisor"}
		s.mu.RUnlock()
		err := s.bus.Follow(ctx, c, s.fold)
		if !isOther(err) {
			return err
		}
		s.logger.Warn("the fold does not fit the log; folding it from the beginning", "reason", err)
		s.forget()
		if err := s.patiently(ctx, s.aim); err != nil {
			return fmt.Errorf("fold the log again: %w", err)
		}
		s.checkReady()
	}
}

// isOther reports whether a stream is not the one that was followed.
func isOther(err error) bool {
	var pruned *bus.LogPruned
	var reset *bus.LogReset
	return errors.As(err, &pruned) || errors.As(err, &reset)
}

// forget begins the fold anew; nothing is decided until it has caught up again. What PRESENCE says stays.
func (s *Supervisor) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := domain.New(s.retain)
	for id, e := range s.state.Fleet {
		if !e.HeardAt.IsZero() {
			fresh.Fleet[id] = &domain.Endpoint{AgentSeen: events.AgentSeen{PCID: id}, HeardAt: e.HeardAt}
		}
	}
	s.state, s.saved, s.logGoal = fresh, 0, math.MaxUint64
	s.begun++
	clear(s.armed)
	clear(s.looks)
}

func (s *Supervisor) fold(_ context.Context, batch []bus.RawMsg) error {
	s.mu.Lock()
	for _, m := range batch {
		e, err := m.Event()
		if err == nil {
			err = s.state.Apply(e, m.Seq, m.Time)
		} else {
			s.state.Skip(m.Subject, m.Seq, m.Time)
		}
		if err != nil {
			// The projector parks it; for the fold it says nothing.
			s.metrics.undecodable.Inc()
			s.logger.Debug("skip undecodable fact", "sequence", m.Seq, "subject", m.Subject, "error", err)
		}
	}
	s.metrics.position.Set(float64(s.state.Position))
	s.metrics.execs.Set(float64(len(s.state.Execs)))
	s.signal()
	s.mu.Unlock()
	s.checkReady()
	s.wake()
	return nil
}

// signal lets whoever waits for the fold look again. The lock is held.
func (s *Supervisor) signal() {
	close(s.moved)
	s.moved = make(chan struct{})
}

func (s *Supervisor) followPresence(ctx context.Context) error {
	for {
		err := s.bus.Follow(ctx, bus.FollowConfig{Stream: events.StreamPresence, LastPerSubject: true, Name: "presence"}, s.heard)
		if !isOther(err) {
			return err
		}
		s.logger.Warn("the heartbeats are of another stream; reading them from the beginning", "reason", err)
	}
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
	s.presence = batch[len(batch)-1].Seq
	s.signal()
	s.mu.Unlock()
	s.checkReady()
	s.wake()
	return nil
}

// caughtUp reports whether the fold may decide. The lock is held.
func (s *Supervisor) caughtUp() bool {
	return s.state.Position >= s.logGoal && s.presence >= s.presenceGoal
}

func (s *Supervisor) checkReady() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.caughtUp() {
		return
	}
	select {
	case <-s.ready:
	default:
		close(s.ready)
		s.logger.Info("supervisor has caught up", "sequence", s.state.Position, "execs", len(s.state.Execs), "endpoints", len(s.state.Fleet))
	}
}

// Ready is closed when the fold has caught up with the log of the start.
func (s *Supervisor) Ready() <-chan struct{} { return s.ready }

// Fresh waits until the fold holds everything that the log held when it was called: what a decision needs that rests on
// facts outside of its own aggregate.
func (s *Supervisor) Fresh(ctx context.Context) error {
	last, _, err := s.bus.LastRaw(ctx, events.StreamLog, ">")
	if err != nil {
		return err
	}
	return s.Reach(ctx, last.Seq)
}

// Reach waits until the fold holds the log up to a sequence, and what the log held when the supervisor started. The error is
// that of ctx, or says that the log is another one by now, which may never come as far.
func (s *Supervisor) Reach(ctx context.Context, sequence uint64) error {
	for first := -1; ; {
		s.mu.RLock()
		fresh := s.caughtUp() && s.state.Position >= sequence
		position, moved, begun := s.state.Position, s.moved, s.begun
		s.mu.RUnlock()
		if fresh {
			return nil
		}
		if first < 0 {
			first = begun
		}
		if begun != first {
			return fmt.Errorf("wait for the fold to reach %d: it was begun anew", sequence)
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("wait for the fold to reach %d, it is at %d: %w", sequence, position, ctx.Err())
		}
	}
}

// Read gives the state to look at; nothing of it may be kept or changed.
func (s *Supervisor) Read(look func(*domain.State)) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	look(s.state)
}

// TouchExec asks for a look at one exec, a wave of which came due at an instant.
func (s *Supervisor) TouchExec(id string, at time.Time) {
	s.mu.Lock()
	s.state.Touched.Execs[id] = struct{}{}
	s.pass(at)
	s.mu.Unlock()
	s.wake()
}

// pass notes that the broker's clock has reached an instant. The lock is held.
func (s *Supervisor) pass(at time.Time) {
	if at.After(s.passed) {
		s.passed = at
	}
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
