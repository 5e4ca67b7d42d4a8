package runner

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/agent/internal/bucket"
	"kanade/services/agent/internal/domain"
)

// hear lets a run be killed: by the message of its exec's kill, which is heard from here on, and by endStopped. What was
// said before is in the bucket. The caller calls the function that it gives when the run has ended.
func (r *Runner) hear(e domain.Entry, cancel context.CancelCauseFunc) (forget func()) {
	r.mu.Lock()
	r.runs[e.Run.RequestID] = cancel
	r.mu.Unlock()
	unsubscribe := func() {}
	if events.ValidID(e.Run.ExecID) == nil {
		kill, err := r.Bus.Conn().Subscribe(wire.SubjectKill(e.Run.ExecID), func(*nats.Msg) { cancel(domain.ErrKilled) })
		if err == nil {
			unsubscribe = func() { _ = kill.Unsubscribe() }
		}
	}
	return func() {
		unsubscribe()
		r.mu.Lock()
		delete(r.runs, e.Run.RequestID)
		r.mu.Unlock()
	}
}

// kill ends a run, if it has begun and not ended.
func (r *Runner) kill(requestID string) {
	r.mu.Lock()
	cancel, ok := r.runs[requestID]
	r.mu.Unlock()
	if ok {
		cancel(domain.ErrKilled)
	}
}

// calledOff tells whether a command that has waited is not to begin: its exec was stopped meanwhile, or that can't be
// found out and the command is strict.
func (r *Runner) calledOff(ctx context.Context, c domain.Command) (domain.Skip, bool) {
	if word, ok := r.ask(ctx, c.ExecID); ok {
		return domain.Stopped(word), word != ""
	}
	return c.Stale(domain.Gates{Now: time.Now(), Connected: r.Bus.Connected(), ConnectedAt: r.Bus.ConnectedAt()})
}

// ask is stopped, asked three times before it gives up (ok is false): what it was asked for then goes on, and is looked
// up again as soon as the broker answers.
func (r *Runner) ask(ctx context.Context, execID string) (word events.Outcome, ok bool) {
	for range 3 {
		word, err := r.stopped(ctx, execID)
		if err == nil {
			return word, true
		}
		r.Logger.Warn("can't look up whether an exec was stopped", "exec", execID, "error", err)
		if !pause(ctx, time.Second) {
			break
		}
	}
	select {
	case r.unanswered <- struct{}{}:
	default:
	}
	return "", false
}

// stopped is how an exec was stopped: killed, cancelled or halted; empty for one that was not. The leader answers.
func (r *Runner) stopped(ctx context.Context, execID string) (events.Outcome, error) {
	if events.ValidID(execID) != nil {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, bucket.Timeout)
	defer cancel()
	word, _, _, _, err := r.Bus.GetView(ctx, events.BucketExecStopped, execID)
	return events.Outcome(word), err
}

// heed looks up what was stopped while this endpoint could not be told, until ctx is done: whenever the connection is
// back, and when a question stayed unanswered. It asks again until all is answered. A kill is said once, and heard by
// nobody who is away then.
func (r *Runner) heed(ctx context.Context, connected <-chan nats.Status) {
	timer := time.NewTimer(time.Nanosecond)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.unanswered:
			timer.Reset(askAgain)
			continue
		case <-connected:
		case <-timer.C:
		}
		if !r.Bus.Connected() {
			continue // the reconnection comes first
		}
		if err := r.endStopped(ctx); err != nil && ctx.Err() == nil {
			r.Logger.Warn("can't look up which execs were stopped; trying again", "error", err)
			timer.Reset(askAgain + rand.N(askAgain))
		}
	}
}

// endStopped ends what was stopped: what waits of a killed, cancelled or halted exec, wherever it waits, and what runs of
// a killed one. It costs one question for each exec that the endpoint has not done with. A run is looked for after its
// entry was found not to wait any more, so that none slips through that begins in this moment.
func (r *Runner) endStopped(ctx context.Context) error {
	open, err := r.Ledger.Open()
	if err != nil {
		return err
	}
	words := map[string]events.Outcome{}
	for _, e := range open {
		word, asked := words[e.Run.ExecID]
		if !asked {
			if word, err = r.stopped(ctx, e.Run.ExecID); err != nil {
				return fmt.Errorf("look up exec %s: %w", e.Run.ExecID, err)
			}
			words[e.Run.ExecID] = word
		}
		if word == "" {
			continue
		}
		if e.State == domain.EntryReceived {
			if err := r.skip(ctx, e, domain.Stopped(word)); err != nil {
				return err
			}
		}
		if word == events.OutcomeKilled {
			r.kill(e.Run.RequestID)
		}
	}
	return nil
}
