package readmodel

import (
	"context"
	"fmt"
	"strings"
	"time"

	"kanade/libs/events"
)

// Rows are forgotten by the time of the log: what events.Retain says at the time of the last fact that is applied. So a
// file that was fed all along, and one that is made of what the log still holds, have the same rows: the log keeps facts
// for events.Slack longer.
//
// To forget takes as long as to write, so the writer does it in steps between batches. What should be gone and is not yet
// is shown a little longer; a fact that meets such a row makes what it would make without it (Result, target.keeps). A
// digest and a comparison are of files that have nothing left to forget.

// forgetting finds and removes what a noun has to forget.
type forgetting struct {
	// due asks whether there is anything, with the horizon as its only parameter.
	due string
	// horizon is the instant before which it is forgotten.
	horizon func(r events.Retain, log time.Time) time.Time
	// remove takes away limit rows at most, and tells how many.
	remove func(d *database, horizon time.Time, limit int) (int, error)
}

// forgettings are in an order in which whoever is asked for by another one comes first.
func forgettings() []forgetting {
	var all []forgetting
	for _, t := range tables() {
		all = append(all, t.forgets...)
	}
	return all
}

// forgetStep is how many rows one step of Forget removes at most: a message that comes meanwhile waits for it, about
// 10 ms.
const forgetStep = 200

// Forget removes some of the rows that are too old at the time of the last fact applied, and reports whether there are
// more. It costs next to nothing where there are none. A crash in between loses nothing.
func (w *Writer) Forget(ctx context.Context) (more bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	at, err := w.db.checkpoint(events.StreamLog)
	horizon := w.db.retain.HistoryAt(at.At)
	if err != nil || w.db.retain == (events.Retain{}) || at.Sequence == 0 || horizon.Equal(w.db.forgotten) {
		return false, err
	}
	if err := w.db.transaction(func() (err error) { more, err = w.db.forget(at.At, forgetStep); return err }); err != nil {
		return false, fmt.Errorf("forget: %w", err)
	}
	if !more {
		w.db.forgotten = horizon
	}
	return more, nil
}

// ForgetAll is Forget until there is nothing left.
func (w *Writer) ForgetAll(ctx context.Context) error {
	for {
		if more, err := w.Forget(ctx); err != nil || !more {
			return err
		}
	}
}

func (d *database) forget(log time.Time, limit int) (more bool, err error) {
	for _, f := range forgettings() {
		n, err := f.remove(d, f.horizon(d.retain, log), limit)
		if err != nil {
			return false, err
		}
		if limit -= n; limit <= 0 {
			return true, nil
		}
	}
	return false, nil
}

// old notes a row that is too old as soon as it is made: it is not to wait until the horizon moves.
func (d *database) old(at, horizon time.Time) {
	if at.Before(horizon) {
		d.forgotten = time.Time{}
	}
}

// hasForgotten reports whether a file has nothing left to forget.
func hasForgotten(ctx context.Context, q querier, retain events.Retain) (bool, error) {
	var log time.Time
	err := scanOne(ctx, q, "SELECT at FROM checkpoints WHERE stream = ?", []any{nanos{&log}}, events.StreamLog)
	if err != nil || log.IsZero() {
		return true, err
	}
	for _, f := range forgettings() {
		var due bool
		if err := scanOne(ctx, q, "SELECT EXISTS ("+f.due+")", []any{&due}, toNanos(f.horizon(retain, log))); err != nil || due {
			return false, err
		}
	}
	return true, nil
}

// scanOne reads one row, and leaves the fields as they are where there is none.
func scanOne(ctx context.Context, q querier, query string, fields []any, args ...any) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	if rows.Next() {
		if err := rows.Scan(fields...); err != nil {
			return err
		}
	}
	return rows.Err()
}

// take reads the rows of a query, calling row for each.
func (d *database) take(query string, row func(scan func(...any) error) error, args ...any) error {
	rows, err := d.conn.QueryContext(context.Background(), query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// removeOld is a statement that deletes rows older than the horizon, limit of them at most.
func (d *database) removeOld(query string, horizon time.Time, limit int) (int, error) {
	done, err := d.conn.ExecContext(context.Background(), query, toNanos(horizon), limit)
	if err != nil {
		return 0, err
	}
	n, err := done.RowsAffected()
	return int(n), err
}

// removeSome deletes limit rows of a relation at most that match the first column of their key.
func (d *database) removeSome(r *relation, first string, limit int) (int, error) {
	names := r.columnNames()[:r.key]
	keys := strings.Join(names, ", ")
	query := fmt.Sprintf("DELETE FROM %s WHERE (%s) IN (SELECT %s FROM %s WHERE %s = ? LIMIT ?)", r.name, keys, keys, r.name, names[0])
	done, err := d.conn.ExecContext(context.Background(), query, first, limit)
	if err != nil {
		return 0, fmt.Errorf("forget rows of table %s: %w", r.name, err)
	}
	n, err := done.RowsAffected()
	return int(n), err
}
