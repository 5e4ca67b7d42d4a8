package readmodel

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"kanade/libs/events"
)

// Target is one endpoint in one exec. Its At is the broker's time of the fact that made the state.
type Target struct {
	PCID string
	events.Target
}

// An endpoint becomes a target by the plan, or by any run fact that names an exec that was requested: one that the plan
// does not know is unplanned, and becomes planned, its state kept, should the plan come later. A run of an exec that the
// log holds no request of (an old agent's own schedule, a run under an id of the operator's) has no target.
//
// The totals are kept as set transitions, old state one less, new state one more: they always equal a count over the
// targets, whatever came twice or late.
var targets = relation{name: "targets", key: 2, columns: []string{
	"exec_id TEXT", "pc_id TEXT", "state TEXT", "expected INTEGER", "planned INTEGER", "wave INTEGER",
	"code INTEGER NULL", "reason TEXT", "result_id TEXT", "at INTEGER", "sequence INTEGER",
}}

// targetTotals: totals is events.Totals as JSON without zeros; heard counts the targets that have said anything. It
// exists from the exec's request on, and outlives the targets: said is what the log's last fact with totals says, which
// takes the place of the count when they are forgotten.
var targetTotals = relation{
	name: "target_totals", key: 1,
	columns: []string{"exec_id TEXT", "totals TEXT", "heard INTEGER", "said TEXT", "initiated_at INTEGER", "kept INTEGER"},
	indexes: []string{
		"CREATE INDEX target_totals_kept ON target_totals (initiated_at) WHERE kept = 1",
		"CREATE INDEX target_totals_due ON target_totals (exec_id) WHERE kept = 2",
	},
}

// What is kept of the targets of an exec. They are due before their time when the exec has been reduced.
const (
	targetsForgotten = iota
	targetsKept
	targetsDue
)

// targetPlaces is who stands where in the wave of an exec that goes out in parts. Only a plan with a budget of parallel
// endpoints makes parts, and there may be as many parts as endpoints: a part must not cost a look at all of them. Every
// other exec has no row here.
var targetPlaces = relation{name: "target_places", key: 3, columns: []string{
	"exec_id TEXT", "wave INTEGER", "place INTEGER", "pc_id TEXT",
}}

type placeRow struct {
	execID      string
	wave, place int
	pcID        string
}

func (p *placeRow) fields() []any { return []any{&p.execID, &p.wave, &p.place, &p.pcID} }

type targetRow struct {
	execID string
	Target
}

func (t *targetRow) fields() []any {
	return []any{
		&t.execID, &t.PCID, &t.State, &t.Expected, &t.Planned, &t.Wave, &t.Code, &t.Reason, &t.ResultID, nanos{&t.At}, sequence{&t.Sequence},
	}
}

type totalsRow struct {
	execID       string
	totals, said string
	heard        int
	initiatedAt  time.Time
	kept         int
}

func (t *totalsRow) fields() []any {
	return []any{&t.execID, &t.totals, &t.heard, &t.said, nanos{&t.initiatedAt}, &t.kept}
}

// targetProjection holds the execs that a batch touches.
type targetProjection struct {
	db     *database
	totals *rows[totalsRow, *totalsRow]
	execs  map[string]*execTargets
	order  []*execTargets
}

// execTargets is the part of one exec's targets that a batch touches; all of them once complete.
type execTargets struct {
	execID   string
	complete bool
	targets  map[string]*entry[targetRow]
	touched  []*entry[targetRow]
	row      *entry[totalsRow]
	totals   events.Totals
	counted  bool // totals have changed
	// placed is the plan whose places are not stored yet; nil otherwise.
	placed *events.ExecPlanned
}

func beginTargets(db *database) projection {
	return &targetProjection{db: db, totals: newRows[totalsRow](db, &targetTotals), execs: map[string]*execTargets{}}
}

func (p *targetProjection) Apply(f *fact) error {
	if f.run != nil {
		return p.applyRun(f)
	}
	if err := p.applyExec(f); err != nil {
		return err
	}
	if said, ok := events.TotalsOf(f.payload); ok {
		return p.say(f.payload.AggregateID(), said)
	}
	return nil
}

func (p *targetProjection) applyExec(f *fact) error {
	switch e := f.payload.(type) {
	case events.ExecRequested:
		return p.request(e, f)
	case events.ExecPlanned:
		return p.plan(e, f)
	case events.WaveDispatched:
		return p.dispatch(e, f)
	case events.ExecHalted:
		return p.stop(e.ExecID, events.SkipReasonHalted, f)
	case events.ExecCancelled:
		return p.stop(e.ExecID, events.SkipReasonCancelled, f)
	case events.ExecKilled:
		return p.stop(e.ExecID, events.SkipReasonKilled, f)
	case events.ExecExpired:
		return p.each(e.ExecID, f, func(t events.Target) (events.Target, bool) { return t.Expire(f.seq, f.at) })
	case events.ExecReduced:
		return p.reduce(e)
	default:
		return nil
	}
}

func (p *targetProjection) applyRun(f *fact) error {
	if f.run.ExecID == "" {
		return nil
	}
	x, err := p.exec(f.run.ExecID)
	if err != nil || !p.keeps(x, f) {
		return err
	}
	t, err := p.target(x, f.run.PCID)
	if err != nil {
		return err
	}
	if next, changed := t.row.Target.Target.Apply(*f.run, f.seq, f.at); changed {
		x.change(t, next)
	}
	return nil
}

// keeps reports whether the exec was requested and its targets are not forgotten, or about to be, at the time of a fact.
func (p *targetProjection) keeps(x *execTargets, f *fact) bool {
	return x.row.live && x.row.row.kept == targetsKept && !x.row.row.initiatedAt.Before(p.db.retain.HistoryAt(f.at))
}

func (p *targetProjection) request(e events.ExecRequested, f *fact) error {
	x, err := p.exec(e.ExecID)
	if err != nil || x.row.live {
		return err
	}
	x.row.row = totalsRow{execID: e.ExecID, totals: "{}", said: "{}", initiatedAt: f.event.Time, kept: targetsKept}
	p.db.old(f.event.Time, p.db.retain.HistoryAt(f.at))
	p.totals.put(x.row)
	return nil
}

// say notes the totals that a fact of the exec bears.
func (p *targetProjection) say(execID string, totals events.Totals) error {
	x, err := p.exec(execID)
	if err != nil || !x.row.live {
		return err
	}
	said, err := json.Marshal(totals)
	if err != nil {
		return fmt.Errorf("encode totals of exec %s: %w", execID, err)
	}
	x.row.row.said = string(said)
	if x.row.row.kept == targetsForgotten {
		x.row.row.totals = x.row.row.said
	}
	p.totals.put(x.row)
	return nil
}

// reduce makes what is left of an exec: its targets are forgotten, now or with the next steps.
func (p *targetProjection) reduce(e events.ExecReduced) error {
	x, err := p.exec(e.ExecID)
	if err != nil {
		return err
	}
	p.forget(x)
	if !x.row.live {
		x.row.row = totalsRow{execID: e.ExecID, initiatedAt: e.InitiatedAt, kept: targetsForgotten}
		x.row.live = true
	}
	return nil
}

// forget lets what there is of the exec be forgotten with the next steps, whatever its age.
func (p *targetProjection) forget(x *execTargets) {
	if x.row.live {
		x.row.row.kept = targetsDue
		p.totals.put(x.row)
		p.db.forgotten = time.Time{} // there is something to forget, whatever the hour
	}
}

// plan makes targets of the plan's endpoints. One that spoke before it was planned keeps its state.
func (p *targetProjection) plan(e events.ExecPlanned, f *fact) error {
	x, err := p.exec(e.ExecID)
	if err != nil {
		return err
	}
	if !p.keeps(x, f) {
		p.forget(x) // a plan that comes so late makes waves
		return nil
	}
	if err := p.complete(x); err != nil {
		return err
	}
	if e.MaxParallel != nil && !x.planned() {
		x.placed = &e
	}
	for pc, as := range e.Targets() {
		t := x.at(pc)
		if next, changed := t.row.Target.Target.Plan(as, f.seq, f.at); changed {
			x.change(t, next)
		}
	}
	return nil
}

// dispatch marks the targets of a wave, or of a part of it.
func (p *targetProjection) dispatch(e events.WaveDispatched, f *fact) error {
	send := func(t events.Target) (events.Target, bool) {
		if t.Wave != e.Wave {
			return t, false
		}
		return t.Send(f.seq, f.at)
	}
	x, err := p.exec(e.ExecID)
	if err != nil || !p.keeps(x, f) {
		return err
	}
	if e.From == 0 && e.To == 0 {
		if !x.complete && len(x.targets) == 0 {
			return p.sendWave(x, e.Wave, f)
		}
		return p.each(e.ExecID, f, send)
	}
	part, err := p.part(x, e)
	if err != nil {
		return err
	}
	for _, pc := range part {
		t, err := p.target(x, pc)
		if err != nil {
			return err
		}
		if next, changed := send(t.row.Target.Target); changed {
			x.change(t, next)
		}
	}
	return nil
}

// sendWave is events.Target.Send for the endpoints of a wave of which a batch has read none: it does not read them either.
const sendWave = `UPDATE OR FAIL targets SET state = '` + string(events.StateSent) + `', at = ?3, sequence = ?4
	WHERE exec_id = ?1 AND wave = ?2 AND state = '` + string(events.StateExpected) + `'`

func (p *targetProjection) sendWave(x *execTargets, wave int, f *fact) error {
	sent, err := p.db.change(&targets, opSendWave, x.execID, wave, toNanos(f.at), sequence{&f.seq})
	if err != nil || sent == 0 {
		return err
	}
	before := events.Target{State: events.StateExpected, Expected: true, Planned: true, Wave: wave}
	after, _ := before.Send(f.seq, f.at)
	for range sent {
		x.totals.Remove(before)
		x.totals.Add(after)
	}
	x.counted = true
	return nil
}

// part lists the endpoints of a part of a wave: by the plan where it is of the same batch, by its places otherwise.
func (p *targetProjection) part(x *execTargets, e events.WaveDispatched) ([]string, error) {
	var part []string
	if x.placed == nil {
		err := p.db.each(&targetPlaces, opSelectRange, func(scan func(...any) error) error {
			var row placeRow
			err := scan(row.fields()...)
			part = append(part, row.pcID)
			return err
		}, x.execID, e.Wave, e.From, e.To)
		return part, err
	}
	if e.Wave < 0 || e.Wave >= len(x.placed.Waves) {
		return nil, nil
	}
	w := x.placed.Waves[e.Wave]
	first, end := events.Part(w.Size(), e.From, e.To)
	for place := first; place < end; place++ {
		part = append(part, w.At(place))
	}
	return part, nil
}

func (p *targetProjection) stop(execID, reason string, f *fact) error {
	return p.each(execID, f, func(t events.Target) (events.Target, bool) { return t.Stop(reason, f.seq, f.at) })
}

// each changes all targets of an exec.
func (p *targetProjection) each(execID string, f *fact, change func(events.Target) (events.Target, bool)) error {
	x, err := p.exec(execID)
	if err != nil || !p.keeps(x, f) {
		return err
	}
	if err := p.complete(x); err != nil {
		return err
	}
	for _, t := range x.targets {
		if next, changed := change(t.row.Target.Target); changed {
			x.change(t, next)
		}
	}
	return nil
}

func (p *targetProjection) exec(execID string) (*execTargets, error) {
	if x, ok := p.execs[execID]; ok {
		return x, nil
	}
	row, err := p.totals.get(execID)
	if err != nil {
		return nil, err
	}
	x := &execTargets{execID: execID, targets: map[string]*entry[targetRow]{}, row: row, complete: !row.live}
	if row.live {
		if err := json.Unmarshal([]byte(row.row.totals), &x.totals); err != nil {
			return nil, fmt.Errorf("read totals of exec %s: %w", execID, err)
		}
	}
	p.execs[execID] = x
	p.order = append(p.order, x)
	return x, nil
}

func (p *targetProjection) target(x *execTargets, pcID string) (*entry[targetRow], error) {
	t := x.at(pcID)
	if x.complete || t.stored || t.live {
		return t, nil
	}
	found, err := p.db.load(&targets, t.row.fields(), x.execID, pcID)
	t.stored, t.live = found, found
	return t, err
}

// at is the entry of an endpoint, made empty where it has not been read.
func (x *execTargets) at(pcID string) *entry[targetRow] {
	t, ok := x.targets[pcID]
	if !ok {
		t = &entry[targetRow]{row: targetRow{execID: x.execID, Target: Target{PCID: pcID}}}
		x.targets[pcID] = t
	}
	return t
}

// complete reads whatever of the exec's targets has not been read.
func (p *targetProjection) complete(x *execTargets) error {
	if x.complete {
		return nil
	}
	err := p.db.each(&targets, opSelectPrefix, func(scan func(...any) error) error {
		var row targetRow
		if err := scan(row.fields()...); err != nil {
			return err
		}
		if t := x.at(row.PCID); !t.live {
			t.row, t.stored, t.live = row, true, true
		}
		return nil
	}, x.execID)
	x.complete = err == nil
	return err
}

// planned reports whether a plan names any of the targets; all of them must have been read.
func (x *execTargets) planned() bool {
	for _, t := range x.targets {
		if t.row.Planned {
			return true
		}
	}
	return false
}

// change moves a target from its state to the next: out of the totals, and in again.
func (x *execTargets) change(t *entry[targetRow], next events.Target) {
	if before := t.row.Target.Target; before.State != "" {
		x.totals.Remove(before)
		if before.ResultID != "" {
			x.row.row.heard--
		}
	}
	x.totals.Add(next)
	x.counted = true
	if next.ResultID != "" {
		x.row.row.heard++
	}
	t.row.Target.Target, t.live = next, true
	if !t.dirty {
		t.dirty = true
		x.touched = append(x.touched, t)
	}
}

func (p *targetProjection) Flush() error {
	inserted := insertion{db: p.db, rel: &targets}
	for _, x := range p.order {
		if err := p.flushPlaces(x); err != nil {
			return err
		}
		if !x.counted {
			continue
		}
		if err := x.write(&inserted); err != nil {
			return err
		}
		totals, err := json.Marshal(x.totals)
		if err != nil {
			return fmt.Errorf("encode totals of exec %s: %w", x.execID, err)
		}
		x.row.row.totals = string(totals)
		p.totals.put(x.row)
	}
	if err := inserted.flush(); err != nil {
		return err
	}
	return p.totals.flush()
}

// manyAlike is from how many on targets that are alike but for the endpoint are written by one statement: a plan, a
// dispatch and a stop make the same of all whom they concern.
const manyAlike = 64

// write stores the exec's touched targets, in the order of endpoints.
func (x *execTargets) write(inserted *insertion) error {
	slices.SortFunc(x.touched, func(a, b *entry[targetRow]) int { return cmp.Compare(a.row.PCID, b.row.PCID) })
	type likeness struct {
		events.Target
		stored bool
	}
	alike := map[likeness][]string{}
	if len(x.touched) >= manyAlike {
		for _, t := range x.touched {
			if t.row.ResultID == "" {
				like := likeness{t.row.Target.Target, t.stored}
				alike[like] = append(alike[like], t.row.PCID)
			}
		}
	}
	for _, t := range x.touched {
		like := likeness{t.row.Target.Target, t.stored}
		pcs := alike[like]
		switch {
		case len(pcs) < manyAlike:
			if err := t.write(inserted, t.row.fields()); err != nil {
				return err
			}
		case pcs[0] == t.row.PCID: // the others come along
			op := opInsertEach
			if t.stored {
				op = opUpdateEach
			}
			fields := t.row.fields()
			fields[targets.key-1] = textList(pcs)
			if err := inserted.db.exec(&targets, op, fields...); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *targetProjection) flushPlaces(x *execTargets) error {
	if x.placed == nil {
		return nil
	}
	inserted := insertion{db: p.db, rel: &targetPlaces}
	for i, w := range x.placed.Waves {
		for place := range w.Size() {
			row := placeRow{x.execID, i, place, w.At(place)}
			if err := inserted.add(row.fields()); err != nil {
				return err
			}
		}
	}
	return inserted.flush()
}

// Targets are forgotten exec by exec, and waves with them; then what the log's last fact said takes the place of the count.
var (
	forgetReducedTargets = forgetting{
		due:     fmt.Sprintf("SELECT 1 FROM target_totals INDEXED BY target_totals_due WHERE kept = %d AND ? IS NOT NULL", targetsDue),
		horizon: events.Retain.HistoryAt,
		remove: func(d *database, _ time.Time, limit int) (int, error) {
			return d.forgetTargets(fmt.Sprintf("SELECT exec_id FROM target_totals INDEXED BY target_totals_due WHERE kept = %d LIMIT 1", targetsDue), limit)
		},
	}
	forgetTargets = forgetting{
		due:     fmt.Sprintf("SELECT 1 FROM target_totals INDEXED BY target_totals_kept WHERE kept = %d AND initiated_at < ?", targetsKept),
		horizon: events.Retain.HistoryAt,
		remove: func(d *database, horizon time.Time, limit int) (int, error) {
			return d.forgetTargets(fmt.Sprintf("SELECT exec_id FROM target_totals INDEXED BY target_totals_kept WHERE kept = %d AND initiated_at < ? LIMIT 1",
				targetsKept), limit, toNanos(horizon))
		},
	}
)

// forgetTargets forgets those of the exec that a query finds, and of the next one, until there is none or enough is removed.
func (d *database) forgetTargets(next string, limit int, args ...any) (removed int, err error) {
	for removed < limit {
		var execID string
		if err := scanOne(context.Background(), d.conn, next, []any{&execID}, args...); err != nil || execID == "" {
			return removed, err
		}
		for _, r := range []*relation{&targets, &targetPlaces, &waves} {
			n, err := d.removeSome(r, execID, limit-removed)
			if err != nil {
				return removed, err
			}
			if removed += n; removed >= limit {
				return removed, nil
			}
		}
		_, err := d.conn.ExecContext(context.Background(), "UPDATE target_totals SET kept = ?, totals = said, heard = 0 WHERE exec_id = ?", targetsForgotten, execID)
		if err != nil {
			return removed, fmt.Errorf("forget targets of exec %s: %w", execID, err)
		}
		removed++
	}
	return removed, nil
}

// TargetFilter names the targets of one exec.
type TargetFilter struct {
	ExecID string
	// State narrows to one state; empty: all.
	State events.TargetState
	Page
}

const targetOrder order = "targets"

// Targets lists targets of an exec by endpoint, none for an exec that nobody knows, and gives the cursor of the next
// page; ErrCursor.
func (r *Reader) Targets(ctx context.Context, f TargetFilter) ([]Target, string, error) {
	var after string
	if err := f.begin(targetOrder, &after); err != nil {
		return nil, "", err
	}
	rows, err := list(ctx, r, scanTarget, targets.all()+` WHERE exec_id = ?1 AND pc_id > ?2 AND (?3 = '' OR state = ?3) ORDER BY pc_id LIMIT ?4`,
		f.ExecID, after, f.State, f.more())
	rows, next := cut(rows, f.Page, func(t *Target) string { return targetOrder.cursor(t.PCID) })
	return rows, next, err
}

// Target reads one endpoint in one exec; ErrNotFound.
func (r *Reader) Target(ctx context.Context, execID, pcID string) (Target, error) {
	return one(ctx, r, scanTarget, targets.all()+" WHERE exec_id = ? AND pc_id = ?", execID, pcID)
}

func scanTarget(scan func(...any) error) (Target, error) {
	var t targetRow
	err := scan(t.fields()...)
	return t.Target, err
}
