package readmodel

import (
	"context"
	"errors"
	"time"

	"kanade/libs/events"
)

// Freeze is a freeze of the fleet as the operator wrote it; whether it holds at a moment is for libs/catalog to say.
type Freeze struct {
	ID string
	// From and Until are RFC 3339 or a date, read in TZ; empty: no bound. Reason is empty where nobody gave one.
	From, Until, Reason, TZ string
	// Sequence is the LOG sequence of the fact that saved it, SavedAt its time by the broker's clock, Actor who did it.
	Sequence uint64
	SavedAt  time.Time
	Actor    events.Actor
}

var freezes = relation{name: "freeze", key: 1, columns: []string{
	"id TEXT", "from_text TEXT", "until_text TEXT", "reason TEXT", "tz TEXT", "sequence INTEGER", "saved_at INTEGER", "actor TEXT",
}}

func (z *Freeze) fields() []any {
	return []any{&z.ID, &z.From, &z.Until, &z.Reason, &z.TZ, sequence{&z.Sequence}, nanos{&z.SavedAt}, &z.Actor}
}

type freezeProjection struct{ *rows[Freeze, *Freeze] }

func beginFreezes(db *database) projection { return freezeProjection{newRows[Freeze](db, &freezes)} }

func (p freezeProjection) Apply(f *fact) error {
	switch e := f.payload.(type) {
	case events.FreezeSaved:
		row, err := p.get(e.ID)
		if err != nil {
			return err
		}
		row.row = Freeze{
			ID: e.ID, From: e.From, Until: e.Until, Reason: e.Reason, TZ: e.TZ,
			Sequence: f.seq, SavedAt: f.event.Time, Actor: f.event.Actor,
		}
		p.put(row)
	case events.FreezeCleared:
		row, err := p.get(e.ID)
		if err != nil {
			return err
		}
		p.remove(row)
	}
	return nil
}

func (p freezeProjection) Flush() error { return p.flush() }

func scanFreeze(scan func(...any) error) (z Freeze, err error) { return z, scan(z.fields()...) }

// Freeze reads the freeze of the fleet; false when there is none.
func (r *Reader) Freeze(ctx context.Context) (Freeze, bool, error) {
	z, err := one(ctx, r, scanFreeze, freezes.all()+" WHERE id = ?", events.FleetID)
	if errors.Is(err, ErrNotFound) {
		return Freeze{}, false, nil
	}
	return z, err == nil, err
}
