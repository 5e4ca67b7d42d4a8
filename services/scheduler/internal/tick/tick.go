// Package tick ends nominal ticks: it puts each into the ledger once, and makes the execs of those that fired.
//
// Contract. A due timer only says that it is time to look. What is due is decided on the fold, which must hold everything
// the log held when the timer arrived, by pure functions of domain; each tick is appended against the schedule's last
// sequence, so that two schedulers can't both end it, and an edit in between is seen. A fired tick carries the whole
// ExecRequested; that is copied to the exec's own subject by whoever sees the tick (Fired), under a derived id: a crash in
// between loses nothing and doubles nothing.
package tick

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"kanade/libs/bus"
	"kanade/libs/catalog"
	"kanade/libs/catalog/fanout"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/services/scheduler/internal/domain"
	"kanade/services/scheduler/internal/supervisor"
)

// FiredDurable is the name of the consumer and handler of ticks that fired.
const FiredDurable = "fired"

// FiredFilters are the subjects of the facts that Fired handles.
func FiredFilters() []string { return []string{events.FactFilter(events.AggregateSchedule, "ticked")} }

// Ticker handles due ticks. Safe for concurrent use.
type Ticker struct {
	bus    *bus.Bus
	fold   *supervisor.Supervisor
	logger *slog.Logger
}

// New makes a ticker on a fold.
func New(b *bus.Bus, fold *supervisor.Supervisor, logger *slog.Logger) *Ticker {
	return &Ticker{bus: b, fold: fold, logger: logger}
}

// attempts is how often a decision is made anew at once when the schedule has changed under it; then the timer comes
// back after a while.
const attempts = 10

// Due handles a timer of kind tick: it ends every tick of the schedule that is due, and then those of other schedules whose
// timers are due as well and wait for a worker: many are due at the full hour, and together they ask the broker for what
// they need once.
func (k *Ticker) Due(ctx context.Context, t bus.Timer) (err error) {
	// The next timer is set by whoever folds the tick; where there was none to end, somebody has to look.
	defer func() { k.fold.TouchSchedule(t.Key, t.At) }()
	if k.ended(t) {
		return nil
	}
	now, err := k.now(ctx, t)
	if err != nil {
		return err
	}
	for range attempts {
		if err = k.fold.Fresh(ctx); err != nil {
			return fmt.Errorf("tick schedule %s: %w", t.Key, err)
		}
		if err = k.end(ctx, t.Key, now, nil); !errors.Is(err, bus.ErrConflict) {
			break
		}
	}
	if err == nil {
		k.endOthers(ctx, t.At, now)
	}
	return err
}

// ended reports whether the tick of a timer is in the ledger already.
func (k *Ticker) ended(t bus.Timer) (ended bool) {
	k.fold.Read(func(s *domain.State) {
		x := s.Schedules[t.Key]
		ended = x != nil && !x.Mark.Before(t.At)
	})
	return ended
}

func (k *Ticker) now(ctx context.Context, t bus.Timer) (time.Time, error) {
	now, err := k.bus.Now(ctx)
	if err != nil {
		return now, fmt.Errorf("tick schedule %s: %w", t.Key, err)
	}
	if now.Before(t.At) {
		now = t.At // the clock is behind by the way of an answer, and the timer is not early
	}
	return now, nil
}

// othersAtOnce bounds how many schedules are ended at once beside a timer's own.
const othersAtOnce = 1000

// endOthers ends what is due of other schedules. Whatever goes wrong is left to their own timers. The fold is fresh.
func (k *Ticker) endOthers(ctx context.Context, at, now time.Time) {
	ids := k.fold.Claim(at)
	jobs := k.readJobs(ctx, ids)
	var group errgroup.Group
	group.SetLimit(othersAtOnce)
	for _, id := range ids {
		group.Go(func() error {
			if err := k.end(ctx, id, now, jobs); err != nil && ctx.Err() == nil {
				k.logger.Debug("a tick is left to its own timer", "schedule", id, "error", err)
			}
			return nil
		})
	}
	_ = group.Wait()
}

// readJobs reads the jobs of many schedules, each once. Those that it can't read are not there.
func (k *Ticker) readJobs(ctx context.Context, schedules []string) map[string]bus.Stored {
	names := map[string]bool{}
	k.fold.Read(func(s *domain.State) {
		for _, id := range schedules {
			if x := s.Schedules[id]; x != nil && x.Current() != nil && x.Current().Spec() != nil {
				names[x.Current().Spec().JobID] = true
			}
		}
	})
	jobs := make(map[string]bus.Stored, len(names))
	for id := range names {
		if stored, ok, err := k.job(ctx, id, nil); ok && err == nil {
			jobs[id] = stored
		}
	}
	return jobs
}

// job is the last fact of a job, from those that have been read or from the log.
func (k *Ticker) job(ctx context.Context, id string, read map[string]bus.Stored) (bus.Stored, bool, error) {
	if stored, ok := read[id]; ok {
		return stored, true, nil
	}
	return k.bus.Last(ctx, events.StreamLog, events.AggregateFilter(events.AggregateJob, id))
}

// end ends every tick of a schedule that is due. jobs are those that have been read already.
func (k *Ticker) end(ctx context.Context, id string, now time.Time, jobs map[string]bus.Stored) (err error) {
	var ticks []tick
	var lastSeq uint64
	var busy []string
	k.fold.Read(func(s *domain.State) {
		if x := s.Schedules[id]; x != nil {
			lastSeq, ticks = x.LastSeq, decide(s, x, now)
			busy = s.BusyExecs(x.ID)
		}
	})
	for _, x := range ticks {
		if x.Fires() && x.Version.Spec().OverlapPolicy() == catalog.OverlapReplace {
			if err := k.replace(ctx, id, busy, x, now); err != nil {
				return err
			}
		}
		if lastSeq, err = k.append(ctx, id, x, lastSeq, now, jobs); err != nil {
			return err
		}
	}
	return nil
}

// tick is a decided tick with what its exec needs.
type tick struct {
	domain.Tick
	jobID    string
	plan     catalog.Plan
	deadline time.Time
	// nobody: no endpoint that is known is in the target.
	nobody bool
}

// decide lists the ticks to be ended: those of a calendar, also of versions that an interval has replaced, then the
// interval's.
func decide(s *domain.State, x *domain.Schedule, now time.Time) []tick {
	p := s.Present(x, now)
	var ticks []tick
	for _, d := range domain.Ticks(x, p) {
		spec := d.Version.Spec()
		ticks = append(ticks, tick{
			Tick: d, jobID: spec.JobID, plan: spec.Plan, nobody: d.Fires() && !reaches(s.Fleet, spec.Plan),
			deadline: domain.Deadline(spec, d, now, s.Local(), fanout.KeepCommands),
		})
	}
	minute := now.Truncate(time.Minute)
	if due := domain.DuePCs(x, s.Fleet, s.Jobs, minute, p); len(due) > 0 {
		v := *x.Current()
		plan := v.Spec().Plan
		if v.Spec().When.PerPC != nil {
			plan.Target, plan.Rollout = catalog.Target{PCs: due}, nil
		}
		d := domain.Tick{Version: v, Outcome: events.TickFired, From: minute, To: minute, Count: 1}
		ticks = append(ticks, tick{
			Tick: d, jobID: v.Spec().JobID, plan: plan, deadline: domain.Deadline(v.Spec(), d, now, s.Local(), fanout.KeepCommands),
		})
	}
	return ticks
}

// reaches reports whether a plan names anybody, known or not, or a group or all of which somebody is known.
func reaches(fleet domain.Fleet, plan catalog.Plan) bool {
	if len(plan.Target.PCs) > 0 || plan.Rollout != nil {
		return true
	}
	for _, e := range fleet {
		if domain.Member(plan.Target, e) {
			return true
		}
	}
	return false
}

// replace kills what still runs of earlier ticks, before the tick that takes their place.
func (k *Ticker) replace(ctx context.Context, scheduleID string, execs []string, t tick, now time.Time) error {
	for _, id := range execs {
		p := events.ExecKilled{ExecID: id, Reason: "replaced by the tick of " + t.To.UTC().Format(time.RFC3339)}
		e, err := events.New(p, events.Meta{
			ID: events.DeriveID(id, "replaced"), Source: supervisor.Source, Time: now, Actor: events.NewActor("schedule", scheduleID), CorrelationID: id,
		})
		if err == nil {
			_, err = k.bus.Append(ctx, e, bus.Any) // a kill may come at any time and twice
		}
		if err != nil {
			return fmt.Errorf("replace exec %s of schedule %s: %w", id, scheduleID, err)
		}
	}
	return nil
}

func (k *Ticker) append(ctx context.Context, id string, t tick, expected uint64, now time.Time, jobs map[string]bus.Stored) (uint64, error) {
	p := events.ScheduleTicked{
		ID: id, ScheduleSequence: t.Version.Seq, Outcome: t.Outcome, Reason: t.Reason, From: t.From, To: t.To, Count: t.Count,
	}
	if t.Fires() {
		exec, unfit, err := k.request(ctx, id, t, jobs)
		if err != nil {
			return 0, err
		}
		if exec != nil && t.nobody {
			exec, unfit = nil, events.TickReasonNoTarget
		}
		if p.Exec = exec; exec == nil {
			p.Outcome, p.Reason = events.TickSkipped, unfit
		}
	}
	e, err := events.New(p, events.Meta{
		ID: events.DeriveID(id, "tick", t.From.UTC().Format(time.RFC3339Nano), t.To.UTC().Format(time.RFC3339Nano)), Source: supervisor.Source,
		Time: now, Actor: events.NewActor("schedule", id), CorrelationID: id,
	})
	if err != nil {
		return 0, err
	}
	return k.bus.Append(ctx, e, expected)
}

// request is the exec of a tick, or the reason for which there is none.
func (k *Ticker) request(ctx context.Context, scheduleID string, t tick, jobs map[string]bus.Stored) (exec *events.ExecRequested, unfit string, err error) {
	stored, ok, err := k.job(ctx, t.jobID, jobs)
	if err != nil {
		return nil, "", fmt.Errorf("read job %s for schedule %s: %w", t.jobID, scheduleID, err)
	}
	if !ok {
		return nil, events.TickReasonJobGone, nil
	}
	payload, err := stored.Payload()
	if err != nil {
		return nil, "", fmt.Errorf("read job %s for schedule %s: %w", t.jobID, scheduleID, err)
	}
	job, ok := payload.(events.JobSaved)
	if !ok {
		return nil, events.TickReasonJobGone, nil
	}
	manifest, err := catalog.ParseManifestDocument(job.DocumentRevision.Document)
	if err != nil {
		return nil, "", fmt.Errorf("read job %s for schedule %s: %w", t.jobID, scheduleID, err)
	}
	script, err := manifest.Resolve(t.plan.Params)
	if err = errors.Join(err, manifest.Unsupported()); err != nil {
		k.logger.Warn("the job can't be run as the schedule asks", "schedule", scheduleID, "job", t.jobID, "error", err)
		return nil, events.TickReasonJobUnfit, nil
	}
	if unfit, err := k.pin(ctx, &script); err != nil || unfit != "" {
		return nil, unfit, err
	}
	r, err := domain.Request(t.Tick, scheduleID, job, stored.Seq, script, t.plan, t.deadline)
	if err != nil {
		return nil, "", fmt.Errorf("request exec of schedule %s: %w", scheduleID, err)
	}
	return &r, "", nil
}

// pin writes the digest of the script object that is there now into the script.
func (k *Ticker) pin(ctx context.Context, s *events.Script) (unfit string, err error) {
	if s.Object == "" {
		return "", nil
	}
	info, err := k.bus.StatObject(ctx, events.StoreScripts, s.Object)
	switch {
	case errors.Is(err, bus.ErrNotFound), errors.Is(err, bus.ErrDeleted), err == nil && info.Digest == nil:
		k.logger.Warn("the script object can't be used", "object", s.Object, "error", err)
		return events.TickReasonScriptObject, nil
	case err != nil:
		return "", err
	}
	s.ObjectSHA256 = wire.HexDigest(*info.Digest)
	return "", nil
}

// Fired handles a tick: one that fired has its ExecRequested copied to the exec's own subject, once. Of a tick that is older
// than the history nothing is copied: its exec has been, and the log may have forgotten it before the tick.
func (k *Ticker) Fired(ctx context.Context, m bus.Stored) error {
	p, err := m.Payload()
	if err != nil {
		return bus.Permanent(err)
	}
	t, ok := p.(events.ScheduleTicked)
	if !ok || t.Exec == nil {
		return nil
	}
	now, err := k.bus.Now(ctx)
	if err != nil {
		return err
	}
	var history time.Duration
	k.fold.Read(func(s *domain.State) { history = s.Retain().History })
	if history > 0 && m.StoredAt.Add(history).Before(now) {
		k.logger.Warn("a tick is too old for its exec to begin", "schedule", t.ID, "exec", t.Exec.ExecID, "sequence", m.Seq)
		return nil
	}
	e, err := events.New(*t.Exec, events.Meta{
		ID: events.DeriveID(t.Exec.ExecID, "requested"), Source: supervisor.Source, Time: m.Time, Actor: m.Actor,
		CausationID: m.ID, CorrelationID: t.Exec.ExecID,
	})
	if err != nil {
		return bus.Permanent(err)
	}
	if _, err := k.bus.Append(ctx, e, 0); err != nil && !errors.Is(err, bus.ErrConflict) {
		return err
	}
	return nil
}
