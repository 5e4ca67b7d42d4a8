package readmodel

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"strings"

	"kanade/libs/events"
)

// querier is a connection or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Digest is a SHA-256 in lower-case hex for each SQL table that LOG feeds, over its rows in the order of their primary
// key, every value with its type and length. Two files that applied the same log have the same digests. What is too old is
// forgotten first.
func (w *Writer) Digest(ctx context.Context) (map[string]string, error) {
	if err := w.ForgetAll(ctx); err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return digests(ctx, w.db.conn)
}

func digests(ctx context.Context, q querier) (map[string]string, error) {
	all := map[string]string{}
	for _, r := range logRelations() {
		digest, err := r.digest(ctx, q)
		if err != nil {
			return nil, fmt.Errorf("digest table %s: %w", r.name, err)
		}
		all[r.name] = digest
	}
	return all, nil
}

// logRelations are the SQL tables that LOG feeds: those that a log determines.
func logRelations() []*relation {
	var all []*relation
	for _, t := range tables() {
		if t.stream == events.StreamLog {
			all = append(all, t.relations...)
		}
	}
	return all
}

func (r *relation) digest(ctx context.Context, q querier) (string, error) {
	rows, err := r.ordered(ctx, q)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	h := sha256.New()
	for rows.next() {
		for _, v := range rows.values {
			text := fmt.Sprint(v)
			fmt.Fprintf(h, "%T %d %s\n", v, len(text), text)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), rows.err
}

// orderedRows walks over a table in the order of its primary key.
type orderedRows struct {
	*sql.Rows
	rel    *relation
	values []any // of the present row; nil behind the last
	into   []any
	err    error
}

func (r *relation) ordered(ctx context.Context, q querier) (*orderedRows, error) {
	found, err := q.QueryContext(ctx, r.all()+" ORDER BY "+strings.Join(r.columnNames()[:r.key], ", ")) //nolint:rowserrcheck // next does
	if err != nil {
		return nil, err
	}
	return &orderedRows{Rows: found, rel: r, into: make([]any, len(r.columns))}, nil
}

// next goes to the next row; false behind the last, and after an error.
func (o *orderedRows) next() bool {
	o.values = nil
	if !o.Next() {
		o.err = o.Err()
		return false
	}
	values := make([]any, len(o.into))
	for i := range values {
		o.into[i] = &values[i]
	}
	if o.err = o.Scan(o.into...); o.err != nil {
		return false
	}
	o.values = values
	return true
}
