package readmodel

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"kanade/libs/events"
)

// Wave is one wave of an exec. It exists from the plan on.
type Wave struct {
	ExecID string
	// Wave counts from 0.
	Wave int
	// Label, DueAt, After, DelaySecs and Pause are the plan's (events.PlannedWave).
	Label     string
	DueAt     time.Time
	After     bool
	DelaySecs uint64
	Pause     bool
	// Size is how many endpoints it has; Released of them may have their command, Dispatched of them have it stored for
	// them. Where parts are stored in another order than they were released, Dispatched is ahead for that moment.
	Size, Released, Dispatched int
	// ReleasedAt is when its first part was released, DispatchedAt when the last one of those that are out was stored, by the
	// broker's clock; zero before.
	ReleasedAt, DispatchedAt time.Time
	// Advance is the first operator's act that let it go out at once; zero At: nobody did.
	Advance Advance

	// Totals counts its targets by state. It is derived from them when it is read.
	Totals events.Totals
}

// Advance is an operator's release of a wave.
type Advance struct {
	Actor  events.Actor
	Reason string
	// At is by the broker's clock, Sequence the LOG sequence.
	At       time.Time
	Sequence uint64
}

// WaveState is how far a wave is.
type WaveState string

// The states of a wave. Pending: its time has not come. Paused: it waits for a person. Releasing: parts of it are out, or
// being stored, but not all of it. Sent: it is out and not all of its endpoints have answered. Stopped: what is not out
// will not go out.
const (
	WavePending   WaveState = "pending"
	WavePaused    WaveState = "paused"
	WaveReleasing WaveState = "releasing"
	WaveSent      WaveState = "sent"
	WaveDone      WaveState = "done"
	WaveStopped   WaveState = "stopped"
)

// State of the wave in its exec. A wave with nobody to wait for is done when whoever else is in it has answered. One that
// goes out in parts is done at the expiry when all that the outcome waited for have answered: those that were away get
// theirs last.
func (w *Wave) State(e *Execution) WaveState {
	expected, open := w.Totals.ExpectedCount(), w.Totals.Open()
	held := w.Advance.At.IsZero() // an advanced wave waits for nobody
	switch {
	case !w.DispatchedAt.IsZero() && w.Dispatched >= w.Size:
		if open > 0 || expected == 0 && w.Totals.OthersOpen() > 0 {
			return WaveSent
		}
		return WaveDone
	case e.Stop.By != "":
		return WaveStopped
	case !e.ExpiredAt.IsZero():
		if expected > 0 && w.Dispatched >= expected && open == 0 {
			return WaveDone
		}
		return WaveStopped
	case held && e.Paused && w.Released == w.Dispatched:
		return WavePaused
	case !w.ReleasedAt.IsZero():
		return WaveReleasing
	case held && w.Pause:
		return WavePaused
	default:
		return WavePending
	}
}

var waves = relation{name: "waves", key: 2, columns: []string{
	"exec_id TEXT", "wave INTEGER", "label TEXT", "due_at INTEGER", "after INTEGER", "delay_secs INTEGER", "pause INTEGER",
	"size INTEGER", "released INTEGER", "dispatched INTEGER", "released_at INTEGER", "dispatched_at INTEGER",
	"advance_actor TEXT", "advance_reason TEXT", "advanced_at INTEGER", "advance_sequence INTEGER",
}}

func (w *Wave) fields() []any {
	return []any{
		&w.ExecID, &w.Wave, &w.Label, nanos{&w.DueAt}, &w.After, sequence{&w.DelaySecs}, &w.Pause,
		&w.Size, &w.Released, &w.Dispatched, nanos{&w.ReleasedAt}, nanos{&w.DispatchedAt},
		&w.Advance.Actor, &w.Advance.Reason, nanos{&w.Advance.At}, sequence{&w.Advance.Sequence},
	}
}

// waveProjection holds the waves of the execs that a batch touches.
type waveProjection struct {
	db *database
	// requested are the execs that the batch requests.
	requested map[string]bool
	waves     map[waveKey]*entry[Wave]
	touched   []*entry[Wave]
}

type waveKey struct {
	execID string
	wave   int
}

func beginWaves(db *database) projection {
	return &waveProjection{db: db, requested: map[string]bool{}, waves: map[waveKey]*entry[Wave]{}}
}

func (p *waveProjection) Apply(f *fact) error {
	switch e := f.payload.(type) {
	case events.ExecRequested:
		p.requested[e.ExecID] = true
	case events.ExecPlanned:
		return p.plan(e)
	case events.WaveReleased:
		return p.change(e.ExecID, e.Wave, func(w *Wave) {
			_, end := events.Part(w.Size, e.From, e.To) // parts follow one another
			w.Released = max(w.Released, end)
			if w.ReleasedAt.IsZero() {
				w.ReleasedAt = f.event.Time
			}
		})
	case events.WaveDispatched:
		return p.change(e.ExecID, e.Wave, func(w *Wave) {
			if _, end := events.Part(w.Size, e.From, e.To); end > w.Dispatched || w.DispatchedAt.IsZero() {
				w.Dispatched, w.DispatchedAt = end, f.event.Time
			}
		})
	case events.WaveAdvanced:
		return p.change(e.ExecID, e.Wave, func(w *Wave) {
			if w.Advance.At.IsZero() {
				w.Advance = Advance{Actor: f.event.Actor, Reason: e.Reason, At: f.event.Time, Sequence: f.seq}
			}
		})
	}
	return nil
}

// plan makes the waves; of several plans the first one that names a wave counts. The plan of an exec that nobody has
// requested makes none: there would be no time to forget them by.
func (p *waveProjection) plan(e events.ExecPlanned) error {
	if !p.requested[e.ExecID] {
		var totals totalsRow
		if known, err := p.db.load(&targetTotals, totals.fields(), e.ExecID); err != nil || !known {
			return err
		}
	}
	for i, w := range e.Waves {
		row, err := p.get(waveKey{e.ExecID, i})
		if err != nil {
			return err
		}
		if row.live {
			continue
		}
		row.row = Wave{
			ExecID: e.ExecID, Wave: i, Label: w.Label, DueAt: w.DueAt, After: w.After, DelaySecs: w.DelaySecs, Pause: w.Pause,
			Size: w.Size(),
		}
		p.put(row)
	}
	return nil
}

// change changes a wave that the plan has; of another one nothing is known.
func (p *waveProjection) change(execID string, wave int, change func(*Wave)) error {
	row, err := p.get(waveKey{execID, wave})
	if err != nil || !row.live {
		return err
	}
	change(&row.row)
	p.put(row)
	return nil
}

func (p *waveProjection) get(k waveKey) (*entry[Wave], error) {
	if e, ok := p.waves[k]; ok {
		return e, nil
	}
	e := &entry[Wave]{}
	found, err := p.db.load(&waves, e.row.fields(), k.execID, k.wave)
	if err != nil {
		return nil, err
	}
	e.stored, e.live = found, found
	p.waves[k] = e
	return e, nil
}

func (p *waveProjection) put(e *entry[Wave]) {
	e.live = true
	if !e.dirty {
		e.dirty = true
		p.touched = append(p.touched, e)
	}
}

func (p *waveProjection) Flush() error {
	inserted := insertion{db: p.db, rel: &waves}
	for _, e := range p.touched {
		if err := e.write(&inserted, e.row.fields()); err != nil {
			return err
		}
	}
	return inserted.flush()
}

// A target that the plan leaves out stands in no wave, and so does one that the plan does not know.
const selectWaveTotals = `SELECT wave, CASE expected WHEN 1 THEN 'expected' ELSE 'others' END AS side, state, COUNT(*) AS n
	FROM targets WHERE exec_id = ?1 AND planned = 1
	AND NOT (state = 'skipped' AND result_id = '' AND reason NOT IN ('exec_killed', 'exec_cancelled', 'exec_halted'))
	GROUP BY wave, side, state`

// Waves lists the waves of an exec; none before the plan.
func (r *Reader) Waves(ctx context.Context, execID string) ([]Wave, error) {
	// One query, so that waves and targets are of the same moment.
	query := `WITH counted AS (` + selectWaveTotals + `),
		sides AS (SELECT wave, side, json_group_object(state, n) AS states FROM counted GROUP BY wave, side)
		SELECT ` + waves.list("w") + `, (SELECT json_group_object(side, json(states)) FROM sides s WHERE s.wave = w.wave)
		FROM waves w WHERE w.exec_id = ?1 ORDER BY w.wave`
	return list(ctx, r, scanWave, query, execID)
}

func scanWave(scan func(...any) error) (w Wave, err error) {
	var totals string
	if err := scan(append(w.fields(), &totals)...); err != nil {
		return w, err
	}
	if err := json.Unmarshal([]byte(totals), &w.Totals); err != nil {
		return w, fmt.Errorf("read totals of wave %d of exec %s: %w", w.Wave, w.ExecID, err)
	}
	return w, nil
}
