// Package tick ends nominal ticks: it puts each into the ledger once, and makes the execs of those that fired.
//
// Contract. A due timer only says that it is time to look, at every schedule that is due at its instant. What is due is decided
// on the fold, which must hold everything the log held when the timer arrived, by pure functions of domain; each tick is appended
// against the schedule's last sequence, so that two schedulers can't both end it, and an edit in between is seen. A fired tick carries the whole
// ExecRequested; that is copied to the exec's own subject by whoever sees the tick (Fired), under a derived id: a crash in
// between loses nothing and doubles nothing.
package tick

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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

	mu      sync.Mutex
	ending  int           // how many batches of ticks are being ended
	through chan struct{} // closed when it is none
}

// New makes a ticker on a fold.
func New(b *bus.Bus, fold *supervisor.Supervisor, logger *slog.Logger) *Ticker {
	return &Ticker{bus: b, fold: fold, logger: logger}
}

// attempts is how often a decision is made anew at once when the schedule has changed under it; then it is looked at after a
// while.
const attempts = 10

// Due handles a timer of kind tick: it ends every tick of every schedule that is due at its instant. Many are at the full
// hour; together they ask the broker for what they need once. A schedule that fails is looked at again after a while
// (Supervisor.Later), by a timer of its own: the others are through with this one.
func (k *Ticker) Due(ctx context.Context, t bus.Timer) (err error) {
	now, err := k.now(ctx, t)
	if err != nil {
		return err
	}
	if err := k.fold.Fresh(ctx); err != nil {
		return fmt.Errorf("tick at %s: %w", t.At, err)
	}
	pending := k.fold.Claim(t.At)
	var failed []string
	defer func() { k.fold.Later(ctx, append(failed, pending...), now) }()
	for n := 0; len(pending) > 0 && n < attempts; n++ {
		if n > 0 {
			if err = k.fold.Fresh(ctx); err != nil {
				break
			}
		}
		ended := k.endAll(ctx, pending, now)
		k.fold.Looked(ended.idle)
		failed, pending = append(failed, ended.failed...), ended.conflicting
		err = errors.Join(err, ended.err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("tick at %s: %w", t.At, ctx.Err()) // another scheduler hears the timer
	}
	if n := len(failed) + len(pending); n > 0 {
		k.logger.Warn("ticks failed; trying again", "at", t.At, "schedules", n, "error", cmp.Or(err, bus.ErrConflict))
	}
	return nil
}

func (k *Ticker) now(ctx context.Context, t bus.Timer) (time.Time, error) {
	now, err := k.bus.Now(ctx)
	if err != nil {
		return now, fmt.Errorf("tick at %s: %w", t.At, err)
	}
	if now.Before(t.At) {
		now = t.At // the clock is behind by the way of an answer, and the timer is not early
	}
	return now, nil
}

// appendsAtOnce bounds how many appends are under way.
const appendsAtOnce = 1000

// ended is what became of schedules whose ticks were to be ended: nothing was due of the idle ones, something else was said of the
// conflicting ones meanwhile; err is the first error of those that failed.
type ended struct {
	idle, conflicting, failed []string
	err                       error
}

// endAll ends every tick of some schedules that is due.
func (k *Ticker) endAll(ctx context.Context, ids []string, now time.Time) (e ended) {
	defer k.begin()()
	// All is decided before the first tick is in the log: the fold, which takes in each of them, is looked at by nobody then.
	decisions, errs := make([]decision, len(ids)), make([]error, len(ids))
	each(len(ids), runtime.GOMAXPROCS(0), func(i int) { decisions[i] = k.decide(ids[i], now) })
	jobs := k.readJobs(ctx, decisions)
	each(len(ids), appendsAtOnce, func(i int) { errs[i] = k.end(ctx, &decisions[i], now, jobs) })
	for i, id := range ids {
		switch {
		case errors.Is(errs[i], bus.ErrConflict):
			e.conflicting = append(e.conflicting, id)
		case errs[i] != nil:
			e.failed = append(e.failed, id)
			e.err = cmp.Or(e.err, errs[i])
		case len(decisions[i].ticks) == 0:
			e.idle = append(e.idle, id)
		}
	}
	return e
}

// each does something for 0 to n-1, workers of them at once. A worker does many: a stack that has grown is not grown again.
func each(n, workers int, do func(i int)) {
	var group sync.WaitGroup
	var next atomic.Int64
	for range min(n, workers) {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	group.Wait()
}

// job is what a tick needs of a job: the fact that saved it, its parsed document, and what of it can't be run.
type job struct {
	stored      bus.Stored
	saved       events.JobSaved
	manifest    *catalog.Manifest
	unsupported error
}

// jobsAtOnce bounds how many jobs are read at once.
const jobsAtOnce = 64

// readJobs reads the jobs that several decisions need, each once. Those that it can't read are not there.
func (k *Ticker) readJobs(ctx context.Context, decisions []decision) map[string]job {
	needed := map[string]int{}
	for i := range decisions {
		for _, t := range decisions[i].ticks {
			if t.Fires() {
				needed[t.jobID]++
			}
		}
	}
	maps.DeleteFunc(needed, func(_ string, n int) bool { return n < 2 })
	ids := slices.Collect(maps.Keys(needed))
	read := make([]*job, len(ids))
	each(len(ids), jobsAtOnce, func(i int) {
		if x, ok, err := k.job(ctx, ids[i], nil); ok && err == nil {
			read[i] = &x
		}
	})
	jobs := make(map[string]job, len(ids))
	for i, x := range read {
		if x != nil {
			jobs[ids[i]] = *x
		}
	}
	return jobs
}

// job is a job from those that have been read or from the log; false if there is none, or it is deleted.
func (k *Ticker) job(ctx context.Context, id string, read map[string]job) (x job, ok bool, err error) {
	if x, ok := read[id]; ok {
		return x, true, nil
	}
	if x.stored, ok, err = k.bus.Last(ctx, events.StreamLog, events.AggregateFilter(events.AggregateJob, id)); err != nil || !ok {
		return x, false, err
	}
	payload, err := x.stored.Payload()
	if err != nil {
		return x, false, err
	}
	if x.saved, ok = payload.(events.JobSaved); !ok {
		return x, false, nil
	}
	if x.manifest, err = catalog.ParseManifestDocument(x.saved.DocumentRevision.Document); err != nil {
		return x, false, err
	}
	x.unsupported = x.manifest.Unsupported()
	return x, true, nil
}

// decision is the ticks of a schedule that are due, against its last sequence.
type decision struct {
	schedule string
	ticks    []tick
	lastSeq  uint64
	// busy are its execs that still run, where a tick takes their place.
	busy []string
}

func (k *Ticker) decide(id string, now time.Time) decision {
	d := decision{schedule: id}
	k.fold.Read(func(s *domain.State) {
		if x := s.Schedules[id]; x != nil {
			d.lastSeq, d.ticks = x.LastSeq, ticksOf(s, x, now)
			if slices.ContainsFunc(d.ticks, tick.replaces) {
				d.busy = s.BusyExecs(x.ID)
			}
		}
	})
	return d
}

// end puts the ticks of a decision into the log. jobs are those that have been read already.
func (k *Ticker) end(ctx context.Context, d *decision, now time.Time, jobs map[string]job) (err error) {
	for _, x := range d.ticks {
		if x.replaces() {
			if err := k.replace(ctx, d.schedule, d.busy, x, now); err != nil {
				return err
			}
		}
		if d.lastSeq, err = k.append(ctx, d.schedule, x, d.lastSeq, now, jobs); err != nil {
			return fmt.Errorf("tick schedule %s: %w", d.schedule, err)
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

// replaces reports whether the tick takes the place of what still runs.
func (t tick) replaces() bool {
	return t.Fires() && t.Version.Spec().OverlapPolicy() == catalog.OverlapReplace
}

// ticksOf lists the ticks to be ended: those of a calendar, also of versions that an interval has replaced, then the
// interval's.
func ticksOf(s *domain.State, x *domain.Schedule, now time.Time) []tick {
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

func (k *Ticker) append(ctx context.Context, id string, t tick, expected uint64, now time.Time, jobs map[string]job) (uint64, error) {
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
func (k *Ticker) request(ctx context.Context, scheduleID string, t tick, jobs map[string]job) (exec *events.ExecRequested, unfit string, err error) {
	x, ok, err := k.job(ctx, t.jobID, jobs)
	if err != nil {
		return nil, "", fmt.Errorf("read job %s: %w", t.jobID, err)
	}
	if !ok {
		return nil, events.TickReasonJobGone, nil
	}
	script, err := x.manifest.Resolve(t.plan.Params)
	if err = errors.Join(err, x.unsupported); err != nil {
		k.logger.Warn("the job can't be run as the schedule asks", "schedule", scheduleID, "job", t.jobID, "error", err)
		return nil, events.TickReasonJobUnfit, nil
	}
	if unfit, err := k.pin(ctx, &script); err != nil || unfit != "" {
		return nil, unfit, err
	}
	r, err := domain.Request(t.Tick, scheduleID, x.saved, x.stored.Seq, script, t.plan, t.deadline)
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

// behindMost is how long an exec that is to begin waits for ticks.
const behindMost = 2 * time.Second

// behindTicks waits while this process ends ticks: what 10 000 execs ask of the broker would make the last of 10 000 ticks late
// by a second.
func (k *Ticker) behindTicks(ctx context.Context) error {
	k.mu.Lock()
	through, ending := k.through, k.ending
	k.mu.Unlock()
	if ending == 0 {
		return nil
	}
	enough := time.NewTimer(behindMost)
	defer enough.Stop()
	select {
	case <-through:
	case <-enough.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// begin notes that a batch of ticks is being ended; done, that it is.
func (k *Ticker) begin() (done func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ending++; k.ending == 1 {
		k.through = make(chan struct{})
	}
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.ending--; k.ending == 0 {
			close(k.through)
		}
	}
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
	if err := k.behindTicks(ctx); err != nil {
		return err
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
