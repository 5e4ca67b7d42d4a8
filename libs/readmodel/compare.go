package readmodel

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"kanade/libs/events"
)

// View is a file as it was at one moment, whatever is written to it meanwhile. While it is open the file's journal can't
// be taken back and grows: close it soon. Not for concurrent use.
type View struct {
	// Sequence is how far the LOG is applied.
	Sequence uint64

	pool *sql.DB
	tx   *sql.Tx
}

// OpenView looks at a file. It ends with ctx, too.
func OpenView(ctx context.Context, path string) (*View, error) {
	pool, err := sql.Open("sqlite", dsn(path, readerParams))
	if err != nil {
		return nil, fmt.Errorf("view read model %s: %w", path, err)
	}
	v := &View{pool: pool}
	if v.tx, err = pool.BeginTx(ctx, nil); err == nil {
		// A transaction sees the moment of its first read.
		err = v.tx.QueryRowContext(ctx, "SELECT COALESCE((SELECT sequence FROM checkpoints WHERE stream = ?), 0)", events.StreamLog).
			Scan(sequence{&v.Sequence})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("view read model %s: %w", path, err), v.Close())
	}
	return v, nil
}

// Forgotten reports whether nothing is left in it that is to be forgotten at its moment. Only then it can be compared.
func (v *View) Forgotten(ctx context.Context, retain events.Retain) (bool, error) {
	return hasForgotten(ctx, v.tx, retain)
}

// Check looks at every page of the file, and for every row in every index. An error that IsCorrupt says what is damaged, which
// comparing rows does not find where only an index is. It takes about ten seconds for a million runs.
func (v *View) Check(ctx context.Context) error { return checkFile(ctx, v.tx) }

func checkFile(ctx context.Context, q querier) error {
	var found string
	if err := scanOne(ctx, q, "PRAGMA integrity_check(1)", []any{&found}); err != nil {
		return fmt.Errorf("check file: %w", err)
	}
	if found != "ok" {
		return fmt.Errorf("%w: %s", errDamaged, strings.TrimSpace(found))
	}
	return nil
}

// Close ends the view.
func (v *View) Close() error {
	var errs []error
	if v.tx != nil {
		if err := v.tx.Rollback(); !errors.Is(err, sql.ErrTxDone) { // the context has ended it
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, v.pool.Close())...)
}

// Digest is that of Writer.Digest.
func (v *View) Digest(ctx context.Context) (map[string]string, error) { return digests(ctx, v.tx) }

// Difference is a row that is not as it should be.
type Difference struct {
	Table string
	// Key is the row's primary key.
	Key []any
	// Is and Should are the whole rows; nil where there is none.
	Is, Should []any
}

func (d Difference) String() string {
	switch {
	case d.Is == nil:
		return fmt.Sprintf("%s %v is missing", d.Table, d.Key)
	case d.Should == nil:
		return fmt.Sprintf("%s %v should not be there", d.Table, d.Key)
	default:
		return fmt.Sprintf("%s %v is %v, should be %v", d.Table, d.Key, d.Is[len(d.Key):], d.Should[len(d.Key):])
	}
}

// Compare holds a view against one that is right, of the same log up to the same message: each table that LOG feeds, row
// by row. It counts what differs by table, tables without differences left out, and lists the first ones, limit at most.
func Compare(ctx context.Context, is, should *View, limit int) (counts map[string]int, first []Difference, err error) {
	counts = map[string]int{}
	for _, r := range logRelations() {
		err := r.compare(ctx, is.tx, should.tx, func(d Difference) {
			if counts[r.name]++; len(first) < limit {
				first = append(first, d)
			}
		})
		if err != nil {
			return nil, nil, fmt.Errorf("compare table %s: %w", r.name, err)
		}
	}
	return counts, first, nil
}

func (r *relation) compare(ctx context.Context, is, should querier, differs func(Difference)) error {
	a, err := r.ordered(ctx, is)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := r.ordered(ctx, should)
	if err != nil {
		return err
	}
	defer b.Close()
	a.next()
	b.next()
	for a.values != nil || b.values != nil {
		switch order := r.order(a.values, b.values); {
		case order < 0:
			differs(Difference{Table: r.name, Key: a.values[:r.key], Is: a.values})
			a.next()
		case order > 0:
			differs(Difference{Table: r.name, Key: b.values[:r.key], Should: b.values})
			b.next()
		default:
			if !slices.Equal(a.values, b.values) {
				differs(Difference{Table: r.name, Key: b.values[:r.key], Is: a.values, Should: b.values})
			}
			a.next()
			b.next()
		}
	}
	return errors.Join(a.err, b.err)
}

// order is that of two rows' keys, as SQLite has it for what keys are: whole numbers before texts, texts byte by byte. No
// row is behind every row.
func (r *relation) order(a, b []any) int {
	if a == nil || b == nil {
		return cmp.Compare(len(b), len(a))
	}
	for i := range r.key {
		an, number := a[i].(int64)
		bn, other := b[i].(int64)
		var order int
		switch {
		case number && other:
			order = cmp.Compare(an, bn)
		case number != other:
			order = 1
			if number {
				order = -1
			}
		default:
			order = cmp.Compare(fmt.Sprint(a[i]), fmt.Sprint(b[i]))
		}
		if order != 0 {
			return order
		}
	}
	return 0
}
